"""Whom a command answers: people or programs."""

from __future__ import annotations

from enum import StrEnum


class OutputFormat(StrEnum):
    """Whom ``predict.py`` answers."""

    TEXT = "text"
    JSON = "json"
