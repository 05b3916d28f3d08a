"""Words in the language of other programs, put into percoin's where they mean the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from functools import cache

from percoin.config import TrainConfig
from percoin.config.elsewhere import DONE_ANYWAY, NOT_WITH_VALUE, RENAMED
from percoin.config.structure import leaves_of
from percoin.errors import ConfigError
from percoin.types import market_spelling

# Freqtrade's.
_TIMERANGE = re.compile(r"(\d{8})?-(\d{8})?")


def translated(words: Sequence[str], schema: type) -> list[str]:
    """The words in percoin's language; those that it does not know stay as they are.

    Args:
        words: ``KEY=VALUE`` each.
        schema: The dataclass of the whole config.

    Raises:
        ConfigError: A value that says what percoin never does.
    """
    known = _keys(schema)
    return [said for word in words for said in _translated(word, known, schema)]


def _translated(word: str, known: frozenset[str], schema: type) -> list[str]:
    key, equals, value = word.partition("=")
    plus = "+" * (len(key) - len(key.lstrip("+")))
    name = key[len(plus) :]
    if schema is TrainConfig and f"{name}={value.lower()}" in NOT_WITH_VALUE:
        raise ConfigError(f"{word}: {NOT_WITH_VALUE[f'{name}={value.lower()}']}")
    if schema is TrainConfig and f"{name}={value.lower()}" in DONE_ANYWAY:
        return []
    if name in RENAMED and RENAMED[name] in known:
        return [f"{plus and '++'}{RENAMED[name]}={value}"]
    if name == "timerange" and "start" in known and (ends := _TIMERANGE.fullmatch(value)):
        pairs = zip(("start", "end"), ends.groups(), strict=True)
        return [f"{end}={day[:4]}-{day[4:6]}-{day[6:]}" for end, day in pairs if day]
    if name == "symbol" and equals:
        return [f"{key}={','.join(map(market_spelling, value.split(',')))}"]
    return [word]


@cache
def _keys(schema: type) -> frozenset[str]:
    top = {entry.name for entry in fields(schema)}
    return frozenset(top | {leaf.name for leaf in leaves_of(schema)})
