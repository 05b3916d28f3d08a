import json
import os
import re
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import write_parquet
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tune_runs import Finished, run_tune
from tuning_builders import MARKET, hourly_bars

from percoin.audit.findings import FindingStatus
from percoin.audit.served import audit_served, check_manifest
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import RegistryConfig, TrainConfig, typed
from percoin.dataset import DatasetSpec, SplitSpec, build_dataset
from percoin.errors import ConfigError, InterruptedRunError
from percoin.features.feature_set import FeatureSet
from percoin.labels import FixedHorizon
from percoin.network import CnnLstm
from percoin.registry.artifact import load_artifact
from percoin.registry.command.reproduction import reproduce
from percoin.registry.layout import MarketFolder
from percoin.sweep.plan import plan_sweep
from percoin.training.folds import make_folds
from percoin.training.recipes import network
from percoin.training.version_settings import overrides_of, settings_of
from percoin.tuning import command
from percoin.tuning.studies import facts_of, open_studies, winners_of
from percoin.types import Timeframe

TRIAL = re.compile(
    r"\d\d:\d\d:\d\d trial (\d)/(\d):(?: own settings)? lr=\S+ .*: (skill|ended|failed).* left"
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> tuple[Finished, Path]:
    folder = tmp_path_factory.mktemp("tuned")
    return run_tune(folder), folder


def tune_folder(folder: Path) -> Path:
    return folder / "outputs" / "BTCUSDT" / "1h" / "tune"


def study_folder(folder: Path) -> Path:
    (found,) = (path for path in tune_folder(folder).iterdir() if path.is_dir())
    return found


def runs(folder: Path) -> list[Path]:
    """The runs that trained something, the oldest first."""
    parent = folder / "outputs" / "BTCUSDT" / "1h"
    return sorted(path.parent for path in parent.glob("*/result.json"))


def served(folder: Path):
    return load_artifact(folder / "models", "BTCUSDT", Timeframe.H1)


def winners(folder: Path) -> list[dict]:
    with open_studies(tune_folder(folder), MARKET) as studies:
        return studies.winners()


def last_command(finished: Finished) -> list[str]:
    line = next(line for line in finished.stdout.splitlines() if line.startswith("python train.py"))
    return shlex.split(line)[2:]


def only_error(finished: Finished) -> str:
    (line,) = finished.stderr.splitlines()
    return line


def test_a_search_ends_with_the_best_settings_trained_judged_and_exported(tuned):
    finished, folder = tuned
    assert (finished.code, finished.stderr) == (0, "")
    lines = [line for line in finished.stdout.splitlines() if " trial " in line[:15]]
    assert [TRIAL.fullmatch(line)[1] for line in lines] == ["1", "2", "3"]
    assert "own settings" in lines[0]
    for text in ("best of 3 trials on validation rows", "importance", "study.png", "study.db"):
        # The frame breaks a long path wherever its line ends.
        assert text.replace(" ", "") in re.sub(r"[│\s]", "", finished.stdout)
    (run,) = runs(folder)
    manifest = served(folder).manifest
    assert (manifest.config["trials"], manifest.config["looks"]) == (3, 1)
    assert manifest.config["experiment"] is None
    assert any("chosen from 3 trials on validation" in reason for reason in manifest.gate.reasons)
    record = json.loads((served(folder).folder / "metrics.json").read_text())
    assert record["evaluation"]["money"][0]["n_trials"] == 3
    assert json.loads((run / "result.json").read_text())["version"] == served(folder).folder.name


def test_the_command_that_is_shown_makes_the_model_that_was_exported(tuned):
    finished, folder = tuned
    config = typed(compose_config("train", last_command(finished)), TrainConfig)
    made = served(folder).manifest.config
    assert config.experiment is None
    for name in ("lr", "lookback", "labels", "split", "model", "trials", "looks", "epochs"):
        plain = getattr(config, name)
        assert made[name] == (vars(plain) if hasattr(plain, "__dataclass_fields__") else plain)
    assert made["choices"]["labels"] == config.labels.option


def test_the_files_of_a_search(tuned):
    finished, folder = tuned
    assert {path.name for path in folder.iterdir()} == {"data", "models", "outputs"}
    study = study_folder(folder)
    names = {path.name for path in study.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert names - events == {"study.png", "study.txt"}
    assert (study / "study.png").read_bytes().startswith(b"\x89PNG")
    assert (study / "study.txt").read_text() in finished.stdout
    curves = EventAccumulator(str(study))
    curves.Reload()
    assert set(curves.Tags()["scalars"]) == {"tune/skill", "tune/best_skill"}
    assert curves.Tags()["images"] == ["study"]
    # A plain resume=true must not take a search for an interrupted training.
    assert not list(tune_folder(folder).rglob("*.ckpt"))


def test_the_test_rows_are_later_than_anything_a_trial_saw(tuned):
    _, folder = tuned
    bars = SimulatedSource(seed=0, n_bars=1000).load("BTCUSDT", Timeframe.H1)
    own = build_dataset(
        bars,
        DatasetSpec(
            FixedHorizon(3, 0.005),
            FeatureSet(),
            8,
            SplitSpec(purge_bars=3, embargo_bars=3),
            1095,
        ),
    )
    end_time = own.bars.open_time[own.rows("test")[0]]
    (winner,) = winners(folder)
    assert winner["test"][0] >= end_time


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("evaluation=walk_forward", "folds=2")])
def test_audit_and_reproduction_leave_out_the_test_rows_that_the_search_saw(
    tmp_path, monkeypatch, words
):
    # A shorter lookback than the command's own has earlier rows, so its test part begins earlier.
    def shortest(tried):
        return min(tried, key=lambda each: each.candidate.lookback)

    monkeypatch.setattr(command, "best_of", shortest)
    words = (*words, "lookback=40", "experiment.space.labels=[]")
    finished = run_tune(tmp_path, *words)
    assert finished.code == 0
    manifest, market = served(tmp_path).manifest, ("BTCUSDT", Timeframe.H1)
    settings = settings_of(manifest)
    assert settings.lookback < 30
    bars = BarStore(tmp_path / "data" / "bars").load(*market)
    plain = make_folds(replace(settings, test_from=None), bars)
    # The printed command and a retraining are judged on the same rows.
    printed = typed(compose_config("train", last_command(finished)), TrainConfig)
    retrained = typed(compose_config("train", overrides_of(manifest)), TrainConfig)
    for again in (printed, retrained):
        assert again.test_from == settings.test_from is not None
        folds = make_folds(again, bars)
        assert sum(len(fold.rows("test")) for fold in folds) == manifest.dataset_info.test_samples
        assert folds[0].bars.open_time[folds[0].rows("test")[0]] == winners(tmp_path)[0]["test"][0]
    assert manifest.dataset_info.test_samples < sum(len(fold.rows("test")) for fold in plain)

    found = {finding.check: finding for finding in audit_served(tmp_path / "models", bars)}
    assert FindingStatus.LEAK not in {finding.status for finding in found.values()}, found
    assert "as after a search" in found["model: splits are as described"].evidence
    wanted = compose_config("registry", ["action=reproduce", f"data_dir={tmp_path / 'data'}"])
    again = reproduce(typed(wanted, RegistryConfig), MarketFolder(tmp_path / "models", *market))
    assert again.is_same, again.as_text()

    # Versions from before the setting only count their test rows.
    config = {name: value for name, value in manifest.config.items() if name != "test_from"}
    (_, *older) = check_manifest(replace(manifest, config=config), bars)
    assert {finding.status for finding in older} == {FindingStatus.OK}


@pytest.mark.parametrize("moment", ["2025-08-28", 5, "2099-01-01", "soon"])
def test_a_version_that_names_other_test_rows_than_it_was_judged_on_is_found_out(tuned, moment):
    _, folder = tuned
    manifest = served(folder).manifest
    bars = BarStore(folder / "data" / "bars").load("BTCUSDT", Timeframe.H1)
    changed = replace(manifest, config={**manifest.config, "test_from": moment})
    statuses = {finding.status for finding in check_manifest(changed, bars)}
    is_readable = moment == "2025-08-28"
    assert (FindingStatus.LEAK if is_readable else FindingStatus.CANNOT_TELL) in statuses


def test_the_same_command_again_searches_and_trains_nothing(tuned):
    _, folder = tuned
    before = (served(folder).folder, winners(folder))
    again = run_tune(folder)
    assert (again.code, again.stderr) == (0, "")
    assert "trained and judged before" in again.stdout
    assert "best of 3 trials" in again.stdout
    assert " trial 1/3" not in again.stdout
    assert (served(folder).folder, winners(folder)) == before


@pytest.mark.slow
def test_the_same_search_with_other_settings_of_the_training_trains_them(tmp_path):
    words = ("experiment.trials=1", "logger=csv")
    first = run_tune(tmp_path, *words)
    second = run_tune(tmp_path, *words, "blend=none", "costs.fee_bps=1")
    assert (second.code, second.stderr) == (0, "")
    assert "trained and judged before" not in second.stdout
    assert served(tmp_path).manifest.config["looks"] == 2
    assert "looks=2" in last_command(second)
    assert "looks=2" not in last_command(first)
    (old, new) = winners(tmp_path)
    assert (old["trial"], old["trials"]) == (new["trial"], new["trials"])
    assert "before" in run_tune(tmp_path, *words, "blend=none", "costs.fee_bps=1").stdout
    # What is asked for another registry is put there; it is the same model, so no further look.
    other = f"models_dir={tmp_path / 'other'}"
    there = run_tune(tmp_path, *words, "blend=none", "costs.fee_bps=1", models=other)
    assert there.code == 0, there.stderr
    made = load_artifact(tmp_path / "other", "BTCUSDT", Timeframe.H1).manifest
    assert made.config["looks"] == 2
    assert made.config["blend"] == "none"


def test_a_note_of_an_older_version_knows_the_same_command_again(tmp_path):
    words = ("experiment.trials=1", "logger=csv")
    assert run_tune(tmp_path, *words).code == 0
    with open_studies(tune_folder(tmp_path), MARKET) as studies:
        (study,) = studies.in_order
        (note,) = winners_of(study)
        note = {name: value for name, value in note.items() if name != "settings"}
        study.set_user_attr("winners", [note])
    assert "trained and judged before" in run_tune(tmp_path, *words).stdout


def test_a_new_study_is_another_look_and_its_trials_are_added(tmp_path):
    words = ("experiment.trials=1", "logger=csv")
    first = run_tune(tmp_path, *words)
    assert "these are the command's own settings" in first.stdout
    second = run_tune(tmp_path, *words, "experiment.restart=true")
    assert "trials of this market before: 1" in second.stdout
    assert "looks    2 chosen models at these test rows, with this one" in second.stdout
    assert {"trials=2", "looks=2"} <= set(last_command(second))
    assert [winner["trials"] for winner in winners(tmp_path)] == [1, 2]
    assert served(tmp_path).manifest.config["looks"] in {1, 2}
    assert not list(tune_folder(tmp_path).rglob("events.*"))


def test_a_search_in_which_all_fails_is_one_clear_line(tmp_path, monkeypatch):
    class Spoilt(CnnLstm):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            torch.nn.init.constant_(self.head[0].weight, torch.nan)

    monkeypatch.setattr(network, "CnnLstm", Spoilt)
    finished = run_tune(tmp_path, "experiment.space.labels=[]")
    assert finished.code == 1
    assert re.fullmatch(
        r"error: BTCUSDT 1h: all 3 trials failed, the last one because the train loss became nan "
        r"in epoch 1; .*; change the command's own settings or experiment.space, .*",
        only_error(finished),
    )
    assert finished.stdout.count(": failed: the train loss became nan") == 3
    assert not (tmp_path / "models").exists()


def test_proposed_labels_with_a_rare_class_fail_but_never_the_commands_own(tmp_path):
    words = ("experiment.min_class_share=0.33", "experiment.trials=4")
    finished = run_tune(tmp_path, *words, "experiment.space.labels=[triple_barrier]")
    assert finished.code == 0, finished.stderr
    own, *others = (line for line in finished.stdout.splitlines() if " trial " in line[:15])
    assert "own settings" in own
    assert ": skill " in own
    assert all("experiment.min_class_share=0.33 asks for more" in line for line in others)


def test_bars_that_cannot_be_trained_on_begin_no_study(tmp_path):
    finished = run_tune(tmp_path, "source.n_bars=60")
    assert finished.code == 1
    assert only_error(finished).startswith("error: BTCUSDT 1h: ")
    with open_studies(tune_folder(tmp_path), MARKET) as studies:
        assert studies.in_order == []


def write_bars(folder: Path, n_bars: int, seed: int = 0) -> tuple[str, ...]:
    bars = hourly_bars(1000, seed=seed)
    path = write_parquet(bars.slice(0, n_bars), folder / "bars" / "BTCUSDT" / "1h.parquet")
    return "source=files", f"source.path={path.parents[1]}"


def test_a_study_goes_on_with_its_own_bars_and_with_no_others(tmp_path):
    words = ("experiment.space.labels=[]",)
    before = run_tune(tmp_path, *words, "experiment.trials=1", source=write_bars(tmp_path, 800))
    assert before.code == 0, before.stderr
    after = run_tune(tmp_path, *words, "experiment.trials=2", source=write_bars(tmp_path, 1000))
    assert after.code == 0, after.stderr
    assert "goes on after 1/2" in after.stdout
    first, second = winners(tmp_path)
    assert first["test"][1] == second["test"][1]
    assert (first["trials"], second["trials"]) == (1, 2)
    changed = run_tune(tmp_path, *words, source=write_bars(tmp_path, 800, seed=1))
    assert changed.code == 1
    assert only_error(changed) == (
        "error: BTCUSDT 1h: the bars have changed since the study of these settings began; "
        "experiment.restart=true begins a new one"
    )


def test_a_study_goes_on_with_the_bars_of_the_markets_it_compares_with_and_no_others(tmp_path):
    def write(seed: int) -> tuple[str, ...]:
        other = replace(hourly_bars(1000, seed=seed), symbol="ETHUSDT")
        write_parquet(other, tmp_path / "bars" / "ETHUSDT" / "1h.parquet")
        return write_bars(tmp_path, 1000)

    words = ("experiment.trials=1", "logger=csv", "features.extra=[market]")
    words += ("features.references=[BTCUSDT,ETHUSDT]",)
    before = run_tune(tmp_path, *words, source=write(1))
    assert before.code == 0, before.stderr
    assert "trained and judged before" in run_tune(tmp_path, *words, source=write(1)).stdout
    changed = run_tune(tmp_path, *words, source=write(2))
    assert changed.code == 1
    assert "the bars have changed since the study of these settings began" in only_error(changed)
    # Studies of older versions know nothing of them, and go on.
    with open_studies(tune_folder(tmp_path), MARKET) as studies:
        (study,) = studies.in_order
        bars = {k: v for k, v in facts_of(study)["bars"].items() if k != "references"}
        study.set_user_attr("facts", {**facts_of(study), "bars": bars})
    assert run_tune(tmp_path, *words, source=write(2)).code == 0


def test_a_walk_forward_is_searched_before_its_first_test_part(tmp_path):
    words = ("evaluation=walk_forward", "folds=2", "experiment.trials=2", "trials=10", "looks=3")
    finished = run_tune(tmp_path, *words, "experiment.space.labels=[]")
    assert finished.code == 0, finished.stderr
    # What the command knows of choices before it is added to.
    assert {"trials=11", "looks=3"} <= set(last_command(finished))
    (winner,) = winners(tmp_path)
    span = SimulatedSource(seed=0, n_bars=1000).load("BTCUSDT", Timeframe.H1).open_time
    # Two of three stretches are test rows.
    share = (winner["test"][1] - winner["test"][0]) / (span[-1] - span[0])
    assert 0.55 < share < 0.7
    assert served(tmp_path).manifest.dataset_info.test_samples > 0.55 * len(span)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_two_fits_ends_the_search_in_one_line(tmp_path, monkeypatch, number):
    usual = signal.getsignal(number)
    monkeypatch.setattr(command, "measure", lambda *_: os.kill(os.getpid(), number))
    finished = run_tune(tmp_path)
    assert finished.code == 128 + number
    assert only_error(finished) == (
        f"error: BTCUSDT 1h: interrupted by {number.name} after 0 of 3 trials; "
        "the same command goes on from there"
    )
    assert signal.getsignal(number) is usual


def test_an_interrupted_training_of_the_best_goes_on_where_its_folders_were_moved(
    tmp_path, monkeypatch
):
    before, after = tmp_path / "before", tmp_path / "after"
    words = ("experiment.trials=1", "epochs=3")
    original = command.train

    def interrupted(settings, folds, run):
        shorter = replace(settings, epochs=1)
        original(shorter, folds, run)
        (run.folder / "result.json").unlink()
        raise InterruptedRunError("BTCUSDT", "1h", "interrupted by SIGTERM", "", signal_number=15)

    monkeypatch.setattr(command, "train", interrupted)
    finished = run_tune(before, *words)
    assert finished.code == 143
    assert only_error(finished) == (
        "error: BTCUSDT 1h: interrupted by SIGTERM after 1 of 1 trials; "
        "the same command goes on from there"
    )
    monkeypatch.setattr(command, "train", original)
    before.rename(after)
    finished = run_tune(after, *words)
    assert finished.code == 0, finished.stderr
    assert "epoch 2/3" in finished.stdout
    assert "epoch 1/3" not in finished.stdout
    assert len(winners(after)) == len(runs(after)) == 1
    assert not before.exists()
    again = run_tune(after, *words)
    assert again.code == 0, again.stderr
    assert f"were trained and judged before, in {runs(after)[0]}" in again.stdout


def test_what_decides_a_skill_decides_the_study():
    from tuning_builders import tuning

    def key(*overrides: str) -> str:
        settings = tuning(*overrides)
        return command.study_key(settings, settings.experiment)

    same = ("epochs=9", "trials=7", "workers=2", "experiment.trials=99", "models_dir=elsewhere")
    same += ("experiment.max_minutes=5", "experiment.restart=true", "source.attempts=1", "folds=3")
    assert key(*same) == key()
    other = ("lr=0.02", "labels.horizon=4", "experiment.epochs=2", "source.market=perp")
    other += ("experiment.space.lr=[0.001,0.01]", "evaluation=walk_forward")
    assert len({key(), *(key(word) for word in other)}) == 1 + len(other)


def test_winners_are_kept_with_their_study(tuned):
    _, folder = tuned
    with open_studies(tune_folder(folder), MARKET) as studies:
        (study,) = studies.in_order
        (winner,) = winners_of(study)
    assert winner["run"] == runs(folder)[0].name
    assert winner["trials"] == 3


def test_a_sweep_with_a_search_is_refused():
    with pytest.raises(ConfigError, match="searches one market at a time: leave out -m"):
        plan_sweep(["symbol=BTCUSDT,ETHUSDT", "experiment=tune"])
