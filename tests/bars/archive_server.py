"""The archive and the API beside it, on this machine, with everything that goes wrong there."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from local_http import serving_http, url_of

from percoin.bars.schema import Bars

HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
_FILE = re.compile(
    r"/data/(?P<market>spot|futures/um)/(?P<folder>monthly|daily)/klines/"
    r"(?P<symbol>\w+)/(?P<tf>\w+)/(?P=symbol)-(?P=tf)-(?P<label>[\d-]+)\.zip(?P<sum>\.CHECKSUM)?"
)
_US_FROM_MS = 1_735_689_600_000  # 2025-01-01: spot files count microseconds from then on


def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have requests reach a server of this machine wherever the environment sends them."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@dataclass
class Answer:
    """What the server says to one request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes, after which the connection is closed
    delay_secs: float = 0.0


Fault = Callable[[Answer], Answer]


@dataclass
class _Planned:
    pattern: str
    fault: Fault
    times: float


class ArchiveServer:
    """Serves bars as Binance does.

    Attributes:
        now_ms: What the exchange's clock says.
        requests: The path of every request, in order of arrival.
        ended: Symbols that the exchange lists as no longer traded.
        can_resume: Whether a file can be asked for from its middle on.
        has_header: Whether the files of the archive begin with a header line.
        rewrite: Changes the lines of every archive file before they are zipped.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.bars: dict[tuple[str, str], Bars] = {}
        self.now_ms = 0
        self.requests: list[str] = []
        self.ended: set[str] = set()
        self.can_resume = True
        self.has_header = False
        self.rewrite: Callable[[list[str]], list[str]] = lambda lines: lines
        self._planned: list[_Planned] = []
        self._lock = threading.Lock()

    def add(self, bars: Bars, now: pd.Timestamp, market: str = "spot") -> None:
        """Offer the bars of a market; those that open after ``now`` wait for the clock."""
        self.bars[market, bars.symbol] = bars
        self.now_ms = ms(now)

    def plan(self, pattern: str, fault: Fault, times: float = 1) -> None:
        """Let a fault befall the next requests whose path holds ``pattern``."""
        self._planned.append(_Planned(pattern, fault, times))

    def downloads(self) -> list[str]:
        """The zips that were asked for, by name."""
        return [path.rsplit("/", 1)[1] for path in self.requests if path.endswith(".zip")]

    def calls(self, part: str) -> list[str]:
        """The requests whose path holds ``part``."""
        return [path for path in self.requests if part in path]

    def answer(self, path: str) -> Answer:
        """The answer to one request, faults included."""
        with self._lock:
            self.requests.append(path)
            usual = self._usual(path)
            for planned in self._planned:
                if planned.pattern in path and planned.times > 0:
                    planned.times -= 1
                    return planned.fault(usual)
            return usual

    def _usual(self, path: str) -> Answer:
        parts = urlsplit(path)
        file = _FILE.fullmatch(parts.path)
        if file:
            return self._file(file)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        market = "perp" if parts.path.startswith("/fapi/v1/") else "spot"
        answers = {"time": self._time, "exchangeInfo": self._info, "klines": self._klines}
        name = parts.path.rsplit("/", 1)[-1]
        return answers[name](market, query) if name in answers else Answer(b"", 404)

    def _file(self, file: re.Match[str]) -> Answer:
        market = "spot" if file["market"] == "spot" else "perp"
        bars = self.bars.get((market, file["symbol"]))
        start = pd.Timestamp(file["label"], tz="UTC")
        monthly = file["folder"] == "monthly"
        end = start + (pd.offsets.MonthBegin(1) if monthly else pd.Timedelta(days=1))
        if bars is None or bars.timeframe.value != file["tf"] or ms(end) > self.now_ms:
            return Answer(b"", 404)
        lines = kline_lines(bars, ms(start), ms(end), market)
        if not lines:
            return Answer(b"", 404)
        name = f"{file['symbol']}-{file['tf']}-{file['label']}"
        body = zipped(name, (HEADER if self.has_header else "") + "".join(self.rewrite(lines)))
        return Answer(checksum(body, f"{name}.zip") if file["sum"] else body)

    def _time(self, market: str, query: dict[str, str]) -> Answer:
        return as_json({"serverTime": self.now_ms})

    def _info(self, market: str, query: dict[str, str]) -> Answer:
        names = [symbol for kind, symbol in self.bars if kind == market]
        if "symbol" in query and query["symbol"] not in names:
            return as_json({"code": -1121, "msg": "Invalid symbol."}, 400)
        listed = [listing(name, market) for name in names]
        for entry in listed:
            entry["status"] = "BREAK" if entry["symbol"] in self.ended else "TRADING"
        return as_json({"symbols": listed})

    def _klines(self, market: str, query: dict[str, str]) -> Answer:
        bars = self.bars.get((market, query["symbol"]))
        if bars is None:
            return as_json({"code": -1121, "msg": "Invalid symbol."}, 400)
        lines = kline_lines(bars, int(query.get("startTime", 0)), self.now_ms + 1, "perp")
        limit = int(query["limit"])
        lines = lines[:limit] if "startTime" in query else lines[-limit:]
        rows = [line.strip().split(",") for line in lines]
        return as_json([[int(row[0]), *row[1:6], int(row[6]), *row[7:]] for row in rows])


@contextmanager
def serving() -> Iterator[ArchiveServer]:
    """A server on a port of its own, for as long as the block lasts."""
    with serving_http(_Handler) as http:
        server = ArchiveServer(url_of(http))
        http.archive = server  # type: ignore[attr-defined]
        yield server


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        archive: ArchiveServer = self.server.archive  # type: ignore[attr-defined]
        answer = archive.answer(self.path)
        body, status = answer.body, answer.status
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and status == 200 and archive.can_resume:
            start, size = int(wanted[1]), len(body)
            status = 206 if start < size else 416
            part = f"{start}-{size - 1}" if start < size else "*"
            answer.headers["Content-Range"] = f"bytes {part}/{size}"
            body = body[start:]
        time.sleep(answer.delay_secs)
        try:
            self.send_response(status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: answer.cut_after])
        except OSError:
            self.close_connection = True  # the client has given up by now

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def ms(moment: pd.Timestamp) -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return round(moment.timestamp() * 1000)


def kline_lines(bars: Bars, start: int, end: int, market: str) -> list[str]:
    """The twelve columns of the bars that open within a stretch of time."""
    open_time = bars.open_time
    first, stop = open_time.searchsorted([start, end])
    rows = []
    for opened, values in zip(
        open_time[first:stop].tolist(), bars.frame.iloc[first:stop].to_numpy().tolist(), strict=True
    ):
        closed = opened + bars.timeframe.milliseconds - 1
        if market == "spot" and opened >= _US_FROM_MS:
            opened, closed = opened * 1000, closed * 1000 + 999
        rows.append(f"{opened},{','.join(map(repr, values))},{closed},1.0,7,0.5,0.5,0\n")
    return rows


def zipped(name: str, text: str) -> bytes:
    """A zip as the archive has them, the same bytes every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(f"{name}.csv", (2025, 1, 1, 0, 0, 0))
        archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def checksum(body: bytes, name: str) -> bytes:
    """The text beside a file."""
    return f"{hashlib.sha256(body).hexdigest()}  {name}\n".encode()


def as_json(content: object, status: int = 200) -> Answer:
    """An answer of the API."""
    return Answer(json.dumps(content).encode(), status, {"Content-Type": "application/json"})


def refusing(status: int, **headers: str) -> Fault:
    """Answers with a status and nothing else."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda usual: Answer(b"", status, named)


def listing(symbol: str, market: str) -> dict[str, object]:
    """One market of exchangeInfo, as far as ccxt needs it."""
    base = symbol.removesuffix("USDT")
    entry: dict[str, object] = {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": "USDT",
        "baseAssetPrecision": 8,
        "quoteAssetPrecision": 8,
        "quotePrecision": 8,
        "filters": [],
        "permissions": ["SPOT"],
        "isSpotTradingAllowed": True,
    }
    if market == "perp":
        entry |= {"contractType": "PERPETUAL", "marginAsset": "USDT", "pair": symbol}
        entry |= {"deliveryDate": 4133404800000, "pricePrecision": 2, "quantityPrecision": 3}
    return entry
