"""How long a server takes from the shell to all of its first answers: 32 markets x 4 timeframes.

    python benchmarks/serve_start.py [repetitions] [extra settings ...]

Trains one throw-away model of each timeframe (the network has its full size), exports it for 32
markets, then starts ``python -m percoin.serve`` on 5,000 bars of each that lie in the store, up to
the newest that has closed, and waits until every market has its answer. The bars are simulated;
each start has an empty track record. Prints wall and CPU seconds, and the largest memory.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from predict_many import SYMBOLS, train_one

from percoin.bars.sources.playing import PlayingSource
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.types import Timeframe

TIMEFRAMES = (Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1)
N_BARS = 5000
REPETITIONS = 3


def start(folder: Path, settings: list[str]) -> tuple[float, float, float]:
    """Wall and CPU seconds to the last first answer, and the largest memory in MiB."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    store, source = (
        BarStore(folder / "data" / "bars"),
        PlayingSource(SimulatedSource(n_bars=N_BARS)),
    )
    for timeframe in TIMEFRAMES:
        for symbol in SYMBOLS:
            store.write(source.load(symbol, timeframe))
    names = ",".join(timeframe.value for timeframe in TIMEFRAMES)
    command = [sys.executable, "-m", "percoin.serve", "port=0", "source=store", f"tf={names}"]
    command += ["limits.requests_per_sec=1000", *settings]
    began = time.perf_counter()
    with (
        (folder / "stderr.txt").open("w") as errors,
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        found = re.search(r"http://\S+$", process.stdout.readline())
        if found is None:
            sys.exit((folder / "stderr.txt").read_text())
        # Without certificates, which take longer to load than a model.
        with httpx.Client(verify=False, trust_env=False) as client:
            while (state := client.get(f"{found[0]}/health").json())["status"] == "starting":
                time.sleep(0.1)
        wall = time.perf_counter() - began
        markets = state["markets"]
        if markets["failing"] or markets["with_bars"] != len(SYMBOLS) * len(TIMEFRAMES):
            sys.exit(f"not every market has an answer: {state}")
        # Fields 14 and 15 count from the first; the name in brackets may hold spaces.
        times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        cpu = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
        process.terminate()
    return wall, cpu, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for timeframe in TIMEFRAMES:
            trained = train_one(folder / "training", timeframe)
            for k, symbol in enumerate(SYMBOLS):
                trained.export(folder / "models", symbol, k)
        print(f"exported {len(SYMBOLS)} x {len(TIMEFRAMES)} models", flush=True)
        runs = [start(folder, sys.argv[2:]) for _ in range(repetitions)]
    walls, cpus, memories = zip(*runs, strict=True)
    print(
        f"first answers of all: wall {statistics.median(walls):.1f} s (fastest {min(walls):.1f}), "
        f"CPU {statistics.median(cpus):.1f} s, largest memory {max(memories):.0f} MiB, "
        f"n={repetitions}"
    )
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
