"""Training on one core: the tests' networks are too small to gain from more."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from blank_pictures import _blank_pictures, painted  # noqa: F401
from train_runs import Finished, run_train, train_arguments


@pytest.fixture(autouse=True, scope="package")
def _one_core() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="package")
def trained(tmp_path_factory) -> tuple[Finished, Path]:
    """One finished training, and the folder that its folders lie in."""
    folder = tmp_path_factory.mktemp("trained")
    return run_train(train_arguments(folder)), folder
