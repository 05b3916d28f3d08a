"""Trainings in this process: on one core, and without painted pictures."""

from pathlib import Path

import pytest
from blank_pictures import _blank_pictures, painted  # noqa: F401
from one_core import _one_core  # noqa: F401
from train_runs import Finished, run_train, train_arguments


@pytest.fixture(scope="package")
def trained(tmp_path_factory) -> tuple[Finished, Path]:
    """One finished training, and the folder that its folders lie in."""
    folder = tmp_path_factory.mktemp("trained")
    return run_train(train_arguments(folder)), folder
