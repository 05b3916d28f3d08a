"""Whom a command answers: people or programs."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from percoin.config.fields import choice


class OutputFormat(StrEnum):
    """Whom a command answers."""

    TEXT = "text"
    JSON = "json"


def output_format(line: str = "text for people, json for programs") -> Any:
    """A field: whom the command answers."""
    return choice(line, OutputFormat)
