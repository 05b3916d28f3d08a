"""Sweeps that ended, without training anything: jobs, records and a registry of made-up models."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from report_builders import NOW, draft, export, judged, losses

from percoin.evaluation.evaluate import Evaluation
from percoin.evaluation.gate import Outcome, Verdict
from percoin.registry.layout import HASHED_FILES
from percoin.report.reading import Course, SavedModel
from percoin.sweep.jobs import Job, JobRecord, JobState
from percoin.types import Timeframe

SYMBOLS = [f"M{k:02d}USDT" for k in range(32)]

RECORD = JobRecord(
    state=JobState.FINISHED,
    key="0123456789abcdef",
    host="box",
    started_at=1_000.0,
    ended_at=1_192.0,
    epoch=12,
    max_epochs=50,
    val_loss=0.9,
    training_secs=180.0,
)


@cache
def _strong() -> Evaluation:
    return judged(n_rows=400)


def evaluation(skill: float, p_value: float) -> Evaluation:
    """A made-up evaluation, accepted where the skill is two standard errors above zero."""
    strong = _strong()
    error = 0.004

    def estimate(template, value, chance):
        ends = {"lower": value - 2 * error, "upper": value + 2 * error}
        return replace(template, value=value, standard_error=error, p_value=chance, **ends)

    outcome = Outcome.ACCEPTED if skill > 2 * error else Outcome.REJECTED
    return replace(
        strong,
        model=replace(strong.model, skill=estimate(strong.model.skill, skill, p_value)),
        against_best=estimate(strong.against_best, skill - 0.01, min(1.0, 100 * p_value)),
        verdict=Verdict(outcome, (f"skill {skill:+.4f}",), (), p_value),
    )


def job(folder: Path, symbol: str, tf: str = "15m", variant: str = "") -> Job:
    return Job(
        symbol, tf, folder / symbol / tf / variant, (f"symbol={symbol}", f"tf={tf}"), variant
    )


def finished(
    folder: Path,
    models_dir: Path,
    symbol: str,
    skill: float,
    p_value: float,
    tf: str = "15m",
    variant: str = "",
    state: JobState = JobState.FINISHED,
    **changes,
) -> tuple[Job, JobRecord]:
    """A job with a model in the registry."""
    daily = changes.pop("daily", losses(skill, seed=len(symbol)))
    exported = export(models_dir, symbol, tf, evaluation(skill, p_value), daily=daily, **changes)
    made = job(folder, symbol, tf, variant)
    made.folder.mkdir(parents=True, exist_ok=True)
    return made, replace(RECORD, state=state, result={"version": exported.name})


def kept(
    folder: Path, symbol: str, skill: float, p_value: float, tf: str = "15m", variant: str = ""
) -> tuple[tuple[Job, JobRecord], SavedModel]:
    """The same without a registry, for many at once."""
    judged_so = evaluation(skill, p_value)
    files = dict.fromkeys(HASHED_FILES, "ab" * 32)
    manifest = draft(symbol, tf, judged_so).seal(NOW, files)
    course = Course(losses(skill, seed=len(symbol)))
    model = SavedModel(symbol, Timeframe(tf), manifest, judged_so, course=course, variant=variant)
    return (job(folder, symbol, tf, variant), RECORD), model


def lacking(entry: tuple[Job, JobRecord]) -> SavedModel:
    """What stands on the board for a job without a model."""
    made, record = entry
    problem = record.error or "not begun"
    return SavedModel(made.symbol, Timeframe(made.tf), problem=problem, exists=False)


def ended(
    folder: Path, symbol: str, state: JobState, error: str | None, tf: str = "15m"
) -> tuple[Job, JobRecord]:
    """A job without a model."""
    made = job(folder, symbol, tf)
    made.folder.mkdir(parents=True, exist_ok=True)
    times = {} if state is JobState.WAITING else {"started_at": 1_000.0, "ended_at": 1_062.0}
    return made, JobRecord(state=state, epoch=3, max_epochs=50, error=error, **times)
