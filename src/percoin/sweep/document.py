"""``summary.json``: the end of a sweep for programs.

::

    format              1
    sweep, written_at   name of the sweep's folder; UTC
    secs                wall time of the sweep
    is_over             false: jobs are left, and the verdicts over the sweep are provisional
    counts              jobs by state
    settings            by dotted name, what all models were made with
    false_discovery     rate, method, n_tried, n_accepted_alone, n_accepted
    together            by bar length and variant: n_models, n_days, mean skill and mean lead
                        over the rivals (nats a bar), each value, lower, upper; n_days
                        null: the interval is that of models that all err together
    problems            what could not be written or withdrawn
    jobs                one a job, in the sweep's order:
        name, symbol, tf, variant, folder (below the sweep's), state, key, attempt, host,
        epoch, max_epochs, secs, training_secs, error
        version         in the registry; null without a model, and so is all that follows
        rank            on the leaderboard
        verdict         over the sweep; verdict_alone: by its own test; reasons, cautions
        p_value         of "no skill over one of the two priors"
        skill, recent_skill, activity_auc, direction_auc, lead
                        value, lower, upper (95 %); over the train prior and the rolling prior;
                        lead is over rival, nats a bar
        shown           what was shown, in words
        best_baseline   the best on the test rows
        leads           surely ahead of it, after the control over the sweep
        net_return, hold_return
                        of the test period, as fractions, after costs
        n_rows, n_effective_rows
        withdrawn       whether its acceptance was taken back for the sweep's verdict

Fractions, not percent; a figure that was not computed is null.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from percoin.evaluation.evaluate import Evaluation
from percoin.evaluation.gate import FALSE_DISCOVERY_RATE
from percoin.evaluation.uncertainty import Estimate
from percoin.registry.field_checks import time_text
from percoin.report.board import money_of
from percoin.report.joint_results import JointResult
from percoin.sweep.results import JobResult, SweepResults

FORMAT = 1


def to_document(results: SweepResults, withdrawn: Collection[str], problems: Sequence[str]) -> str:
    """The text of ``summary.json``.

    Args:
        results: What the sweep came to.
        withdrawn: Names of the jobs whose models lost their acceptance.
        problems: What could not be written or withdrawn.
    """
    board = results.board
    n_alone = sum(entry.passed_alone for entry in board.entries)
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
            "n_accepted": n_alone - board.n_lost,
        },
        "together": [_together(group) for group in board.together],
        "problems": list(problems),
        "jobs": [_job(result, results.folder, withdrawn) for result in results.jobs],
    }
    return json.dumps(document, allow_nan=False, indent=1) + "\n"


def _together(group: JointResult) -> dict[str, Any]:
    return {
        "timeframe": group.timeframe.value,
        "variant": group.variant,
        "n_models": group.skill.n_models,
        "n_days": group.skill.n_days,
        "skill": group.skill.as_json(),
        "lead": group.lead.as_json(),
    }


def _job(result: JobResult, folder: Path, withdrawn: Collection[str]) -> dict[str, Any]:
    job, record, entry = result.job, result.record, result.entry
    manifest = entry.model.manifest
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
        **_figures(entry.model.evaluation),
        "leads": entry.leads if entry.model.evaluation else None,
        "withdrawn": job.name in withdrawn if manifest else None,
    }


def _figures(evaluation: Evaluation | None) -> dict[str, Any]:
    if evaluation is None:
        names = ("verdict_alone", "shown", "p_value", "skill", "recent_skill", "activity_auc")
        further = ("direction_auc", "lead", "rival", "best_baseline", "net_return", "hold_return")
        return dict.fromkeys((*names, *further, "n_rows", "n_effective_rows"))
    own, hold = money_of(evaluation)
    line = evaluation.model
    return {
        "verdict_alone": evaluation.verdict.outcome.value,
        "shown": evaluation.shown(),
        "p_value": evaluation.verdict.p_value,
        "skill": _estimate(line.skill),
        "recent_skill": _estimate(line.recent_skill),
        "activity_auc": _estimate(line.activity.auc),
        "direction_auc": _estimate(line.direction.auc),
        "lead": _estimate(evaluation.lead),
        "rival": evaluation.rival_name,
        "best_baseline": evaluation.best_baseline,
        "net_return": own.net_return if own else None,
        "hold_return": hold.net_return if hold else None,
        "n_rows": evaluation.n_rows,
        "n_effective_rows": line.skill.n_effective_rows,
    }


def _estimate(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else estimate.as_json()
