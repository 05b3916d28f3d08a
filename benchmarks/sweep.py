"""What a sweep gains by running jobs side by side, and what a job costs beyond its training.

    python benchmarks/sweep.py FOLDER [--markets 8] [--days 60] [--epochs 5] [--workers 2]

FOLDER holds real 15m bars as ``source=files`` reads them. The same markets are trained by
``train.py -m`` in one run, each time in fresh folders: with ``workers`` jobs side by side, each
with its share of the cores; one after another on one core alone; and one after another, each
with all cores. Prints the wall times, what side by side gains on each of the others, and the
overhead: all of a job but the time in training and testing its network (start-up, config,
bars, baselines, judgement, export), as a share of that time. ``--skip-all-cores`` leaves out
the last of the three.

    python benchmarks/sweep.py FOLDER --rates 6 [--days 60] [--epochs 5] [--model cnn_lstm_half]

is another question: one market and so many learning rates, once as it is, where the first job fits
the baselines for all, and once with a file in the place of the folder in which they are kept, so
that every job fits its own.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from percoin.sweep.baselines import SHARED_FOLDER

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
    parser.add_argument("--rates", type=int, help="one market, so many learning rates")
    parser.add_argument("--model", default="cnn_lstm", choices=["cnn_lstm", "cnn_lstm_half"])
    arguments = parser.parse_args()
    if arguments.rates:
        compare_shared(arguments)
        return
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


def compare_shared(arguments: argparse.Namespace) -> None:
    """One market at several learning rates, its baselines fitted once or by every job."""
    rates = ",".join(f"{0.002 / 2**k:g}" for k in range(arguments.rates))
    shared, alone = (
        sweep(["BTCUSDT"], arguments, arguments.workers, more=[f"lr={rates}"], is_shared=is_shared)
        for is_shared in (True, False)
    )
    for name, timing in (("baselines fitted once", shared), ("by every job", alone)):
        beside = sum(timing.job_secs) - sum(timing.training_secs)
        print(f"{report(name, timing)}; beside training {beside:.0f} s in all jobs", flush=True)
    print(f"once is {alone.secs / shared.secs:.2f} times as fast")


def sweep(
    symbols: list[str],
    arguments: argparse.Namespace,
    workers: int,
    cores: set[int] | None = None,
    more: Sequence[str] = (),
    is_shared: bool = True,
) -> Timing:
    """Train the markets, on these cores alone where some are named."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, str(ROOT / "train.py"), "-m", f"symbol={','.join(symbols)}"),
            *("tf=15m", "source=files", f"source.path={arguments.bars.absolute()}"),
            *(f"history_days={arguments.days}", f"epochs={arguments.epochs}"),
            # Every job trains all of its epochs.
            f"optimizer.early_stopping_patience={arguments.epochs}",
            *(f"workers={workers}", "sweep=timed", f"model={arguments.model}", *more),
            *(f"{name}_dir={folder}/{name}" for name in ("data", "models", "outputs")),
        ]
        if not is_shared:
            place = Path(folder, "outputs", "timed", symbols[0], "15m")
            place.mkdir(parents=True)
            (place / SHARED_FOLDER).touch()
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
    n_jobs = arguments.rates or len(symbols)
    if [record["state"] for record in records] != ["finished"] * n_jobs:
        raise RuntimeError(f"{n_jobs} jobs left {[record['state'] for record in records]}")
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
