"""Times as numbers since 1970; the number of digits tells the unit."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from percoin.types import IntArray

# How many of a unit make a second. A date from 2001 to 2286 has 10 digits in seconds, and 3 more
# in each finer unit.
ALL_UNITS: Mapping[str, int] = MappingProxyType(
    {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
)
ARCHIVE_UNITS: Mapping[str, int] = MappingProxyType(
    {unit: ALL_UNITS[unit] for unit in ("milliseconds", "microseconds")}
)
_LARGEST = np.iinfo(np.int64).max


def from_epoch(numbers: IntArray, units: Mapping[str, int] = ARCHIVE_UNITS) -> pd.DatetimeIndex:
    """Numbers since 1970 as times in UTC, each in the unit that gives a date near today.

    Binance's spot files count microseconds from 2025-01-01 on and milliseconds
    before, both in one file at times. A number reads as a date from 2001 to 2286
    in one unit only; one that does so in none of ``units`` is refused.

    Args:
        numbers: Shape (n,).
        units: Those that it may be in, of ``ALL_UNITS``.

    Raises:
        ValueError: A number is in none of the units; names the first.
    """
    per_second = np.zeros(len(numbers), dtype=np.int64)
    for count in units.values():
        is_unit = (numbers >= 10**9 * count) & (numbers < min(10**10 * count, _LARGEST))
        per_second[is_unit] = count
    unknown = numbers[per_second == 0]
    if len(unknown):
        *others, last = units
        found = f"{unknown[0]} is neither in {', '.join(others)} nor {last}"
        raise ValueError(f"open time {found} since 1970")
    finest = max(10**6, int(per_second.max(initial=0)))
    unit = "ns" if finest == 10**9 else "us"
    times = (numbers * (finest // np.maximum(per_second, 1))).astype(f"datetime64[{unit}]")
    return pd.DatetimeIndex(times).tz_localize("UTC")
