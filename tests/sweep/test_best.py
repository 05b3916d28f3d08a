"""A sweep over settings of one market leaves the best ones on validation rows served."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from summary_builders import draft, finished
from sweep_runs import run_sweep_command, served_version

from percoin.registry.changes import promote
from percoin.registry.layout import MarketFolder
from percoin.registry.publish import served_id
from percoin.sweep.summary import summarize
from percoin.types import Timeframe

ACCEPTED, REJECTED = (0.03, 1e-7), (0.0, 0.5)


def market(models: Path, tf: str = "15m") -> MarketFolder:
    return MarketFolder(models, "BTCUSDT", Timeframe(tf))


def variants(folder: Path, models: Path, *found: tuple[tuple[float, float], float]):
    """Jobs on one market, each with what its test rows say and its skill on validation rows."""
    jobs = []
    for number, ((skill, p_value), validation_skill) in enumerate(found):
        job, record = finished(
            folder, models, "BTCUSDT", skill, p_value, variant=f"lr=0.{number + 1}"
        )
        jobs.append(on_validation(job, record, validation_skill))
    return jobs


def on_validation(job, record, skill: float):
    return job, replace(record, result={**record.result, "validation_skill": skill})


def version(jobs, number: int) -> str:
    return jobs[number][1].result["version"]


@pytest.mark.parametrize("verdict", [ACCEPTED, REJECTED])
def test_the_best_settings_are_served_whatever_finished_last(tmp_path, verdict):
    folder, models = tmp_path / "sweep-1", tmp_path / "models"
    jobs = variants(folder, models, (verdict, 0.02), (verdict, 0.05), (verdict, 0.01))
    assert served_id(market(models)) == version(jobs, 2)
    summary = summarize(folder, jobs, models, 1.0)
    assert served_id(market(models)) == version(jobs, 1)
    assert summary.served == (
        "BTCUSDT 15m serves lr=0.2: best on validation rows of 3 settings (skill +0.0500)",
    )
    assert summary.served[0] in summary.render()
    assert summarize(folder, jobs, models, 1.0).served == ()
    assert served_id(market(models)) == version(jobs, 1)


def test_accepted_settings_come_before_those_that_are_not(tmp_path):
    folder, models = tmp_path / "sweep-1", tmp_path / "models"
    jobs = variants(folder, models, (ACCEPTED, 0.02), (REJECTED, 0.05), (ACCEPTED, 0.01))
    summarize(folder, jobs, models, 1.0)
    assert served_id(market(models)) == version(jobs, 0)


def test_a_model_of_simulated_bars_takes_no_place_of_one_of_real_bars(tmp_path):
    folder, models = tmp_path / "sweep-1", tmp_path / "models"
    bars = replace(draft("BTCUSDT", "15m", None).bars, origin="simulated: seed 3")
    simulated = finished(
        folder, models, "BTCUSDT", *REJECTED, variant="source=simulated", bars=bars
    )
    real = finished(folder, models, "BTCUSDT", *REJECTED, variant="source=sample")
    jobs = [on_validation(*simulated, 0.5), on_validation(*real, 0.01)]
    summary = summarize(folder, jobs, models, 1.0)
    assert (summary.served, summary.problems) == ((), ())
    assert served_id(market(models)) == version(jobs, 1)


def test_what_somebody_chose_stays(tmp_path):
    folder, models = tmp_path / "sweep-1", tmp_path / "models"
    jobs = variants(folder, models, (ACCEPTED, 0.05), (ACCEPTED, 0.02), (ACCEPTED, 0.01))
    promote(market(models), version(jobs, 1), "by hand")
    assert summarize(folder, jobs, models, 1.0).served == ()
    assert served_id(market(models)) == version(jobs, 1)


def test_an_accepted_version_from_before_the_sweep_stays_if_none_of_its_own_is(tmp_path):
    folder, models = tmp_path / "sweep-1", tmp_path / "models"
    before = version(variants(tmp_path / "sweep-0", models, (ACCEPTED, 0.0)), 0)
    jobs = variants(folder, models, (REJECTED, 0.05), (REJECTED, 0.02))
    assert summarize(folder, jobs, models, 1.0).served == ()
    assert served_id(market(models)) == before


def test_results_of_an_older_percoin_change_nothing(tmp_path):
    folder, models = tmp_path / "sweep-1", tmp_path / "models"
    jobs = variants(folder, models, (ACCEPTED, 0.05), (ACCEPTED, 0.02))
    older = [
        (job, replace(record, result={"version": record.result["version"]})) for job, record in jobs
    ]
    summary = summarize(folder, older, models, 1.0)
    assert (summary.served, summary.problems) == ((), ())
    assert served_id(market(models)) == version(jobs, 1)


@pytest.mark.slow
def test_of_two_learning_rates_the_better_one_is_served(tmp_path):
    sweep = run_sweep_command(tmp_path, "symbol=BTCUSDT", "blend=none", "lr=0.02,0.0000001")
    assert sweep.code == 0, sweep.stderr
    results = {
        path.parent.name: json.loads(path.read_text())
        for path in sweep.job_folder("BTCUSDT").glob("*/result.json")
    }
    best = max(results, key=lambda name: results[name]["validation_skill"])
    assert best == "lr=0.02"
    assert served_version(tmp_path, "BTCUSDT") == results[best]["version"]
