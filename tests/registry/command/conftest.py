"""A registry with one real training in it, and the command as a shell would call it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from blank_pictures import _blank_pictures, painted  # noqa: F401
from trained_registry import train_one

from percoin.registry.command.actions import main


@pytest.fixture(autouse=True, scope="package")
def _one_core() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="package")
def once(tmp_path_factory) -> Path:
    """A folder with a store and a registry; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    train_one(folder)
    return folder


@pytest.fixture
def trained(once, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(once, tmp_path / "trained", symlinks=True)


@pytest.fixture
def call(monkeypatch) -> Callable[..., int]:
    """Run the command in a folder, and return its exit code."""

    def run(folder: Path, *arguments: str) -> int:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["percoin.registry", *arguments])
        return main(arguments)

    return run
