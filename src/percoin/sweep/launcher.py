"""``train.py -m``: runs a sweep from the command line, prints its summary, raises its errors."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

from percoin.config import ProcessesConfig
from percoin.errors import SweepError
from percoin.file_lock import claimed
from percoin.sweep.engine import Engine
from percoin.sweep.jobs import BROKEN, DONE, Job, JobState
from percoin.sweep.plan import SweepPlan, plan_sweep
from percoin.sweep.run import SweepEnd, run_sweep
from percoin.sweep.summary import summarize
from percoin.training.early import check_bars, check_device, check_network
from percoin.types import Timeframe


def launch(arguments: Sequence[str]) -> None:
    """Run a sweep and print its summary.

    Args:
        arguments: ``KEY=VALUE`` words; several values are separated by commas.

    Raises:
        SweepError: Some jobs are not done; the message names them all.
        PercoinError: The sweep could not start.
    """
    plan = plan_sweep(arguments)
    markets = list(dict.fromkeys((job.symbol, Timeframe(job.tf)) for job in plan.jobs))
    if isinstance(plan.launcher, ProcessesConfig):
        # Jobs elsewhere have another machine and another network.
        check_device(plan.settings)
        if plan.has_one_source:
            check_network(plan.settings, markets, f"all {len(plan.jobs)} jobs", "of the sweep")
            check_bars(plan.settings, markets, all_needed=False)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with claimed(plan.folder, advice="wait for it, or name another sweep with sweep=NAME"):
        began = time.monotonic()
        end = _run(plan)
        problems: Sequence[str] = ()
        if not end.at_once:
            secs = time.monotonic() - began
            summary = summarize(plan.folder, end.jobs, Path(plan.settings.models_dir), secs)
            print(summary.render(shutil.get_terminal_size((100, 24)).columns))
            problems = summary.problems
    _raise_if_unfinished(end, problems)


def _run(plan: SweepPlan) -> SweepEnd:
    engine = build_engine(plan)
    print(f"{len(plan.jobs)} jobs, {engine.n_slots} at a time, in {plan.folder}", flush=True)
    try:
        return run_sweep(
            plan.jobs,
            engine,
            force=plan.settings.force,
            reuse_bars_secs=plan.settings.reuse_bars_secs,
        )
    finally:
        engine.close()


def build_engine(plan: SweepPlan) -> Engine:
    """Make the engine of the plan's launcher; this imports its libraries."""
    module = import_module(f"percoin.sweep.engines.{plan.launcher.engine}")
    engine: Engine = module.build_engine(plan.launcher, plan.settings, len(plan.jobs))
    return engine


def _raise_if_unfinished(end: SweepEnd, problems: Sequence[str]) -> None:
    n_jobs = len(end.jobs)
    undone = [(job, record.state) for job, record in end.jobs if record.state not in DONE]
    if end.stopped_by is not None:
        failed = _named(entry for entry in undone if entry[1] in BROKEN)
        stopped = (
            f"stopped by {end.stopped_by.name} with {n_jobs - len(undone)} of {n_jobs} jobs done"
        )
        also = f"; failed: {failed}" if failed else ""
        raise SweepError(f"{stopped}{also}; the same command goes on", 128 + end.stopped_by)
    if undone:
        raise SweepError(
            f"{len(undone)} of {n_jobs} jobs failed: {_named(undone)}; "
            "the same command tries them again"
        )
    if problems:
        raise SweepError("; ".join(problems))


def _named(jobs: Iterable[tuple[Job, JobState]]) -> str:
    return ", ".join(f"{job.name} ({state.value})" for job, state in jobs)
