"""The exchange itself, through ccxt: its clock and its newest bars."""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from percoin.bars.schema import COLUMNS
from percoin.bars.sources.binance.klines import KlineReader
from percoin.bars.sources.binance.transfer import (
    PASSING_STATUSES,
    PassingError,
    Persistence,
)
from percoin.errors import BarsNotFoundError, ConfigError, FetchError
from percoin.printable import printable
from percoin.types import Timeframe

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

BINANCE = "binance"
PAGE_BARS = 1000

Result = TypeVar("Result")

# Part of the API's address in ccxt, and the path that follows the host.
_APIS = {"spot": ("public", "/api/v3"), "perp": ("fapiPublic", "/fapi/v1")}
_OTHER_HOST = "ask another host: source.api_url=https://data-api.binance.vision"
_OK = 200
# 2001-09-09; a smaller or much larger number is not a time in milliseconds.
_EARLIEST_CLOCK_MS = 10**12
# How far a clock may lag behind that of the exchange's bars.
_CLOCK_TOLERANCE_MS = 3_600_000
# How far the local clock may be ahead where nothing else tells the time.
_AHEAD_AT_MOST_MS = 60_000
# How many holes of a page are asked for again; one is enough to catch a server that skips rows.
_HOLES_VERIFIED = 3
_BARS_BEFORE = 7
# Requests for the bars of one page, however few at a time they come.
_MOST_PIECES = 50
# Exchanges that answer by windows of time are believed to have no older bars after so many.
_EMPTY_WINDOWS = 2
# The least that any exchange gives in one answer.
_FEW_BARS = 100
_MOST_CHARS = 200
_ADVICE = "run the same command again later, or use other bars: source=files source.path=FOLDER"

_Row = list[float]


@dataclass(frozen=True)
class Answered:
    """What an exchange says of a stretch of time.

    Attributes:
        frame: Its bars, checked, as in ``Bars.frame``.
        start: From where on it has answered, milliseconds since 1970-01-01 UTC.
        end: Until where. Bars between the two that are not in ``frame`` do not exist.
        has_ended: Whether it has no newer bars because the market is no longer traded.
    """

    frame: pd.DataFrame
    start: int
    end: int
    has_ended: bool


class Exchange:
    """One market of an exchange.

    Args:
        exchange_id: As ccxt calls it.
        market: ``spot`` or ``perp``.
        symbol: Market under today's name.
        timeframe: Length of each bar.
        api_url: Of another host with Binance's API; None is the exchange's own.
        persistence: How long and how often to try.
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
        self._reader = KlineReader(symbol, timeframe, _ADVICE)
        self._step = timeframe.milliseconds
        self._client = self._connect()
        self._window = self._bars_per_answer()
        self._status: int | None = None
        self._retry_after: str | None = None
        self._answered_ms: int | None = None
        self._client.session.hooks["response"].append(self._note_answer)

    def now_ms(self) -> int:
        """The exchange's clock, milliseconds since 1970-01-01 UTC.

        If ccxt cannot ask for it, the time that the exchange's web server puts on its answers;
        without one the local clock, less a margin for how far it may be ahead.

        Raises:
            FetchError: It cannot be reached or refuses.
        """
        if self._client.has["fetchTime"]:
            return self._ask(self._read_clock)
        self._load_markets()
        if self._answered_ms is None:
            return int(time.time() * 1000) - _AHEAD_AT_MOST_MS
        return self._answered_ms

    def bars(self, start: int, end: int, now_ms: int, has_before: bool = False) -> Answered:
        """The bars of a stretch, page by page.

        A page with holes is checked: what follows some of them is asked for again, and
        has to be the same. A page without bars counts only if the
        exchange's newest bar is older than what was asked for, and Binance has to give
        the bar before each page too, where there is one.

        Args:
            start: Open time of the first, milliseconds since 1970-01-01 UTC.
            end: Milliseconds, not included; no later than the close of the newest
                closed bar, or an open one would be among them.
            now_ms: By the exchange's clock.
            has_before: Whether the exchange has the bar before the first.

        Raises:
            FetchError: It cannot be reached or refuses, or contradicts itself.
            BarsNotFoundError: It has no such market.
            InvalidBarsError: What it gives breaks the schema.
        """
        name, is_traded = self._find_market()
        if self._id == BINANCE:
            rows, reached = self._forwards(name, start, end, now_ms, has_before)
            first = start
        else:
            rows, first, reached = self._backwards(name, start, end, now_ms)
        rows = self._with_values(rows)
        columns = list(zip(*rows, strict=True)) or [()] * (1 + len(COLUMNS))
        table = pd.DataFrame(dict(zip(("open_time", *COLUMNS), columns, strict=True)))
        answer = f"the answer of {self._id}"
        frame = self._reader.check(self._reader.to_frame(table, start, end, answer), answer)
        has_ended = reached < end and is_traded is False
        return Answered(frame, first, end if has_ended else min(reached, end), has_ended)

    def _with_values(self, rows: list[_Row]) -> list[_Row]:
        """The rows less those that have a time alone, as some exchanges say "no trade"."""
        kept = [row for row in rows if any(value is not None for value in row[1:])]
        if len(kept) < len(rows):
            logger.warning(
                "%s %s: %s gives %d bars without any value; they are left out",
                self.symbol,
                self.timeframe,
                self._id,
                len(rows) - len(kept),
            )
        return kept

    def _forwards(
        self, name: str, start: int, end: int, now_ms: int, has_before: bool
    ) -> tuple[list[_Row], int]:
        """The rows of Binance, which gives those after a moment, however much later they are.

        Returns:
            Rows in order, and until where they are all there are.
        """
        rows: list[_Row] = []
        since = start
        for _ in range((end - start) // self._step // (PAGE_BARS - 1) + _MOST_PIECES):
            page = self._page(name, since, now_ms, has_before)
            rows += [row for row in page if row[0] < end]
            if not page:
                return rows, since
            since, has_before = int(page[-1][0]) + self._step, True
            if since >= end:
                return rows, end
        raise self._too_few_at_a_time()

    def _backwards(
        self, name: str, start: int, end: int, now_ms: int
    ) -> tuple[list[_Row], int, int]:
        """The rows of another exchange, from the newest window of time to the oldest.

        Many give the bars of a window only, and some the newest few hundred whatever is
        asked for: what is older than the first bar that came is not answered.

        Returns:
            Rows in order; from where, and until where they are all there are.
        """
        step = self._step
        rows: list[_Row] = []
        cursor, n_empty = end, 0
        while cursor > start and n_empty < _EMPTY_WINDOWS:
            since = max(start, cursor - self._window * step)
            window, has_later = self._window_rows(name, since, cursor, now_ms)
            n_empty = 0 if window else n_empty + 1
            rows = window + rows
            cursor = since
            if has_later and not window:
                break
        if not rows:
            return [], end, end
        first, newest = int(rows[0][0]), int(rows[-1][0])
        return rows, start if first < start + step else first, newest + step

    def _window_rows(self, name: str, since: int, end: int, now_ms: int) -> tuple[list[_Row], bool]:
        """The rows of one window, and whether the exchange went on to later ones."""
        rows: list[_Row] = []
        for _ in range(_MOST_PIECES):
            page = self._page(name, since, now_ms)
            inside = [row for row in page if row[0] < end]
            rows += inside
            if len(inside) < len(page):
                return rows, True
            # An answer may reach less far than ccxt says.
            since = int(inside[-1][0]) + self._step if inside else since + _FEW_BARS * self._step
            if since >= end:
                return rows, False
        raise self._too_few_at_a_time()

    def _page(self, name: str, since: int, now_ms: int, has_before: bool = False) -> list[_Row]:
        """The rows from a moment on that one request gives, in order."""
        return self._ask(lambda: self._verified_page(name, since, now_ms, has_before))

    def _verified_page(self, name: str, since: int, now_ms: int, has_before: bool) -> list[_Row]:
        page = self._rows(name, since - self._step if has_before else since, now_ms)
        asked_for = [row for row in page if row[0] >= since]
        if page:
            self._verify_holes(name, since, page, now_ms)
        if has_before and len(asked_for) == len(page):
            raise PassingError("leaves out bars that it had before")
        if self._id == BINANCE and not asked_for:
            newest = self._rows(name, None, now_ms)
            if not newest:
                raise PassingError("answers without any bars")
            if newest[-1][0] >= since:
                raise PassingError("has newer bars, and gives none when asked for them")
        return asked_for

    def _verify_holes(self, name: str, since: int, page: Sequence[_Row], now_ms: int) -> None:
        """Ask for what follows the longest holes of a page once more; it must be the same."""
        times = [int(row[0]) for row in page]
        if self._id == BINANCE:
            # Other exchanges leave out what is older than they keep.
            times.insert(0, min(since, times[0]) - self._step)
        holes = [
            (before + self._step, after)
            for before, after in itertools.pairwise(times)
            if after - before > self._step
        ]
        for start, after in sorted(holes, key=lambda hole: hole[0] - hole[1])[:_HOLES_VERIFIED]:
            # A server that leaves out the first row would answer the same question the same way.
            asked = start - _BARS_BEFORE * self._step if start == since else start
            again = [row for row in self._rows(name, asked, now_ms) if row[0] >= start]
            found = int(again[0][0]) if again else None
            # Those that answer by windows have nothing in the window.
            if found != after and (found is not None or self._id == BINANCE):
                raise PassingError("leaves out bars that it has when asked again")

    def _rows(self, name: str, since: int | None, now_ms: int) -> list[_Row]:
        """What one request gives, in order, as far as it is of the time asked for."""
        timeframe = self.timeframe.value
        page = self._client.fetch_ohlcv(name, timeframe, since, PAGE_BARS)
        if not all(isinstance(row, list) and len(row) > len(COLUMNS) for row in page):
            raise self._reader.error(f"{self._id} answers with something other than bars")
        rows = [row[: 1 + len(COLUMNS)] for row in page]
        for row in rows:
            if not _EARLIEST_CLOCK_MS <= row[0] < 10 * _EARLIEST_CLOCK_MS:
                raise self._reader.error(
                    f"{self._id} answers with open time {row[0]}, not in milliseconds"
                )
        if rows and max(row[0] for row in rows) > now_ms + _CLOCK_TOLERANCE_MS + self._step:
            raise PassingError("answers with bars of the future")
        return sorted(row for row in rows if since is None or row[0] >= since)

    def _read_clock(self) -> int:
        now_ms = int(self._client.fetch_time())
        if not _EARLIEST_CLOCK_MS <= now_ms < 10 * _EARLIEST_CLOCK_MS:
            raise ValueError(f"a clock at {now_ms} ms")
        return now_ms

    def _find_market(self) -> tuple[str, bool | None]:
        """What ccxt calls the market, and whether it is traded, where that is known."""
        markets = self._load_markets()
        for name, market in markets.items():
            is_kind = market["spot"] if self._market == "spot" else market["linear"]
            is_dated = market.get("expiry") is not None
            if is_kind and not is_dated and market["base"] + market["quote"] == self.symbol:
                return str(name), market.get("active")
        names = [str(market["base"]) + str(market["quote"]) for market in markets.values()]
        raise self._no_such_market([name for name in names if self._is_multiple(name)])

    def _load_markets(self) -> dict[str, Any]:
        """The markets by ccxt's names; a second call asks for nothing."""
        # Binance lists one spot market when asked for one; all of them are many megabytes.
        one = self._id == BINANCE and self._market == "spot"
        params = {"symbol": self.symbol} if one else {}
        markets: dict[str, Any] = self._ask(lambda: self._client.load_markets(params=params))
        return markets

    def _is_multiple(self, name: str) -> bool:
        """Whether that is the market in thousands or millions, as futures of cheap coins are."""
        return re.fullmatch(rf"(1000|10000|1000000|1M){self.symbol}", name) is not None

    def _too_few_at_a_time(self) -> FetchError:
        found = f"{self._id} gives only a few bars at a time"
        return self._persistence.error(found, "ask another host: source.api_url, or wait")

    def _no_such_market(self, near: Sequence[str] = ()) -> BarsNotFoundError:
        found = f"{self._id} has no {self._market} market of that name"
        other = "perp" if self._market == "spot" else "spot"
        action = f"check symbol, or try source.market={other}"
        if near:
            action = f"did you mean symbol={near[0]}? Or try source.market={other}"
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
                raise self._persistence.meaning_of(self._id, cause) from error
            if self._status in PASSING_STATUSES:
                raise PassingError(f"status {self._status}", self._retry_after) from error
            raise self._refusal(error) from error
        except OSError as error:
            raise self._persistence.meaning_of(self._id, error) from error
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            # ccxt takes half a document for a text, and trips over it further on.
            raise PassingError("the answer is incomplete or not the exchange's") from error

    def _refusal(self, error: Exception) -> FetchError:
        """The error for what asking again does not change."""
        if self._status is None or self._status == _OK:
            found = f"{self._id} answers {printable(str(error), _MOST_CHARS)}"
            return self._persistence.error(found, "check symbol, tf and source.api_url")
        refusal = self._persistence.refusal(self._id, self._status)
        if self._id != BINANCE or self._market != "spot" or self._api_url is not None:
            return refusal
        return self._persistence.error(refusal.found, f"{_OTHER_HOST}, or {refusal.action}")

    def _note_answer(self, response: requests.Response, **_options: object) -> None:
        # A redirect to nowhere would be left open otherwise.
        _ = response.content
        self._status = response.status_code
        self._retry_after = response.headers.get("Retry-After")
        answered_ms = _http_time_ms(response.headers.get("Date"))
        if answered_ms is not None:
            # A cache on the way may hand out an older one.
            self._answered_ms = max(answered_ms, self._answered_ms or 0)

    def _bars_per_answer(self) -> int:
        """How many bars the exchange gives at most, as far as ccxt knows."""
        known = self._client.features or {}
        for part in (*(("spot",) if self._market == "spot" else ("swap", "linear")), "fetchOHLCV"):
            known = known.get(part) or {}
        limit = known.get("limit")
        return min(limit or _FEW_BARS, PAGE_BARS)

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


def _http_time_ms(text: str | None) -> int | None:
    """What a ``Date`` header says, milliseconds since 1970-01-01 UTC; None if it says nothing."""
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    # "-0000" is UTC too.
    utc_ms = int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)
    return utc_ms if _EARLIEST_CLOCK_MS <= utc_ms < 10 * _EARLIEST_CLOCK_MS else None
