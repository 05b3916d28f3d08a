"""What a prediction server holds: steady requests while models are replaced underneath.

    python benchmarks/serve_load.py [seconds] [requests per second]

Starts ``python -m percoin.serve`` on simulated bars of 32 markets that play live, each with
a small model of random weights. Then sends requests at a steady rate, whatever the answers take (a
request that has to wait for its turn counts from the moment at which it was due), first alone
and then while another version of a model is published every half second. Prints for both the
number of requests, of responses other than 200, the percentiles of the time to the whole
response and how many predictions were written to the track record meanwhile; at the end, where
wrk is installed, how many requests a second it can have answered.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from exported_models import export, make_dataset, random_network  # noqa: E402

from percoin.bars.sources.simulated import SimulatedSource  # noqa: E402
from percoin.registry.manifest import StoredVerdict  # noqa: E402
from percoin.types import Timeframe  # noqa: E402

SYMBOLS = (ROOT / "symbols").read_text().strip().split(",")
N_CONNECTIONS = 32
# One market, many, all: what a page and a program ask for.
PATHS = (
    "/api/predictions/BTCUSDT?tf=15m",
    "/api/predictions?tf=15m&symbols=BTCUSDT,ETHUSDT",
    "/api/predictions?tf=15m",
    "/api/predictions/ETHUSDT/summary",
)


def export_models(models_dir: Path, symbols: list[str], seed: int) -> None:
    source = SimulatedSource(n_bars=1500)
    for symbol in symbols:
        dataset = make_dataset(source.load(symbol, Timeframe.M15))
        export(models_dir, random_network(seed=seed), dataset, StoredVerdict.ACCEPTED)


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    with (folder / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "percoin.serve", "port=0", "source=simulated"),
                *("tf=15m,1h", "limits.requests_per_sec=100000", "source.n_bars=5000"),
            ],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+$", line)
    assert found, line
    while httpx.get(f"{found[0]}/health").json()["status"] == "starting":
        time.sleep(0.5)
    return process, found[0]


async def load(url: str, seconds: float, rate: float) -> tuple[list[float], list[str]]:
    """Time to each whole response from the moment it was due, in seconds, and what went wrong."""
    times: list[float] = []
    problems: list[str] = []
    due: asyncio.Queue[float | None] = asyncio.Queue()

    address = httpx.URL(url)
    heads = [f"GET {path} HTTP/1.1\r\nHost: {address.host}\r\n\r\n".encode() for path in PATHS]

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        while (moment := await due.get()) is not None:
            # By hand: a comfortable client takes longer than the server.
            writer.write(heads[(number + len(times)) % len(heads)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            if not head.startswith(b"HTTP/1.1 200 ") or not body.endswith(b"}"):
                problems.append(repr(head[:100]))
            times.append(time.perf_counter() - moment)
        writer.close()

    clients = [asyncio.create_task(ask(number)) for number in range(N_CONNECTIONS)]
    began = time.perf_counter()
    for number in range(int(seconds * rate)):
        moment = began + number / rate
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        due.put_nowait(moment)
    for _ in clients:
        due.put_nowait(None)
    ended = await asyncio.gather(*clients, return_exceptions=True)
    problems += [repr(error) for error in ended if error is not None]
    return times, problems


class Replacing:
    """Publishes another version of a model every half second, in a process of its own."""

    def __init__(self, models_dir: Path) -> None:
        self._command = [sys.executable, __file__, "--replace", str(models_dir)]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        # Once its libraries are loaded and a first version is there.
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def __exit__(self, *_exception: object) -> None:
        self._process.terminate()
        self._process.wait()


def replace_models(models_dir: Path) -> None:
    source = SimulatedSource(n_bars=1500)
    datasets = [make_dataset(source.load(symbol, Timeframe.M15)) for symbol in SYMBOLS[:8]]
    networks = [random_network(seed=seed) for seed in range(3)]
    for number in range(1_000_000):
        export(models_dir, networks[number % 3], datasets[number % 8])
        if number == 0:
            print("begun", flush=True)
        time.sleep(0.5)


def n_written(url: str) -> int:
    """Predictions that the server has written to its track record so far."""
    found = re.search(
        r'^percoin_record_total{event="written"} (\S+)$', httpx.get(f"{url}/metrics").text, re.M
    )
    return int(float(found[1])) if found else 0


def report(
    name: str, times: list[float], problems: list[str], seconds: float, n_recorded: int
) -> None:
    p50, p90, p99, most = 1000 * np.percentile(times, [50, 90, 99, 100])
    print(
        f"{name}: {len(times)} requests in {seconds:.0f} s, {len(problems)} failed; "
        f"ms p50 {p50:.1f}, p90 {p90:.1f}, p99 {p99:.1f}, max {most:.1f}; "
        f"{n_recorded} predictions recorded"
    )
    for problem in problems[:3]:
        print("  ", problem)


def main(seconds: float = 20.0, rate: float = 200.0) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_models(folder / "models", SYMBOLS, seed=0)
        process, url = start(folder)
        try:
            asyncio.run(load(url, 2, rate))
            cases: dict[str, Callable[[], object]] = {
                "alone": nullcontext,
                "while models are replaced": lambda: Replacing(folder / "models"),
            }
            for case, surroundings in cases.items():
                with surroundings():  # type: ignore[attr-defined]
                    before = n_written(url)
                    found = asyncio.run(load(url, seconds, rate))
                    report(case, *found, seconds, n_written(url) - before)
            log = (folder / "stderr.txt").read_text()
            print(f"models loaded by the server: {log.count('Loaded model')}")
            if shutil.which("wrk"):
                for path in (PATHS[0], PATHS[2]):
                    command = ["wrk", "-t1", "-c8", f"-d{round(seconds / 2)}", "--latency"]
                    told = subprocess.run(
                        [*command, url + path], capture_output=True, text=True, check=True
                    ).stdout
                    wanted = re.findall(r"(99%.*|Requests/sec.*|Non-2xx.*)", told)
                    print(f"wrk {path}: {'; '.join(' '.join(line.split()) for line in wanted)}")
        finally:
            process.terminate()
            print(f"stopped with {process.wait(30)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--replace"]:
        replace_models(Path(sys.argv[2]))
    else:
        main(*map(float, sys.argv[1:]))
