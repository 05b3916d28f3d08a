"""Markets that the exchange has renamed: a table from today's name to the old one."""

from __future__ import annotations

import logging

from percoin.errors import ConfigError
from percoin.types import check_symbol

logger = logging.getLogger(__name__)

RENAMES = {
    "POLUSDT": "MATICUSDT",
    "SUSDT": "FTMUSDT",
}


def current_symbol(symbol: str) -> str:
    """Return ``symbol`` if it is the name that a market has today.

    An old name is refused, not translated: bars, models and predictions of one
    market lie under one name. Today's name also finds the bars that were stored
    under the old one.

    Raises:
        ConfigError: Not spelt like a market, or renamed since; names today's name.
    """
    check_symbol(symbol)
    for today, before in RENAMES.items():
        if symbol == before:
            raise ConfigError(
                f"symbol={symbol} is called {today} today; "
                f"use symbol={today}, it also finds bars stored as {symbol}"
            )
    return symbol


def stored_names(symbol: str) -> tuple[str, ...]:
    """The names to look for on disk, in that order: today's, then the old one.

    Raises:
        ConfigError: As ``current_symbol``.
    """
    current_symbol(symbol)
    return (symbol, RENAMES[symbol]) if symbol in RENAMES else (symbol,)


def old_name_note(symbol: str, found_as: str) -> str:
    """What ``origin`` says of bars found under ``found_as``; logs it as well.

    Returns:
        Nothing for today's name, else `` under their old name MATICUSDT``.
    """
    if found_as == symbol:
        return ""
    logger.info("%s: bars found under their old name %s", symbol, found_as)
    return f" under their old name {found_as}"
