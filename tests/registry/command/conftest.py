"""A registry with one real training in it, and the command as a shell would call it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from blank_pictures import _blank_pictures  # noqa: F401
from one_core import _one_core  # noqa: F401
from trained_registry import once, trained  # noqa: F401

from percoin.registry.command.actions import main


@pytest.fixture
def call(monkeypatch) -> Callable[..., int]:
    """Run the command in a folder, and return its exit code."""

    def run(folder: Path, *arguments: str) -> int:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["percoin.registry", *arguments])
        return main(arguments)

    return run
