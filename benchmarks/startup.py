"""How long predict.py takes from the shell to its answer, against ``import torch`` alone.

    python benchmarks/startup.py [repetitions]

Trains a small throw-away run on 20,000 simulated bars first (the network has its
full size), then times both commands in turn, so that a busy moment of the machine
meets both. Prints medians and their ratio.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
N_BARS = 20_000
REPETITIONS = 9
# Few rows to train on: only the export is wanted, not a good model.
TRAIN = f"symbol=BTCUSDT tf=15m source=simulated source.n_bars={N_BARS} history_days=20 epochs=1"
# Asked all the same if the gate rejected it: the whole way to an answer counts.
PREDICT = "symbol=BTCUSDT tf=15m source=store require_accepted=false"


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
    commands = {
        "import torch": ["-c", "import torch"],
        "predict.py": ["predict.py", *PREDICT.split(), *folders],
    }
    for arguments in commands.values():
        run(arguments)  # files that are read from disk once belong to neither
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repetitions):
        for name, arguments in commands.items():
            times[name].append(run(arguments))
    return times


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    with tempfile.TemporaryDirectory() as folder:
        times = measure(Path(folder), repetitions)
    for name, secs in times.items():
        print(
            f"{name:14}median {statistics.median(secs):.2f} s  "
            f"(fastest {min(secs):.2f}, slowest {max(secs):.2f}, n={len(secs)})"
        )
    medians = [statistics.median(secs) for secs in times.values()]
    print(f"{'ratio':14}{medians[1] / medians[0]:.2f}  (aim: at most 2)")
    print(f"{'load':14}{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
