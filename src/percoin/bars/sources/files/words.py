"""What people call the columns of bars."""

from __future__ import annotations

import re

from percoin.bars.schema import COLUMNS

OTHER_NAMES = {
    "open": ("o", "openprice"),
    "high": ("h", "highprice"),
    "low": ("l", "lowprice"),
    "close": ("c", "closeprice"),
    "volume": ("vol", "v", "basevolume", "volumebase", "baseassetvolume", "volumefrom"),
}
OPEN_TIMES = {
    *("opentime", "openat", "opentimestamp", "opendate", "opendatetime", "klineopentime"),
    *("starttime", "startat", "start", "begin", "timeperiodstart", "candlebegintime"),
}
TIMES = {
    *("timestamp", "time", "datetime", "date", "unix", "unixtime", "unixtimestamp", "ts", "t"),
    *("epoch", "dt", "day", "candletime"),
}
CLOSE_TIMES = {"closetime", "closetimestamp", "endtime", "timeperiodend", "closeat"}
SYMBOLS = {"symbol", "pair", "ticker", "market", "instrument", "instid"}
UNNAMED = re.compile(r"|unnamed\d*|indexlevel\d*|index")

_NO_LETTER = re.compile(r"[^a-z0-9]+")
_WITH_UNIT = re.compile(
    r"(?:gmt|utc)?(\w+?)(?:utc|gmt|ms|us|ns|s|sec|millis|milliseconds|seconds)?"
)
_NAMES = {*COLUMNS, *OPEN_TIMES, *TIMES, *CLOSE_TIMES}


def simple(name: str) -> str:
    """``Open time``, ``open_time`` and ``<OPENTIME>`` as ``opentime``."""
    return _NO_LETTER.sub("", name.lower())


def without_unit(word: str) -> str:
    """``opentimems`` as ``opentime``, ``gmttime`` as ``time``: what is left names the column."""
    match = _WITH_UNIT.fullmatch(word)
    return match[1] if match else word


def is_name(value: object) -> bool:
    """Whether a value is the name of a column: a header line among the rows."""
    return isinstance(value, str) and simple(value) in _NAMES
