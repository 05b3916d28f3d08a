"""What ``--help`` prints: values from ``conf/``, what they mean from the schemas."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from percoin.config import CONF_DIR, OPTIONS, SCHEMAS
from percoin.config.folders import option_file, options
from percoin.config.structure import group_in, help_lines

_COLUMN = 40
_WIDTH = 100
_YAML_LINE = re.compile(
    r"(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#\s][^#]*?))?(?: +# (?P<note>.*))?"
)
_FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:(?P<variable>\w+),(?P<otherwise>[^}]*)\}")


def help_text(config_name: str) -> str:
    """What ``--help`` prints of a command."""
    path = CONF_DIR / f"{config_name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    text = _leading_comment(lines)
    text += [
        "",
        "Choices (GROUP=OPTION) with their keys; $NAME is read from the environment:",
    ]
    for entry in OmegaConf.to_container(OmegaConf.load(path), resolve=False)["defaults"]:  # type: ignore[index,call-overload]
        if isinstance(entry, dict):
            for name, default in entry.items():
                text += _help_on_group(config_name, str(name), str(default))
    text += ["", "Keys (KEY=VALUE), with their defaults:"]
    notes = help_lines(SCHEMAS[config_name])
    for name, value in keys_in(lines):
        if value is not None and not name.startswith("hydra."):
            shown, variable = _default_value(value)
            text.append(_help_line(_word(name, shown), f"{_note(notes, name)}{variable}"))
    return "\n".join(text)


def keys_in(lines: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each key of a YAML file by its dotted name, with its value as it is written there.

    The value is None of a key that holds further ones.
    """
    parents = [(-1, "")]
    for line in lines:
        match = _YAML_LINE.fullmatch(line)
        if match is None or match["key"] == "defaults":
            continue
        depth, key = len(match["indent"]), match["key"]
        while parents[-1][0] >= depth:
            parents.pop()
        name = f"{parents[-1][1]}{key}"
        if match["value"] is None:
            parents.append((depth, f"{name}."))
        yield name, match["value"]


def schema_of_option(config_name: str, group: str, option: str) -> Any:
    """The schema of an option of a group; None of a library's object.

    Args:
        config_name: The command that has the group.
        group: A folder of ``conf/``.
        option: A file in it.
    """
    content = OmegaConf.to_container(OmegaConf.load(option_file(group, option)))
    defaults = content.get("defaults", []) if isinstance(content, dict) else []
    for schema in OPTIONS.get(group, ()):
        if f"{schema.option}_schema" in defaults:
            return schema
    known = {entry.name for entry in fields(SCHEMAS[config_name])}
    return group_in(SCHEMAS[config_name], group) if group in known else None


def _help_on_group(config_name: str, entry: str, default: str) -> list[str]:
    group = entry.removeprefix("override ")
    if group == "hydra/job_logging":
        return []  # Hydra's own
    text: list[str] = []
    explained: set[tuple[str, str]] = set()
    chosen, variable = _default_value(default)
    for option in options(group):
        path = option_file(group, option)
        lines = path.read_text(encoding="utf-8").splitlines()
        mark = f"[default{variable}]" if option == chosen else ""
        text.append(_help_line(f"{group}={option}", f"{_about(path)} {mark}".strip()))
        schema = schema_of_option(config_name, group, option)
        if schema is None:
            continue  # described by its library
        notes, others = help_lines(schema), list[str]()
        for name, value in keys_in(lines):
            shown, setter = _default_value(value or "")
            word = _word(f"{group.replace('/', '.')}.{name}", shown)
            note = _note(notes, name)
            if value is None or not note or (name, note) in explained:
                others += [word] if value is not None else []
                continue
            explained.add((name, note))
            text.append(_help_line(word, f"{note}{setter}", indent=6))
        if others:
            text.append(_filled("  ".join(others), " " * 6, " " * 6))
    return text


def _about(path: Path) -> str:
    return " ".join(_leading_comment(path.read_text(encoding="utf-8").splitlines()))


def _leading_comment(lines: Sequence[str]) -> list[str]:
    n_lines = next(
        (number for number, line in enumerate(lines) if not line.startswith("#")), len(lines)
    )
    comment = [line[1:].removeprefix(" ") for line in lines[:n_lines]]
    # It tells Hydra where the settings of a file belong.
    return [line for line in comment if not line.startswith("@package")]


def _note(notes: Mapping[str, str], name: str) -> str:
    """The line of help of a key; that of its group where it has none."""
    while name and not notes.get(name):
        name = name.rpartition(".")[0]
    return notes.get(name, "")


def _word(name: str, value: str) -> str:
    return name if value == "???" else f"{name}={value}"


def _help_line(word: str, note: str, indent: int = 2) -> str:
    start = f"{' ' * indent}{word}".ljust(_COLUMN - 2) + "  "
    inner = " " * _COLUMN
    if len(start) > _COLUMN:
        # The note has the next lines for itself.
        wrapped = _filled(note, inner, inner)
        return f"{start.rstrip()}\n{wrapped}" if note else start.rstrip()
    return _filled(note, start, inner) or start.rstrip()


def _filled(text: str, start: str, indent: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False
    )


def _default_value(value: str) -> tuple[str, str]:
    """A default as text, and a word on the environment variable that can set it."""
    match = _FROM_ENVIRONMENT.fullmatch(value)
    return (match["otherwise"], f"; ${match['variable']}") if match else (value, "")
