"""What ``--help`` prints."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import OmegaConf

from percoin.cli.mistakes import options
from percoin.config import CONF_DIR

_HELP_WIDTH = 36


_YAML_LINE = re.compile(
    r"(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#\s][^#]*?))?(?: +# (?P<note>.*))?"
)


_FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:(?P<variable>\w+),(?P<otherwise>[^}]*)\}")


def help_text(config_name: str) -> str:
    """What ``--help`` prints, taken from the comments in ``conf/``."""
    path = CONF_DIR / f"{config_name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    text = _leading_comment(lines)
    text += [
        "",
        "Choices (GROUP=OPTION) with their keys; $NAME is read from the environment:",
    ]
    for entry in OmegaConf.to_container(OmegaConf.load(path), resolve=False)["defaults"]:  # type: ignore[index,call-overload]
        if isinstance(entry, dict):
            text += _help_on_choice(entry)
    text += [
        "",
        "Keys (KEY=VALUE), with their defaults:",
        *(_help_line(*key) for key in _keys_in(lines)),
    ]
    return "\n".join(text)


def _leading_comment(lines: Sequence[str]) -> list[str]:
    n_lines = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return [line[1:].removeprefix(" ") for line in lines[:n_lines]]


def _help_on_choice(entry: dict[Any, Any]) -> list[str]:
    text: list[str] = []
    for name, default in entry.items():
        group = str(name).removeprefix("override ")
        if not options(group) or group == "hydra/job_logging":
            continue  # Hydra's own
        chosen, variable = _default_value(str(default))
        for option in options(group):
            path = CONF_DIR / group / f"{option}.yaml"
            lines = path.read_text(encoding="utf-8").splitlines()
            note = " ".join(_leading_comment(lines))
            mark = f"[default{variable}]" if option == chosen else ""
            text.append(_help_line(f"{group}={option}", f"{note} {mark}".strip()))
            # Library objects are described by their libraries.
            keys = "  ".join(name for name, _ in _keys_in(lines, f"{group.replace('/', '.')}."))
            if "_target_" not in keys:
                text += textwrap.wrap(keys, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return text


def _help_line(name: str, note: str) -> str:
    start = f"  {name:{_HELP_WIDTH}}  "
    return textwrap.fill(note, 100, initial_indent=start, subsequent_indent=" " * len(start)) or (
        start.rstrip()
    )


def _keys_in(lines: Sequence[str], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each setting of a YAML file, with its note; a group's note counts for all in it."""
    parents = [(-1, prefix, "")]
    for line in lines:
        match = _YAML_LINE.fullmatch(line)
        if match is None or match["key"] == "defaults":
            continue
        depth, key = len(match["indent"]), match["key"]
        while parents[-1][0] >= depth:
            parents.pop()
        name = f"{parents[-1][1]}{key}"
        note = match["note"] or parents[-1][2]
        if match["value"] is None:
            parents.append((depth, f"{name}.", note))
        elif prefix or not name.startswith("hydra."):
            value, variable = _default_value(match["value"])
            yield name if value == "???" else f"{name}={value}", f"{note}{variable}"


def _default_value(value: str) -> tuple[str, str]:
    """A default as text, and a word on the environment variable that can set it."""
    match = _FROM_ENVIRONMENT.fullmatch(value)
    return (match["otherwise"], f"; ${match['variable']}") if match else (value, "")
