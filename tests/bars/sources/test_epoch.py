"""Numbers since 1970, told by how many digits they have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from percoin.bars.sources.epoch import ALL_UNITS, from_epoch


@pytest.mark.parametrize("seconds", [10**9, 2 * 10**9, 9 * 10**9])
def test_each_unit_reads_as_the_same_time(seconds: int) -> None:
    units = [per for per in ALL_UNITS.values() if seconds * per < 9_200_000_000_000_000_000]
    times = from_epoch(np.array([seconds * per for per in units]), ALL_UNITS)
    assert (times == pd.Timestamp(seconds, unit="s", tz="UTC")).all()


@pytest.mark.parametrize("number", [-1, 10**9 - 1, 10**10, 10**13, 10**16])
def test_a_number_between_the_units_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"{number} is neither in seconds, milliseconds, micro"):
        from_epoch(np.array([number]), ALL_UNITS)


def test_the_archive_counts_in_two_units_only() -> None:
    with pytest.raises(ValueError, match="neither in milliseconds nor microseconds"):
        from_epoch(np.array([1_704_067_200]))
