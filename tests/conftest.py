"""Fixtures that tests of several packages use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy with something else must not fail a test.
settings.register_profile("percoin", deadline=None)
settings.load_profile("percoin")


@pytest.fixture(scope="session")
def klines() -> Path:
    """The folder of real bars; a test that asks for it is skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "klines"
    folder = Path(os.environ.get("PERCOIN_KLINES", beside))
    if not folder.is_dir():
        pytest.skip("no real bars here; PERCOIN_KLINES can name their folder")
    return folder
