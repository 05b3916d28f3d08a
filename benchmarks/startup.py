"""How long the two commands take to begin, against ``import torch`` alone.

    python benchmarks/startup.py [repetitions]

Trains a small throw-away run on 20,000 simulated bars first (the network has its
full size), then times in turn, so that a busy moment of the machine meets all of them:
``import torch``, ``predict.py`` from the shell to its answer, and ``train.py`` from the shell
to the end of its first step, with a year of 15m bars from the store. Prints medians and
their ratios to the first.

    python benchmarks/startup.py mistakes [repetitions]

How long wrong settings take to be refused, in wall and CPU seconds: no GPU, an exchange
that does not exist, no network, and no network for a sweep of 32 markets.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.types import Timeframe

ROOT = Path(__file__).parents[1]
N_BARS = 20_000
REPETITIONS = 9
# Few rows to train on: only the export is wanted, not a good model.
TRAIN = f"symbol=BTCUSDT tf=15m source=simulated source.n_bars={N_BARS} history_days=20 epochs=1"
# Asked all the same if the gate rejected it: the whole way to an answer counts.
PREDICT = "symbol=BTCUSDT tf=15m source=store require_accepted=false"
TRAIN_FURTHER = "symbol=ETHUSDT tf=15m source=store logger=tensorboard"
# Ends the process when the second step begins.
FIRST_STEP = """
import os, runpy, sys
import percoin.training.lit_module as module
begin = module.SignalClassifier.on_train_batch_start
def end_second(self, batch, batch_index):
    if batch_index:
        os._exit(0)
    begin(self, batch, batch_index)
module.SignalClassifier.on_train_batch_start = end_second
sys.path.insert(0, os.getcwd())
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
sys.exit("no step was taken")
"""
# Nothing listens there: the connection is refused, as without a network.
NOWHERE = "source.api_url=http://127.0.0.1:9 source.archive_url=http://127.0.0.1:9"
MISTAKES = {
    "no GPU": "symbol=BTCUSDT source=simulated trainer=gpu",
    "unknown exchange": "symbol=BTCUSDT source.exchange=krakn",
    "no network": f"symbol=BTCUSDT {NOWHERE}",
    "no network, sweep": f"-m symbol={(ROOT / 'symbols').read_text().strip()} {NOWHERE}",
}
AIMS = {"predict.py": 2, "train.py, first step": 5}


def run(arguments: list[str]) -> float:
    """Run this Python with arguments; returns its wall time in seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    secs = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return secs


def measure(folder: Path, repetitions: int) -> dict[str, list[float]]:
    """Wall times in seconds of each command, measured in turn."""
    folders = [f"data_dir={folder}/data", f"models_dir={folder}/models"]
    run(["train.py", *TRAIN.split(), "logger=csv", *folders, f"outputs_dir={folder}/outputs"])
    store = BarStore(folder / "data" / "bars")
    store.write(SimulatedSource(1, 36_000, 0.0).load("ETHUSDT", Timeframe.M15))
    outputs = [*folders, f"outputs_dir={folder}/outputs"]
    commands = {
        "import torch": ["-c", "import torch"],
        "predict.py": ["predict.py", *PREDICT.split(), *folders],
        "train.py, first step": ["-c", FIRST_STEP, *TRAIN_FURTHER.split(), *outputs],
    }
    for arguments in commands.values():
        run(arguments)  # files that are read from disk once belong to neither
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repetitions):
        for name, arguments in commands.items():
            times[name].append(run(arguments))
    return times


def measure_mistakes(repetitions: int) -> None:
    """Print how long each mistake takes to be refused."""
    for name, words in MISTAKES.items():
        walls, cpus = [], []
        with tempfile.TemporaryDirectory() as folder:
            folders = [f"{kind}_dir={folder}/{kind}" for kind in ("data", "models", "outputs")]
            for _ in range(repetitions):
                before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "train.py", *words.split(), *folders],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                walls.append(time.perf_counter() - started)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        lines = done.stderr.splitlines()
        print(
            f"{name:20}CPU {statistics.median(cpus):.2f} s, wall {statistics.median(walls):.2f} s "
            f"(medians, n={repetitions}), {len(lines)} line(s): {lines[-1][:70]}"
        )
    print(f"{'load':20}{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    if "mistakes" in sys.argv[1:2]:
        measure_mistakes(int(sys.argv[2]) if len(sys.argv) > 2 else REPETITIONS)
        return
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    with tempfile.TemporaryDirectory() as folder:
        times = measure(Path(folder), repetitions)
    base = statistics.median(times["import torch"])
    for name, secs in times.items():
        median = statistics.median(secs)
        print(
            f"{name:22}median {median:.2f} s  "
            f"(fastest {min(secs):.2f}, slowest {max(secs):.2f}, n={len(secs)})"
            + (f"  ratio {median / base:.2f}, aim {AIMS[name]}" if name in AIMS else "")
        )
    print(f"{'load':22}{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
