"""How long predict.py takes from the shell to its answer, by PyTorch and by ONNX Runtime.

    python benchmarks/onnx_startup.py [repetitions]

Trains a small throw-away run on 20,000 simulated bars first (the network has its full
size) and exports it for both, then times both commands in turn, so that a busy moment of the
machine meets both. Prints medians and their ratio.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from startup import PREDICT, REPETITIONS, TRAIN, run

from percoin.inference import Backend


def measure(folder: Path, repetitions: int) -> dict[str, list[float]]:
    """Wall times in seconds of each command, measured in turn."""
    folders = [f"data_dir={folder}/data", f"models_dir={folder}/models"]
    export = ["export.onnx=true", "logger=csv", *folders, f"outputs_dir={folder}/outputs"]
    run(["train.py", *TRAIN.split(), *export])
    commands = {
        name.value: ["predict.py", *PREDICT.split(), *folders, f"predictor={name}"]
        for name in Backend
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
            f"{'predictor=' + name:18}median {statistics.median(secs):.2f} s  "
            f"(fastest {min(secs):.2f}, slowest {max(secs):.2f}, n={len(secs)})"
        )
    by_torch, by_onnx = times.values()
    print(
        f"{'ratio':18}{statistics.median(by_torch) / statistics.median(by_onnx):.2f}  "
        f"(aim: at least 2; fastest to fastest {min(by_torch) / min(by_onnx):.2f})"
    )
    print(f"{'load':18}{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
