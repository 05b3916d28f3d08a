import json
import os
import shutil
import subprocess
from dataclasses import replace

import pytest
from summary_builders import SYMBOLS, ended, finished, job

from percoin.registry.catalogue import served_version
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Gate, StoredVerdict
from percoin.sweep.jobs import JobRecord, JobState
from percoin.sweep.summary import summarize
from percoin.types import Timeframe


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "outputs" / "sweep-1"


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def document(folder):
    def refuse(text):
        raise ValueError(text)

    return json.loads((folder / "summary.json").read_text(), parse_constant=refuse)


def sweep_with_luck(folder, models):
    """A true model, a lucky one, and six that know nothing."""
    return [
        finished(folder, models, "BTCUSDT", 0.03, 1e-7),
        finished(folder, models, "ETHUSDT", 0.01, 0.02),
        *(finished(folder, models, symbol, 0.0, 0.5) for symbol in SYMBOLS[:6]),
    ]


def served_verdict(models, symbol):
    version = served_version(MarketFolder(models, symbol, Timeframe.M15))
    return version.manifest.gate.verdict.value


def test_the_document_says_how_each_job_ended_and_what_its_model_is_worth(folder, models):
    jobs = [
        *sweep_with_luck(folder, models),
        ended(folder, "SOLUSDT", JobState.FAILED, "SOLUSDT 15m: no bars; fetch them"),
        ended(folder, "XRPUSDT", JobState.KILLED, "killed by SIGKILL, twice"),
    ]

    summary = summarize(folder, jobs, models, 61.0)

    assert summary.problems == ()
    said = document(folder)
    assert (said["format"], said["sweep"], said["secs"], said["is_over"]) == (
        1,
        "sweep-1",
        61,
        True,
    )
    assert said["counts"] == {"finished": 8, "failed": 1, "killed": 1}
    assert said["settings"] == {"epochs": 5, "optimizer.weight_decay": 0.001}
    assert said["false_discovery"] == {
        "rate": 0.05,
        "method": "Benjamini-Yekutieli",
        "n_tried": 8,
        "n_accepted_alone": 2,
        "n_accepted": 1,
    }
    assert [group["n_models"] for group in said["together"]] == [8]
    by_name = {entry["name"]: entry for entry in said["jobs"]}
    assert list(by_name) == [job.name for job, _ in jobs]
    best, lucky, failed = (by_name[f"{s} 15m"] for s in ("BTCUSDT", "ETHUSDT", "SOLUSDT"))
    assert (best["rank"], best["verdict"], best["skill"]["value"]) == (1, "accepted", 0.03)
    assert (lucky["verdict"], lucky["verdict_alone"]) == ("rejected", "accepted")
    assert lucky["shown"] == "no skill shown among all that was tried"
    assert best["shown"].startswith("skill shown, ")
    assert (best["withdrawn"], lucky["withdrawn"], failed["withdrawn"]) == (False, True, None)
    assert (failed["state"], failed["error"]) == ("failed", "no bars; fetch them")
    assert {failed[key] for key in ("version", "rank", "verdict", "skill", "p_value")} == {None}
    assert {tuple(entry) for entry in said["jobs"]} == {tuple(best)}
    assert best["folder"] == "BTCUSDT/15m"


def test_the_report_is_over_the_versions_that_the_jobs_made(folder, models):
    jobs = [
        finished(folder, models, "BTCUSDT", 0.03, 1e-7),
        finished(folder, models, "ETHUSDT", 0.03, 1e-7),
    ]
    # Neither another market nor a later version of the same is of this sweep.
    finished(folder, models, "ADAUSDT", 0.03, 1e-7)
    finished(folder, models, "ETHUSDT", 0.05, 1e-7)

    summarize(folder, jobs, models, 5.0)

    report = json.loads((folder / "report" / "report.json").read_text())
    versions = {entry["symbol"]: entry["version_id"] for entry in report["models"]}
    assert versions == {job.symbol: record.result["version"] for job, record in jobs}
    eth = next(entry for entry in report["models"] if entry["symbol"] == "ETHUSDT")
    assert eth["cautions"][0].startswith("it is not served, version")
    names = {path.name for path in (folder / "report").iterdir()}
    assert names == {"index.html", "report.json", "report.md", "skills.svg"}


def test_what_does_not_stand_over_the_sweep_is_no_longer_served_as_accepted(folder, models):
    finished(folder, models, "XRPUSDT", 0.03, 1e-7)
    jobs = [*sweep_with_luck(folder, models), finished(folder, models, "XRPUSDT", 0.01, 0.02)]
    assert served_verdict(models, "ETHUSDT") == "accepted"

    summary = summarize(folder, jobs, models, 5.0)

    assert served_verdict(models, "BTCUSDT") == "accepted"
    assert served_verdict(models, "ETHUSDT") == "rejected"
    assert served_verdict(models, "XRPUSDT") == "accepted"
    assert summary.withdrawn == (
        "acceptance withdrawn from ETHUSDT 15m: no accepted version is left",
        "acceptance withdrawn from XRPUSDT 15m: another one is served",
    )
    assert all(line in summary.render() for line in summary.withdrawn)
    manifest = served_version(MarketFolder(models, "ETHUSDT", Timeframe.M15)).manifest
    assert manifest.gate.reasons[0].startswith("not significant among the 9 models tried: p=0.02")
    assert "sweep-1" in manifest.gate.reasons[0]


def test_summed_up_again_it_says_and_leaves_the_same(folder, models):
    jobs = [
        (job, replace(record, state=JobState.SKIPPED))
        for job, record in sweep_with_luck(folder, models)
    ]
    first = summarize(folder, jobs, models, 5.0)
    before = {path: path.stat().st_ino for path in models.rglob("meta.json")}
    again = summarize(folder, jobs, models, 5.0)

    assert again.withdrawn == first.withdrawn
    assert again.problems == ()
    assert {path: path.stat().st_ino for path in models.rglob("meta.json")} == before
    assert document(folder)["counts"] == {"skipped": 8}


def test_the_folder_of_the_curves_can_be_pasted_into_a_shell(tmp_path, models):
    folder = tmp_path / "my outputs $HOME" / "sweep-1"
    jobs = [finished(folder, models, "BTCUSDT", 0.03, 1e-7)]
    screen = " ".join(summarize(folder, jobs, models, 5.0).render(500).split("\n"))
    assert f"tensorboard --logdir '{folder.parent}'" in screen


@pytest.mark.parametrize("state", [JobState.WAITING, JobState.RUNNING, JobState.INTERRUPTED])
def test_before_every_job_had_its_turn_nothing_is_withdrawn(folder, models, state):
    jobs = [*sweep_with_luck(folder, models), ended(folder, "SOLUSDT", state, None)]

    summary = summarize(folder, jobs, models, 5.0)

    assert summary.withdrawn == ()
    assert served_verdict(models, "ETHUSDT") == "accepted"
    assert document(folder)["is_over"] is False
    assert "verdicts over the sweep are provisional" in " ".join(summary.render().split())


def test_a_model_that_was_changed_after_the_export_is_told(folder, models):
    jobs = sweep_with_luck(folder, models)
    versions = models / "per_coin" / "ETHUSDT" / ".versions" / "15m"
    (versions / jobs[1][1].result["version"] / "scaler.pkl").write_bytes(b"changed")

    summary = summarize(folder, jobs, models, 5.0)

    # Broken, it has no evaluation to be judged by, so that there is nothing to withdraw.
    broken = next(entry for entry in document(folder)["jobs"] if entry["symbol"] == "ETHUSDT")
    assert (broken["verdict"], broken["state"], broken["skill"]) == ("broken", "finished", None)
    assert "scaler.pkl was changed after the export" in broken["reasons"][0]
    assert summary.withdrawn == ()


def test_an_acceptance_that_the_registry_never_gave_is_not_withdrawn(folder, models):
    gate = Gate(StoredVerdict.REJECTED, ("leaks",))
    jobs = [
        finished(folder, models, "BTCUSDT", 0.03, 1e-7, gate=gate),
        finished(folder, models, "ETHUSDT", 0.03, 1e-7),
    ]

    summary = summarize(folder, jobs, models, 5.0)

    assert (summary.withdrawn, summary.problems) == ((), ())
    assert summary.results.jobs[0].verdict == "only alone"


def test_a_registry_that_refuses_the_withdrawal_is_named(folder, models):
    jobs = sweep_with_luck(folder, models)
    link = models / "per_coin" / "ETHUSDT" / "15m"
    target = link.readlink()
    link.unlink()
    shutil.copytree(models / "per_coin" / "ETHUSDT" / target, link)

    summary = summarize(folder, jobs, models, 5.0)

    (problem,) = summary.problems
    assert problem.startswith("the acceptance of ETHUSDT 15m could not be withdrawn: ")
    assert document(folder)["problems"] == [problem]
    assert f"PROBLEM: {problem}"[:60] in summary.render()


@pytest.mark.parametrize("result", [{}, {"version": 3}, {"version": "../../../etc"}, []])
def test_a_record_without_a_version_that_is_one_is_told(folder, models, result):
    made = job(folder, "BTCUSDT")
    summary = summarize(
        folder, [(made, JobRecord(state=JobState.FINISHED, result=result))], models, 5.0
    )

    (entry,) = summary.results.board.entries
    assert entry.status.value in ("no model", "broken")
    assert document(folder)["jobs"][0]["state"] == "finished"


def test_a_folder_that_cannot_be_written_costs_no_line_of_the_screen(folder, models):
    jobs = sweep_with_luck(folder, models)
    for name in ("report", "tensorboard"):
        (folder / name).write_text("in the way")
    (folder / "summary.json").mkdir()

    summary = summarize(folder, jobs, models, 5.0)

    assert [problem.split()[0] for problem in summary.problems] == [
        "report",
        "tensorboard",
        "summary.json",
    ]
    assert "BTCUSDT 15m" in summary.render()
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a folder of its own size")
def test_a_full_disk_leaves_the_earlier_files_whole(folder, models):
    jobs = sweep_with_luck(folder, models)
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        summarize(folder, jobs, models, 5.0)
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with (folder / "filler").open("wb", buffering=0) as filler:
            size = os.statvfs(folder)
            filler.write(bytes(size.f_bavail * size.f_frsize))
        full = summarize(folder, jobs, models, 5.0)
        after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    finally:
        subprocess.run(["umount", str(folder)], check=True)

    assert full.problems
    assert all("No space left" in problem for problem in full.problems)
    kept = {path for path in before if after.get(path) == before[path]}
    assert {path.name for path in before if path not in kept} <= {"report.md", "skills.svg"}
