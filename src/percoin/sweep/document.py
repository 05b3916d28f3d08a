"""``summary.json``: the results of a sweep for programs.

::

    format              1
    sweep, written_at   name of the sweep's folder; UTC
    secs                wall time of the sweep
    is_over             false: jobs are left, and the verdicts over the sweep are provisional
    counts              number of jobs by state
    settings            the settings that all models share, by dotted name
    false_discovery     rate, method, n_tried, n_accepted_alone, n_accepted
    together            by bar length and variant: n_models, n_days, mean skill and mean lead
                        over the rival baselines (nats a bar), each as value, lower, upper;
                        n_days null: the interval assumes fully correlated errors (worst case)
    problems            what could not be written, withdrawn or served
    jobs                one entry per job, in the sweep's order:
        name, symbol, tf, variant, folder (below the sweep's), state, key, attempt, host,
        epoch, max_epochs, secs, training_secs, error
        version         in the registry; without a model this and all fields below are null
        rank            on the leaderboard
        verdict         after false discovery control over the sweep; verdict_alone: by its
                        own test; reasons, cautions
        p_value         of "no skill over one of the two priors"
        skill, recent_skill, activity_auc, direction_auc, lead
                        value, lower, upper (95 %); skill is over the train prior,
                        recent_skill over the rolling prior, lead over rival in nats a bar
        shown           what was shown, in words, after the same control as verdict
        best_baseline   the best baseline on the test rows
        leads           significantly better than rival, after the control over the sweep
        net_return, hold_return
                        over the test period, as fractions, after costs
        n_rows, n_effective_rows
        withdrawn       whether its acceptance was withdrawn because of the sweep's verdict

Shares are fractions, not percent; a figure that was not computed is null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from percoin.evaluation.backtest import BacktestResult
from percoin.evaluation.evaluate import Evaluation
from percoin.evaluation.gate import FALSE_DISCOVERY_RATE
from percoin.evaluation.uncertainty import Estimate
from percoin.registry.field_checks import time_text
from percoin.report.board import BoardStatus, money_of
from percoin.report.joint_results import JointResult
from percoin.sweep.results import JobResult, SweepResults

FORMAT = 1


def to_document(results: SweepResults, withdrawn: Collection[str], problems: Sequence[str]) -> str:
    """The text of ``summary.json``.

    Args:
        results: Results of the sweep.
        withdrawn: Names of the jobs whose models lost their acceptance.
        problems: What could not be written, withdrawn or served.
    """
    board = results.board
    n_alone = sum(entry.passed_alone for entry in board.counted)
    document = {
        "format": FORMAT,
        "sweep": results.folder.name,
        "written_at": time_text(board.created_at),
        "secs": results.secs,
        "is_over": results.is_over,
        "counts": {state.value: count for state, count in results.counts.items()},
        "settings": results.shared_settings,
        "false_discovery": {
            "rate": FALSE_DISCOVERY_RATE,
            "method": "Benjamini-Yekutieli",
            "n_tried": board.n_tried,
            "n_accepted_alone": n_alone,
            "n_accepted": board.counts[BoardStatus.ACCEPTED],
        },
        "together": [_joint_result(group) for group in board.joint],
        "problems": list(problems),
        "jobs": [_job(result, results.folder, withdrawn) for result in results.jobs],
    }
    return json.dumps(document, allow_nan=False, indent=1) + "\n"


def _joint_result(group: JointResult) -> dict[str, Any]:
    return {
        "timeframe": group.timeframe.value,
        "variant": group.variant,
        "n_models": group.skill.n_models,
        "n_days": group.skill.n_days,
        "skill": group.skill.as_json(),
        "lead": group.lead.as_json(),
        "network_adds": None if group.network_adds is None else group.network_adds.as_json(),
    }


def _job(result: JobResult, folder: Path, withdrawn: Collection[str]) -> dict[str, Any]:
    job, record, entry = result.job, result.record, result.entry
    manifest, judged = entry.model.manifest, entry.model.evaluation
    return {
        "name": job.name,
        "symbol": job.symbol,
        "tf": job.tf,
        "variant": job.variant,
        "folder": str(job.folder.relative_to(folder)),
        "state": record.state.value,
        "key": record.key,
        "attempt": record.attempt,
        "host": record.host,
        "epoch": record.epoch,
        "max_epochs": record.max_epochs,
        "secs": record.secs,
        "training_secs": record.training_secs,
        "error": result.error or None,
        "version": manifest.version_id if manifest else None,
        "rank": entry.rank,
        "verdict": entry.status.value if entry.model.exists else None,
        "reasons": list(entry.reasons) if entry.model.exists else None,
        "cautions": list(entry.cautions) if entry.model.exists else None,
        **{name: read(judged) if judged else None for name, read in _FIGURES.items()},
        "shown": entry.phrase or None,
        "leads": entry.leads if judged else None,
        "withdrawn": job.name in withdrawn if manifest else None,
    }


# How to read each figure of a judged model; without an evaluation all are null.
_FIGURES: Mapping[str, Callable[[Evaluation], object]] = {
    "verdict_alone": lambda found: found.verdict.outcome.value,
    "p_value": lambda found: found.verdict.p_value,
    "skill": lambda found: _estimate(found.model.skill),
    "recent_skill": lambda found: _estimate(found.model.recent_skill),
    "activity_auc": lambda found: _estimate(found.model.activity.auc),
    "direction_auc": lambda found: _estimate(found.model.direction.auc),
    "lead": lambda found: _estimate(found.lead),
    "rival": lambda found: found.rival_name,
    "best_baseline": lambda found: found.best_baseline,
    "net_return": lambda found: _net_return(money_of(found)[0]),
    "hold_return": lambda found: _net_return(money_of(found)[1]),
    "n_rows": lambda found: found.n_rows,
    "n_effective_rows": lambda found: found.model.skill.n_effective_rows,
}


def _net_return(result: BacktestResult | None) -> float | None:
    return None if result is None else result.net_return


def _estimate(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else estimate.as_json()
