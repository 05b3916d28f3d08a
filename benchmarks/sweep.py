"""What a sweep gains by running jobs side by side, and what a job costs beyond its training.

    python benchmarks/sweep.py FOLDER [--markets 8] [--days 60] [--epochs 5] [--workers 2]

FOLDER holds real 15m bars as ``source=files`` reads them. The same markets are trained by
``train.py -m`` in one run, each time in fresh folders: with ``workers`` jobs side by side, each
with its share of the cores; one after another on one core alone; and one after another, each
with all cores. Prints the wall times, what side by side gains on each of the others, and the
overhead: all of a job but the time in training and testing its network (start-up, config,
bars, baselines, judgement, export), as a share of that time. ``--skip-all-cores`` leaves out
the last of the three.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Timing:
    """One sweep."""

    secs: float
    job_secs: tuple[float, ...]
    training_secs: tuple[float, ...]

    @property
    def overhead(self) -> float:
        """Median over the jobs."""
        pairs = zip(self.job_secs, self.training_secs, strict=True)
        return statistics.median(job / training - 1 for job, training in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bars", type=Path)
    for name, default in (("markets", 8), ("days", 60), ("epochs", 5), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--skip-all-cores", action="store_true")
    arguments = parser.parse_args()
    symbols = (ROOT / "symbols").read_text(encoding="ascii").strip().split(",")
    chosen = symbols[: arguments.markets]
    side_by_side = sweep(chosen, arguments, arguments.workers)
    print(report(f"{arguments.workers} side by side", side_by_side), flush=True)
    cores = os.sched_getaffinity(0)
    others = [("one after another on one core", {min(cores)})]
    if not arguments.skip_all_cores:
        others.append(("one after another on all cores", cores))
    for name, allowed in others:
        in_turn = sweep(chosen, arguments, 1, allowed)
        ratio = in_turn.secs / side_by_side.secs
        print(f"{report(name, in_turn)}\nside by side is {ratio:.2f} times as fast", flush=True)


def sweep(
    symbols: list[str],
    arguments: argparse.Namespace,
    workers: int,
    cores: set[int] | None = None,
) -> Timing:
    """Train the markets, on these cores alone where some are named."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, str(ROOT / "train.py"), "-m", f"symbol={','.join(symbols)}"),
            *("tf=15m", "source=files", f"source.path={arguments.bars.absolute()}"),
            *(f"history_days={arguments.days}", f"epochs={arguments.epochs}"),
            # Every job trains all of its epochs.
            f"optimizer.early_stopping_patience={arguments.epochs}",
            *(f"workers={workers}", "sweep=timed"),
            *(f"{name}_dir={folder}/{name}" for name in ("data", "models", "outputs")),
        ]
        began = time.perf_counter()
        before = os.sched_getaffinity(0)
        # A process begins with the cores of its parent.
        os.sched_setaffinity(0, cores or before)
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        finally:
            os.sched_setaffinity(0, before)
        secs = time.perf_counter() - began
        records = [json.loads(path.read_text()) for path in Path(folder).rglob("job.json")]
    if len(records) != len(symbols):
        raise RuntimeError(f"{len(symbols)} jobs left {len(records)} records")
    return Timing(
        secs,
        tuple(record["ended_at"] - record["started_at"] for record in records),
        tuple(record["training_secs"] for record in records),
    )


def report(name: str, timing: Timing) -> str:
    training = statistics.median(timing.training_secs)
    return (
        f"{name}: {timing.secs:.0f} s for {len(timing.job_secs)} jobs; a job trains for "
        f"{training:.1f} s (median), overhead {timing.overhead:.1%}"
    )


if __name__ == "__main__":
    main()
