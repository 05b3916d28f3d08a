"""Servers small enough for tests: in this process with a clock of their own, and real ones."""

import asyncio
import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import httpx
from exported_models import bars_to_learn_from
from warm_processes import Process

from percoin.bars.schema import Bars
from percoin.errors import FetchError
from percoin.inference import Predictor
from percoin.serving.offer import Offer
from percoin.serving.server import PredictionServer, Setup
from percoin.signals.model import ModelSource
from percoin.types import Source, Timeframe

M15 = Timeframe.M15
FROM_EXCHANGE = "binance spot: BTCUSDT"
ORIGINAL_VARIABLES = (
    "ML_DEFAULT_TF",
    "ML_DEVICE",
    "USE_ML_PER_COIN",
    "MIN_CONFIDENCE",
    "USE_PRO_ANALYZER",
    "PERCOIN_API_KEY",
)


class Market:
    """All bars of a market, of which those are handed out that have closed by the clock."""

    def __init__(self, bars: Bars, n_closed: int) -> None:
        self.bars = bars
        self.now = self.close(n_closed) + timedelta(seconds=10)
        self.failure: Exception | None = None
        self.held_back = 0
        self.n_questions = 0

    def close(self, n_closed: int) -> datetime:
        """When so many of the bars have closed."""
        return self.bars.close_time(n_closed - 1).to_pydatetime()

    def clock(self) -> datetime:
        return self.now

    def pass_time(self, **span: float) -> None:
        self.now += timedelta(**span)

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        self.n_questions += 1
        if self.failure is not None:
            raise self.failure
        if timeframe is not self.bars.timeframe:
            raise FetchError(symbol, timeframe, "only one timeframe here", "ask for it")
        last_opened = self.now - timeframe.timedelta
        closed = self.bars.open_time.searchsorted(last_opened.timestamp() * 1000, side="right")
        bars = self.bars.slice(0, int(closed) - self.held_back)
        return replace(bars, symbol=symbol)


def exchange_bars(n_bars: int = 1300, **kwargs) -> Bars:
    return replace(bars_to_learn_from(n_bars, **kwargs), origin=FROM_EXCHANGE)


def make_server(
    models_dir: Path, market: Market, symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT"), **setup
) -> PredictionServer:
    """A server without a thread; ``bring_up_to_date`` makes its answers."""
    tf = market.bars.timeframe
    values = {
        "offer": Offer(symbols, (tf,), tf),
        "make_source": lambda n_bars: market,
        "models_dir": models_dir,
        "model": ModelSource(Predictor(models_dir, workers=1)),
        "sources": [Source.MODEL, Source.HOLD],
        "clock": market.clock,
    }
    return PredictionServer(Setup(**values | setup))


def bring_up_to_date(server: PredictionServer) -> int:
    """What the threads of a server do; returns how many answers were made."""
    for symbol in server.keeper.symbols:
        server.keeper.refresh(symbol)
    return server.board.update()


def ask(
    server: PredictionServer,
    path: str,
    headers: dict[str, str] | None = None,
    method: str = "GET",
    client: str = "127.0.0.1",
) -> httpx.Response:
    """One request to a server of this process, past no socket."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(server.app, client=(client, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as sender:
            return await sender.request(method, path, headers=headers)

    return asyncio.run(send())


@dataclass
class Response:
    status: int
    body: bytes
    headers: dict[str, str]

    def json(self):
        return json.loads(self.body)


class RunningServer:
    """``python -m percoin.serve`` on a free port; killed at the end of the ``with``."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        inherited = {k: v for k, v in os.environ.items() if k not in ORIGINAL_VARIABLES}
        self.folder = folder
        self._errors = (folder / "stderr.txt").open("w")
        self.process = Process(
            ["-m", "percoin.serve", "port=0", *arguments],
            folder,
            inherited | {"OMP_NUM_THREADS": "1"} | environment,
            stderr=self._errors.fileno(),
        )
        line = self.process.stdout.readline()
        found = re.search(r"at (http://\S+):(\d+)$", line)
        assert found, (line, self.log())
        self.url, self.port = found[0].removeprefix("at "), int(found[2])

    def log(self) -> str:
        return (self.folder / "stderr.txt").read_text()

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET"):
        request = urllib.request.Request(self.url + path, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Response(answer.status, answer.read(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, error.read(), dict(error.headers))

    def wait_for(self, is_there, secs: float = 60.0):
        """The first true value of a function that is asked again and again."""
        until = time.monotonic() + secs
        while time.monotonic() < until:
            if value := is_there():
                return value
            assert self.process.poll() is None, self.log()
            time.sleep(0.05)
        raise AssertionError(f"it did not come within {secs} s: {self.log()[-3000:]}")

    def wait_until_started(self) -> None:
        self.wait_for(lambda: self.get("/health").json()["status"] != "starting")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_exception) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.process.stdout.close()
        self._errors.close()
