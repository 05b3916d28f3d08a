"""What the comments in conf/ and --help say of a setting is what its field declares."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from percoin.cli.help import help_text, keys_in, schema_of_option
from percoin.config import CONF_DIR, SCHEMAS
from percoin.config.structure import help_lines

_KEY = re.compile(r"(?P<line> *\w+:(?: +[^#\s][^#]*?)?)(?: +#.*)?")
# Written by Hydra's and Lightning's rules, or set what other files explain.
_OF_LIBRARIES = {"hydra/job_logging", "logger", "debug"}


def groups_of(command: str) -> list[str]:
    defaults = OmegaConf.to_container(OmegaConf.load(CONF_DIR / f"{command}.yaml"), resolve=False)
    names = [name for entry in defaults["defaults"] if isinstance(entry, dict) for name in entry]
    return [name.removeprefix("override ") for name in names]


def files_with_schemas() -> dict[str, type]:
    found = {f"{command}.yaml": schema for command, schema in SCHEMAS.items()}
    for command in SCHEMAS:
        for group in sorted(set(groups_of(command)) - _OF_LIBRARIES):
            for path in sorted((CONF_DIR / group).glob("*.yaml")):
                found[f"{group}/{path.name}"] = schema_of_option(command, group, path.stem)
    return found


FILES = files_with_schemas()


def with_comments(text: str, notes: Mapping[str, str]) -> str:
    """The same file with the lines of help that the fields declare."""
    lines = text.splitlines()
    # Without blocks of comments, which say what a file is for.
    keys = keys_in([line if _KEY.fullmatch(line) else "" for line in lines])
    made = []
    for line in lines:
        match = _KEY.fullmatch(line)
        if match is None or line.startswith("defaults:"):
            made.append(line)
            continue
        name, _ = next(keys)
        note = notes.get(name, "")
        made.append(f"{match['line']} # {note}" if note else match["line"])
    return "\n".join(made) + "\n"


def test_every_file_of_settings_has_a_schema():
    left = {str(path.relative_to(CONF_DIR)) for path in CONF_DIR.rglob("*.yaml")} - set(FILES)

    assert {str(Path(name).parent) for name in left} == _OF_LIBRARIES
    assert None not in FILES.values()


@pytest.mark.parametrize("name", FILES)
def test_the_comments_of_a_file_are_the_lines_of_help_of_its_schema(name):
    """PERCOIN_REGENERATE_COMMENTS=1 writes them anew."""
    path = CONF_DIR / name
    text = path.read_text()
    wanted = with_comments(text, help_lines(FILES[name]))
    if os.environ.get("PERCOIN_REGENERATE_COMMENTS") == "1" and text != wanted:
        path.write_text(wanted)
        pytest.skip(f"wrote {name}; run again without PERCOIN_REGENERATE_COMMENTS")

    assert text.splitlines() == wanted.splitlines()


@pytest.mark.parametrize("command", SCHEMAS)
def test_help_has_the_line_of_every_key_of_the_command(command):
    text = " ".join(help_text(command).split())
    for name, value in keys_in((CONF_DIR / f"{command}.yaml").read_text().splitlines()):
        if value is not None and not name.startswith("hydra."):
            assert " ".join(help_lines(SCHEMAS[command])[name].split()) in text, name
