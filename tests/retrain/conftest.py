"""One real training, from which every test gets a copy."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from blank_pictures import _blank_pictures, painted  # noqa: F401
from registry.command.trained_registry import train_one


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
