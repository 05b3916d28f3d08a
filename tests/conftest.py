"""Fixtures that tests of several packages use."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from composed_once import compose_once
from hypothesis import settings

from percoin.evaluation import moves_fitting

# A machine that is busy with something else must not fail a test.
settings.register_profile("percoin", deadline=None)
settings.load_profile("percoin")
compose_once()
# A shell starts what runs in the background without Ctrl-C, and so would be all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# What is compared to the last bit must not depend on which precision is timed to be faster.
os.environ["ML_PRECISION"] = "32-true"
# Most trainings here are over in a second; tests/evaluation/test_moves.py fits as many as usual.
moves_fitting.N_TREES = 6


@pytest.fixture(scope="session")
def klines() -> Path:
    """The folder of real bars; a test that asks for it is skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "klines"
    folder = Path(os.environ.get("PERCOIN_KLINES", beside))
    if not folder.is_dir():
        pytest.skip("no real bars here; PERCOIN_KLINES can name their folder")
    return folder


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """A command that sets up logging must leave neither stream nor open file to the next test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


# The longest files, longest first: begun last, one of them would keep a single worker busy
# while the others wait.
BEGUN_FIRST = (
    "sweep/test_slurm_engine.py",
    "sweep/test_ray_engine.py",
    "sweep/test_refusing_disk.py",
    "sweep/test_sweep_process.py",
    "training/recipes/test_logistic.py",
    "test_phrases.py",
    "test_readme.py",
    "test_config.py",
    "training/recipes/test_fleet.py",
    "training/recipes/test_pooled.py",
    "training/recipes/test_extra_features.py",
    "tuning/test_tune_process.py",
    "sweep/test_many_fits.py",
    "training/test_train_process.py",
    "training/test_pooled_process.py",
    "sweep/test_processes.py",
)


def pytest_collection_finish() -> None:
    """Keep what is loaded by now out of every search for garbage: it stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    ranks = {Path(__file__).parent / path: rank for rank, path in enumerate(BEGUN_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
