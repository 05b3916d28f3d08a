"""The exchange itself, through ccxt: its clock and its newest bars."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from percoin.bars.schema import COLUMNS
from percoin.bars.sources.binance.klines import KlineReader
from percoin.bars.sources.binance.transfer import (
    PASSING_STATUSES,
    PassingError,
    Persistence,
    passing_error,
)
from percoin.errors import BarsNotFoundError, ConfigError, FetchError
from percoin.types import Timeframe

if TYPE_CHECKING:
    import requests

BINANCE = "binance"
PAGE_BARS = 1000

Result = TypeVar("Result")

# Part of the API's address in ccxt, and the path that follows the host.
_APIS = {"spot": ("public", "/api/v3"), "perp": ("fapiPublic", "/fapi/v1")}
_OTHER_HOST = "ask another host: source.api_url=https://data-api.binance.vision"
_OK = 200
# 2001-09-09; a smaller or much larger number is not a time in milliseconds.
_EARLIEST_CLOCK_MS = 10**12


class Exchange:
    """One market of an exchange.

    Args:
        exchange_id: As ccxt calls it.
        market: ``spot`` or ``perp``.
        symbol: Market under today's name.
        timeframe: Length of each bar.
        api_url: Of another host with Binance's API; None is the exchange's own.
        persistence: How patiently to ask.
    """

    def __init__(
        self,
        exchange_id: str,
        market: str,
        symbol: str,
        timeframe: Timeframe,
        api_url: str | None,
        persistence: Persistence,
    ) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self._id = exchange_id
        self._market = market
        self._api_url = api_url
        self._persistence = persistence
        self._reader = KlineReader(symbol, timeframe)
        self._client = self._connect()
        self._status: int | None = None
        self._retry_after: str | None = None
        self._client.session.hooks["response"].append(self._note_answer)

    def now_ms(self) -> int:
        """The exchange's clock, milliseconds since 1970-01-01 UTC.

        The local clock where the exchange has none to ask.

        Raises:
            FetchError: It cannot be reached or refuses.
        """
        if not self._client.has["fetchTime"]:
            return int(time.time() * 1000)
        return self._ask(self._read_clock)

    def bars(self, start: int, end: int) -> pd.DataFrame:
        """The bars of a stretch, page by page.

        Args:
            start: Open time of the first, milliseconds since 1970-01-01 UTC.
            end: Milliseconds, not included; no later than the close of the newest
                closed bar, or an open one would be among them.

        Returns:
            Checked, as in ``Bars.frame``; empty if the exchange has none.

        Raises:
            FetchError: It cannot be reached or refuses.
            BarsNotFoundError: It has no such market.
            InvalidBarsError: What it gives breaks the schema.
        """
        name = self._name()
        rows: list[list[float]] = []
        since = start
        while since < end:
            page = self._page(name, since)
            newest = max((row[0] for row in page), default=since - 1)
            if newest < since:
                break
            rows += [row for row in page if start <= row[0] < end]
            since = int(newest) + self.timeframe.milliseconds
        columns = list(zip(*rows, strict=True)) or [()] * (1 + len(COLUMNS))
        table = pd.DataFrame(dict(zip(("open_time", *COLUMNS), columns, strict=True)))
        answer = f"the answer of {self._id}"
        return self._reader.check(self._reader.to_frame(table, start, end, answer), answer)

    def _read_clock(self) -> int:
        now_ms = int(self._client.fetch_time())
        if not _EARLIEST_CLOCK_MS <= now_ms < 10 * _EARLIEST_CLOCK_MS:
            raise ValueError(f"a clock at {now_ms} ms")
        return now_ms

    def _page(self, name: str, since: int) -> list[list[float]]:
        timeframe = self.timeframe.value
        page = self._ask(lambda: self._client.fetch_ohlcv(name, timeframe, since, PAGE_BARS))
        if all(isinstance(row, list) and len(row) > len(COLUMNS) for row in page):
            return [row[: 1 + len(COLUMNS)] for row in page]
        raise self._reader.error(f"{self._id} answers with something other than bars")

    def _name(self) -> str:
        """What ccxt calls the market."""
        # Binance lists one spot market when asked for one; all of them are many megabytes.
        one = self._id == BINANCE and self._market == "spot"
        params = {"symbol": self.symbol} if one else {}
        markets = self._ask(lambda: self._client.load_markets(params=params))
        for name, market in markets.items():
            is_kind = market["spot"] if self._market == "spot" else market["linear"]
            is_dated = market.get("expiry") is not None
            if is_kind and not is_dated and market["base"] + market["quote"] == self.symbol:
                return str(name)
        raise self._no_such_market()

    def _no_such_market(self) -> BarsNotFoundError:
        found = f"{self._id} has no {self._market} market of that name"
        action = "check symbol, or try source.market=perp or source.market=spot"
        return BarsNotFoundError(self.symbol, self.timeframe, found, action)

    def _ask(self, call: Callable[[], Result]) -> Result:
        """Call the exchange; what may pass is tried again."""
        return self._persistence.insist(self._id, lambda: self._attempt(call))

    def _attempt(self, call: Callable[[], Result]) -> Result:
        import ccxt
        import requests

        self._status = self._retry_after = None
        try:
            return call()
        except ccxt.BadSymbol as error:
            raise self._no_such_market() from error
        except ccxt.BaseError as error:
            cause = error.__cause__
            if isinstance(cause, requests.RequestException) and cause.response is None:
                raise passing_error(cause, self._persistence.patience.timeout_secs) from error
            if self._status in PASSING_STATUSES:
                raise PassingError(f"status {self._status}", self._retry_after) from error
            raise self._refusal(error) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # ccxt takes half a document for a text, and trips over it further on.
            raise PassingError("the answer is incomplete or not the exchange's") from error

    def _refusal(self, error: Exception) -> FetchError:
        """The error for what asking again does not change."""
        if self._status is None or self._status == _OK:
            found = f"{self._id} answers {str(error).splitlines()[0][:200]}"
            return self._persistence.error(found, "check symbol, tf and source.api_url")
        refusal = self._persistence.refusal(self._id, self._status)
        if self._id != BINANCE or self._market != "spot" or self._api_url is not None:
            return refusal
        return self._persistence.error(refusal.found, f"{_OTHER_HOST}, or {refusal.action}")

    def _note_answer(self, response: requests.Response, **_: object) -> None:
        self._status = response.status_code
        self._retry_after = response.headers.get("Retry-After")

    def _connect(self) -> Any:
        """The ccxt client, which keeps the exchange's rate limit by itself."""
        import ccxt

        if self._id not in ccxt.exchanges:
            raise ConfigError(f"source.exchange={self._id} is no exchange that ccxt knows")
        if self._id != BINANCE and self._api_url is not None:
            raise ConfigError("source.api_url is for source.exchange=binance only")
        options: dict[str, Any] = {"defaultType": "spot" if self._market == "spot" else "swap"}
        if self._id == BINANCE:
            options["fetchMarkets"] = {"types": ["spot" if self._market == "spot" else "linear"]}
        timeout_ms = int(self._persistence.patience.timeout_secs * 1000)
        client = getattr(ccxt, self._id)({"timeout": timeout_ms, "options": options})
        # As the archive's downloads do: a proxy named by the environment is used.
        client.session.trust_env = True
        if self._api_url is not None:
            part, path = _APIS[self._market]
            client.urls["api"][part] = self._api_url.rstrip("/") + path
        return client
