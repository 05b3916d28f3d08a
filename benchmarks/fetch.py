"""How long ``percoin.fetch`` takes for many markets from an archive, and how much memory.

    python benchmarks/fetch.py [--markets 32] [--days 365]

Makes the archive first: the zips of every month with their sha256 beside them, of simulated bars,
for 15m, 1h, 4h and 1d. A process of its own serves it on the loopback, with the exchange's clock.
Then the command itself is run, for one market and for all, each into a fresh store: it asks for
the sums, loads and verifies the files, parses and checks the bars, and stores them synced. Printed
are its seconds, megabytes loaded and stored, and its largest memory. Server and command share the
cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
from bars import zipped

from percoin.bars.sources.binance.archive import months_within
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.types import Timeframe

ROOT = Path(__file__).parents[1]
TIMEFRAMES = (Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1)
# Every market is a year of bars and those before it that warm the indicators up.
BARS_BEFORE = 1000
NOW = pd.Timestamp("2025-09-01", tz="UTC")


@dataclass(frozen=True)
class Run:
    """One run of the command."""

    secs: float
    cpu_secs: float
    memory: int
    stored: int
    n_bars: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=32)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    symbols = (ROOT / "symbols").read_text(encoding="ascii").strip().split(",")
    with tempfile.TemporaryDirectory() as name:
        sizes = write_archive(Path(name), symbols[: arguments.markets], arguments.days)
        with served(Path(name)) as url:
            for n_markets in (1, arguments.markets):
                chosen = symbols[:n_markets]
                run = fetched(chosen, arguments.days, url)
                loaded = sum(sizes[symbol] for symbol in chosen)
                print(
                    f"{n_markets} markets x {len(TIMEFRAMES)} timeframes: {run.secs:.1f} s "
                    f"({run.cpu_secs:.1f} s of processor time), {loaded / 1e6:.1f} MB loaded and "
                    f"verified, {run.n_bars:,} bars in {run.stored / 1e6:.1f} MB stored, "
                    f"largest memory {run.memory / 2**20:.0f} MiB",
                    flush=True,
                )


def write_archive(folder: Path, symbols: list[str], days: int) -> dict[str, int]:
    """Every month of every market as a zip, its sha256 beside it; bytes of the zips by market."""
    sizes = dict.fromkeys(symbols, 0)
    for timeframe in TIMEFRAMES:
        n_bars = int(days * timeframe.bars_per_day) + BARS_BEFORE
        bars = SimulatedSource(n_bars=n_bars).load("BTCUSDT", timeframe)
        end = int(bars.open_time[-1]) + timeframe.milliseconds
        for month in months_within([(int(bars.open_time[0]), end)], end):
            inside = (bars.open_time >= month.start) & (bars.open_time < month.end)
            for symbol in symbols:
                path = folder / f"data/spot/monthly/klines/{symbol}/{timeframe}"
                path.mkdir(parents=True, exist_ok=True)
                zip_file = path / f"{symbol}-{timeframe}-{month.label}.zip"
                content = zipped(zip_file.stem, bars.frame[inside])
                zip_file.write_bytes(content)
                text = f"{hashlib.sha256(content).hexdigest()}  {zip_file.name}\n"
                zip_file.with_name(f"{zip_file.name}.CHECKSUM").write_text(text)
                sizes[symbol] += len(content)
    return sizes


def fetched(symbols: list[str], days: int, url: str) -> Run:
    with tempfile.TemporaryDirectory() as data:
        command = [
            *(sys.executable, "-m", "percoin.fetch", f"symbol={','.join(symbols)}"),
            *(f"tf={','.join(TIMEFRAMES)}", f"history_days={days}", f"data_dir={data}"),
            *("source=binance", f"source.archive_url={url}", f"source.api_url={url}"),
        ]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        secs = time.perf_counter() - began
        if status:
            sys.exit(f"{out.decode()}\n{err.decode()}")
        store = BarStore(Path(data) / "bars")
        stored = [store.path(*market) for market in store.markets()]
        if len(stored) != len(symbols) * len(TIMEFRAMES):
            sys.exit(f"{len(stored)} files were stored")
        n_bars = sum(len(store.read(*market)) for market in store.markets())
        size = sum(path.stat().st_size for path in stored)
        cpu_secs = usage.ru_utime + usage.ru_stime
        return Run(secs, cpu_secs, usage.ru_maxrss * 1024, size, n_bars)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the folder, in a process of its own."""
    command = [sys.executable, __file__, "--serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def serve(folder: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


class Handler(SimpleHTTPRequestHandler):
    """The files of the archive, and what else the exchange is asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a file, the clock, or that there are no more bars."""
        if not self.path.startswith("/api/"):
            super().do_GET()
            return
        is_clock = self.path.startswith("/api/v3/time")
        content = {"serverTime": round(NOW.timestamp() * 1000)} if is_clock else []
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


if __name__ == "__main__":
    main()
