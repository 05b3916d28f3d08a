"""Reads the parameters of a request and refuses invalid ones with a clear message."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence

from percoin.serving.offer import Offer
from percoin.types import Timeframe

_SHOWN_CHARACTERS = 40


class RefusedError(Exception):
    """A refused request; the response says what is wrong with it.

    Args:
        status: HTTP status of the response.
        code: One word for programs.
        message: One line for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message


def check_parameters(pairs: Sequence[tuple[str, str]], known: Collection[str]) -> dict[str, str]:
    """Check that each parameter is known and given at most once; return them by name.

    Raises:
        RefusedError: A parameter is unknown or given twice.
    """
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {nearest[0]}?" if nearest else _list("known are", sorted(known))
            message = f"{shown(name)} is not a parameter of this address; {hint}"
            raise RefusedError(400, "unknown_parameter", message)
        if name in found:
            raise RefusedError(400, "repeated_parameter", f"{name} is given twice; give it once")
        found[name] = value
    return found


def read_timeframe(parameters: Mapping[str, str], offer: Offer) -> Timeframe:
    """Read the parameter ``tf``; without it, return the default timeframe.

    Raises:
        RefusedError: The timeframe is not served.
    """
    text = parameters.get("tf", offer.default_timeframe.value)
    if text not in {timeframe.value for timeframe in offer.timeframes}:
        known = _list("served are", [timeframe.value for timeframe in offer.timeframes])
        raise RefusedError(400, "unknown_tf", f"tf={shown(text)} is not served; {known}")
    return Timeframe(text)


def read_limit(parameters: Mapping[str, str], default: int, most: int) -> int:
    """Read the parameter ``limit``; without it, return ``default``.

    Raises:
        RefusedError: The limit is no integer from 1 to ``most``.
    """
    text = parameters.get("limit")
    if text is None:
        return default
    # The number of digits is limited, because reading thousands of digits takes time.
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not is_number or not 1 <= int(text) <= most:
        message = f"limit={shown(text)} is no number from 1 to {most}"
        raise RefusedError(400, "invalid_limit", message)
    return int(text)


def read_symbols(parameters: Mapping[str, str], offer: Offer, max_symbols: int) -> list[str]:
    """Read the parameter ``symbols``, each symbol once; without it, return all symbols.

    Raises:
        RefusedError: A symbol is not served, or there are too many.
    """
    if "symbols" not in parameters:
        return list(offer.symbols)
    symbols = parameters["symbols"].split(",")
    if len(symbols) > max_symbols:
        message = f"{len(symbols)} symbols are too many; ask about at most {max_symbols} at once"
        raise RefusedError(400, "too_many_symbols", message)
    for symbol in symbols:
        check_served(symbol, offer, status=400)
    return list(dict.fromkeys(symbols))


def check_served(symbol: str, offer: Offer, status: int = 404) -> None:
    """Check that a symbol is served.

    Raises:
        RefusedError: The symbol is not served.
    """
    if symbol in offer.symbols:
        return
    if not symbol:
        message = "a symbol is empty; write them as symbols=BTCUSDT,ETHUSDT"
        raise RefusedError(status, "unknown_symbol", message)
    upper = symbol.strip().upper()
    close = difflib.get_close_matches(upper[:_SHOWN_CHARACTERS], offer.symbols, 1, 0.7)
    nearest = [upper] if upper in offer.symbols else close
    hint = f"did you mean {nearest[0]}?" if nearest else _list("served are", offer.symbols)
    raise RefusedError(status, "unknown_symbol", f"symbol {shown(symbol)} is not served; {hint}")


def shown(text: str) -> str:
    """Make a client's text short and printable for a message."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return ascii(cut)


def _list(what: str, words: Sequence[str]) -> str:
    return f"{what} {', '.join(words)}" if words else "it takes none"
