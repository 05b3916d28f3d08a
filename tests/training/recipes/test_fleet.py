"""``train.py fleet=true``: from the command to the registry."""

import errno
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import write_parquet
from train_runs import Finished, run_train, train_arguments

from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config, explain
from percoin.config import RegistryConfig, TrainConfig, typed
from percoin.errors import ConfigError, RegistryWriteError, VersionRefusedError
from percoin.evaluation.gate import Outcome, control_false_discoveries
from percoin.inference import Predictor
from percoin.registry.artifact import Artifact, load_artifact
from percoin.registry.catalogue import version_ids
from percoin.registry.command import reproduction
from percoin.registry.command.reproduction import Reproduction, reproduce
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import StoredVerdict
from percoin.run_folder import run_dir
from percoin.sweep.plan import plan_sweep
from percoin.training import markets as trained_markets
from percoin.training import publishing
from percoin.training.fleet_steps import FleetSteps
from percoin.training.version_settings import overrides_of, settings_of
from percoin.types import Timeframe

MARKETS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
FLEET = ("fleet=true", f"symbol={','.join(MARKETS)}")


def train_fleet(folder: Path, *overrides: str, **source) -> Finished:
    return run_train(train_arguments(folder, *FLEET, *overrides, **source))


def artifact(folder: Path, symbol: str) -> Artifact:
    return load_artifact(folder / "models", symbol, Timeframe.H1)


def record(folder: Path, symbol: str) -> dict:
    return json.loads((artifact(folder, symbol).folder / "metrics.json").read_text())


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "outputs" / "fleet" / "1h").iterdir()
    return found


def only_error(finished: Finished) -> str:
    (line,) = finished.stderr.splitlines()
    return line


def refuse_to_publish(monkeypatch) -> None:
    """The first two of the markets cannot be saved."""
    publish = trained_markets.publish

    def refused(fitted, *args):
        if fitted.symbol == MARKETS[0]:
            raise RegistryWriteError(MARKETS[0], "1h", "no room", "make some")
        if fitted.symbol == MARKETS[1]:
            raise MemoryError
        return publish(fitted, *args)

    monkeypatch.setattr(trained_markets, "publish", refused)


def signal_after_publishing(monkeypatch) -> None:
    """SIGTERM comes while the first market is saved."""
    publish = trained_markets.publish

    def signalled(*args):
        exported = publish(*args)
        os.kill(os.getpid(), signal.SIGTERM)
        return exported

    monkeypatch.setattr(trained_markets, "publish", signalled)


def accept_every_market(monkeypatch, p_value: float) -> None:
    """The gate accepts whatever it is asked about."""
    judge_folds = publishing.judge_folds

    def accepted(folds, rules):
        judgement = judge_folds(folds, rules)
        verdict = replace(judgement.evaluation.verdict, outcome=Outcome.ACCEPTED, p_value=p_value)
        return replace(judgement, evaluation=replace(judgement.evaluation, verdict=verdict))

    monkeypatch.setattr(publishing, "judge_folds", accepted)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> tuple[Finished, Path]:
    """Without dropout, so that separate trainings have the same to come to."""
    folder = tmp_path_factory.mktemp("fleet")
    return train_fleet(folder, "model.dropout=0", "logger=csv"), folder


def test_one_command_leaves_a_judged_model_of_every_market(fleet):
    finished, folder = fleet
    assert (finished.code, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    assert sum(" models  mean val_loss " in line and " left" in line for line in lines) == 2
    assert any(line.startswith("fleet: mean skill ") for line in lines)
    assert "in training" not in finished.stdout
    result = json.loads((run_folder(folder) / "result.json").read_text())
    assert (tuple(result["markets"]), result["failed"]) == (MARKETS, {})
    for symbol, entry in result["markets"].items():
        assert sum(line.startswith(f"{symbol} ") and "[" in line for line in lines) == 1
        found = artifact(folder, symbol)
        assert entry["version"] == found.manifest.version_id
        assert entry["verdict"] == found.manifest.gate.verdict.value
        assert found.manifest.gate.reasons
        own = run_folder(folder) / "markets" / symbol
        files = {path.name for path in own.iterdir()}
        assert {"figures", "evaluation.txt", "summary.txt", "result.json", "csv"} <= files
        assert json.loads((own / "result.json").read_text())["version"] == entry["version"]
        assert "loss/val" in next(own.rglob("metrics.csv")).read_text()
        history = json.loads((found.folder / "metrics.json").read_text())["training_history"]
        assert [len(values) for values in history.values()] == [2, 2, 2, 2]


def test_every_market_answers(fleet):
    _, folder = fleet
    predictor = Predictor(folder / "models")
    for symbol in MARKETS:
        bars = BarStore(folder / "data" / "bars").load(symbol, Timeframe.H1)
        said = predictor.predict(bars)
        assert sum(said.probabilities) == pytest.approx(1)
        assert said.model_version == "cnn_lstm_v1"


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    arguments = train_arguments(folder, f"symbol={MARKETS[1]}", "model.dropout=0", "logger=csv")
    assert run_train(arguments).code == 0
    return folder


def test_a_market_of_a_fleet_is_described_and_judged_as_one_trained_alone(fleet, alone):
    folder, symbol = fleet[1], MARKETS[1]
    ours, single = artifact(folder, symbol).manifest, artifact(alone, symbol).manifest
    assert ours.config["fleet"] is True
    differing = {"fleet", "logger", "data_dir", "models_dir", "outputs_dir"}
    assert {n: v for n, v in ours.config.items() if n not in differing} == {
        n: v for n, v in single.config.items() if n not in differing
    }
    for part in ("scaling", "bars", "label_rule", "dataset_info", "features", "model", "pool"):
        assert getattr(ours, part) == getattr(single, part), part
    one, other = record(folder, symbol), record(alone, symbol)
    assert one.keys() == other.keys() | {"fleet"}
    assert one["evaluation"].keys() == other["evaluation"].keys()
    for name, values in other["training_history"].items():
        # A row or two may fall on the other side of a tie.
        close = 5e-3 if name.endswith("acc") else 1e-3
        assert one["training_history"][name] == pytest.approx(values, abs=close), name
    assert one["test_metrics"]["log_loss"] == pytest.approx(
        other["test_metrics"]["log_loss"], abs=1e-3
    )


def test_acceptances_must_stand_among_all_of_the_fleet(tmp_path, monkeypatch):
    accept_every_market(monkeypatch, 0.01)
    asked = []

    def none_stands(p_values):
        asked.append(set(p_values))
        return dict.fromkeys(control_false_discoveries(p_values), False)

    monkeypatch.setattr("percoin.training.false_discoveries.control_false_discoveries", none_stands)
    two = MARKETS[:2]
    finished = train_fleet(
        tmp_path, "epochs=1", "logger=csv", "blend=logistic", f"symbol={','.join(two)}"
    )
    assert (finished.code, asked) == (0, [set(two)])
    for symbol in two:
        assert artifact(tmp_path, symbol).manifest.gate.verdict.value != "accepted"
        # What is computed of the network alone comes with it.
        assert artifact(tmp_path, symbol).manifest.blend is not None


def two_sources(folder: Path) -> tuple[str, ...]:
    for symbol, n_bars in (("BTCUSDT", 900), ("ETHUSDT", 60)):
        bars = SimulatedSource(n_bars=n_bars).load(symbol, Timeframe.H1)
        write_parquet(bars, folder / "bars" / symbol / "1h.parquet")
    return ("source=files", f"source.path={folder / 'bars'}")


def test_markets_without_bars_or_with_too_few_are_named_and_the_others_are_trained(tmp_path):
    finished = train_fleet(tmp_path, "epochs=1", "logger=csv", source=two_sources(tmp_path))
    assert finished.code == 1
    line = only_error(finished)
    assert line.startswith("error: 2 of 3 markets have no new model: ETHUSDT (")
    assert "SOLUSDT (" in line
    assert line.endswith("; the others have one")
    assert [word in finished.stdout for word in ("FAILED ETHUSDT: ", "FAILED SOLUSDT: ")] == [
        True,
        True,
    ]
    assert artifact(tmp_path, "BTCUSDT").manifest.gate.reasons
    assert [path.name for path in (tmp_path / "models" / "per_coin").glob("*/1h")] == ["1h"]


def test_a_fleet_without_any_market_to_train_says_so(tmp_path):
    source = two_sources(tmp_path)
    finished = train_fleet(tmp_path, "symbol=ETHUSDT,SOLUSDT", "logger=csv", source=source)
    assert finished.code == 1
    assert only_error(finished).startswith("error: 2 of 2 markets have no new model: ETHUSDT (")
    assert not (tmp_path / "models" / "per_coin" / "ETHUSDT" / "1h").exists()


def test_a_market_whose_export_fails_does_not_stop_the_rest(tmp_path, monkeypatch):
    refuse_to_publish(monkeypatch)
    finished = train_fleet(tmp_path, "epochs=1", "logger=csv")
    assert finished.code == 1
    assert only_error(finished) == (
        "error: 2 of 3 markets have no new model: BTCUSDT (no room; make some), ETHUSDT (memory "
        "ran out (MemoryError); give it more memory, or use a smaller batch_size, lookback or "
        "history_days); the others have one"
    )
    assert artifact(tmp_path, MARKETS[2]).manifest.version_id


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_training_ends_it_in_one_line(tmp_path, monkeypatch, number):
    step, taken = FleetSteps._step, []

    def signalled(*args):
        taken.append(1)
        if len(taken) == 1:
            os.kill(os.getpid(), number)
        return step(*args)

    monkeypatch.setattr(FleetSteps, "_step", signalled)
    finished = train_fleet(tmp_path, "logger=csv")
    assert (finished.code, len(taken)) == (128 + number, 1)
    assert only_error(finished) == (
        f"error: fleet of 3 markets 1h: interrupted by {number.name}; no finished epoch is kept; "
        "start again"
    )
    assert not (tmp_path / "models" / "per_coin" / MARKETS[0] / "1h").exists()


@pytest.mark.slow
def test_a_signal_between_two_markets_leaves_the_first_whole(tmp_path, monkeypatch):
    signal_after_publishing(monkeypatch)
    finished = train_fleet(tmp_path, "epochs=1", "logger=csv")
    assert finished.code == 143
    assert "the same command with resume=true goes on from it" in only_error(finished)
    assert artifact(tmp_path, MARKETS[0]).manifest.gate.reasons
    assert not (tmp_path / "models" / "per_coin" / MARKETS[1] / "1h").exists()
    monkeypatch.undo()
    resumed = train_fleet(tmp_path, "epochs=1", "logger=csv", "resume=true")
    assert (resumed.code, resumed.stderr) == (0, "")
    assert f"{MARKETS[0]} was judged before the interruption" in resumed.stdout
    assert f"{MARKETS[1]}, market 2 of 3" in resumed.stdout
    assert " models  mean val_loss " not in resumed.stdout
    assert len(version_ids(market(tmp_path, MARKETS[0]))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("p_value", [0.04, 1e-6])
def test_an_acceptance_that_was_not_held_against_the_others_does_not_survive_an_interruption(
    tmp_path, monkeypatch, p_value
):
    accept_every_market(monkeypatch, p_value)
    with pytest.MonkeyPatch.context() as patch:
        signal_after_publishing(patch)
        assert train_fleet(tmp_path, "epochs=1", "logger=csv").code == 143
    # By Benjamini and Yekutieli the best of three may have p up to the rate / 5.5.
    stands = p_value < 0.01
    gate = artifact(tmp_path, MARKETS[0]).manifest.gate
    assert (gate.verdict is StoredVerdict.ACCEPTED) == stands
    assert gate.reasons[0].startswith("not significant among the 3 models tried") != stands
    resumed = train_fleet(tmp_path, "epochs=1", "logger=csv", "resume=true")
    assert (resumed.code, resumed.stderr) == (0, "")
    # Judged again if its acceptance was withdrawn: among all three it might have stood.
    assert (f"{MARKETS[0]} was judged before the interruption" in resumed.stdout) == stands
    for symbol in MARKETS:
        gate = artifact(tmp_path, symbol).manifest.gate
        assert (gate.verdict is StoredVerdict.ACCEPTED) == stands


def test_an_acceptance_whose_result_cannot_be_written_counts_among_the_others(
    tmp_path, monkeypatch
):
    def full(folder: Path, *args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "result.json"))

    accept_every_market(monkeypatch, 0.04)
    monkeypatch.setattr(trained_markets, "write_market_result", full)
    finished = train_fleet(tmp_path, "epochs=1", "logger=csv")
    assert finished.code == 1
    assert only_error(finished).startswith("error: fleet of 3 markets 1h: cannot write to ")
    gate = artifact(tmp_path, MARKETS[0]).manifest.gate
    assert gate.reasons[0].startswith("not significant among the 3 models tried")


def market(folder: Path, symbol: str) -> MarketFolder:
    return MarketFolder(folder / "models", symbol, Timeframe.H1)


def reproduced(folder: Path, symbol: str, *overrides: str) -> Reproduction:
    words = [f"symbol={symbol}", "tf=1h", f"data_dir={folder / 'data'}", *overrides]
    wanted = typed(compose_config("registry", ["action=reproduce", *words]), RegistryConfig)
    return reproduce(wanted, market(folder, symbol))


@pytest.fixture(scope="module")
def dropping(tmp_path_factory) -> Path:
    """With dropout, which is drawn for all markets at once."""
    folder = tmp_path_factory.mktemp("dropping")
    step, taken = FleetSteps._step, []

    def counted(*args):
        taken.append(1)
        return step(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FleetSteps, "_step", counted)
        words = ("model.dropout=0.3", "logger=csv", "workers=1", "epochs=3")
        assert train_fleet(folder, *words).code == 0
    (folder / "n_steps").write_text(str(len(taken)))
    return folder


def test_a_market_of_a_fleet_is_reproduced_by_training_the_fleet_again(dropping):
    found = reproduced(dropping, MARKETS[1])
    assert found.is_same, found.as_text()
    assert {entry.part for entry in found.compared} >= {"weights", "calibration"}


def test_a_fleet_whose_other_markets_have_other_bars_is_not_reproduced_and_names_them(
    dropping, tmp_path
):
    shutil.copytree(dropping, tmp_path, symlinks=True, dirs_exist_ok=True)
    store = BarStore(tmp_path / "data" / "bars")
    bars = store.load(MARKETS[2], Timeframe.H1)
    frame = bars.frame.copy()
    frame.iloc[900, frame.columns.get_loc("volume")] *= 1.001
    store.write(replace(bars, frame=frame))
    with pytest.raises(VersionRefusedError, match=f"trained together with {MARKETS[2]}, whose"):
        reproduced(tmp_path, MARKETS[1])


def test_a_version_of_a_fleet_that_names_no_others_is_not_reproduced_and_says_why(
    dropping, monkeypatch
):
    record = reproduction._record
    monkeypatch.setattr(
        reproduction, "_record", lambda *args: {**record(*args), "fleet": {"BTCUSDT": 1}}
    )
    with pytest.raises(VersionRefusedError, match="does not name the other markets"):
        reproduced(dropping, MARKETS[1])


@pytest.mark.slow
def test_a_fleet_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(
    dropping, tmp_path, monkeypatch
):
    words = ("model.dropout=0.3", "logger=csv", "workers=1", "epochs=3")
    step, taken = FleetSteps._step, []
    n_steps = int((dropping / "n_steps").read_text())

    def killed(*args):
        taken.append(1)
        # In the middle of the third epoch.
        if len(taken) == n_steps * 5 // 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args)

    monkeypatch.setattr(FleetSteps, "_step", killed)
    assert train_fleet(tmp_path, *words).code == 143
    monkeypatch.undo()
    resumed = train_fleet(tmp_path, *words, "resume=true")
    assert (resumed.code, resumed.stderr) == (0, "")
    assert [f"epoch {n}/3  3 models" in resumed.stdout for n in (1, 2, 3)] == [False, False, True]
    for symbol in MARKETS:
        ours, whole = artifact(tmp_path, symbol), artifact(dropping, symbol)
        for name, weights in whole.state_dict.items():
            assert torch.equal(ours.state_dict[name], weights), name
        assert (
            record(tmp_path, symbol)["training_history"]
            == (record(dropping, symbol)["training_history"])
        )


def test_a_market_of_a_fleet_is_trained_again_alone(fleet):
    manifest = artifact(fleet[1], MARKETS[1]).manifest
    again = settings_of(manifest)
    assert (again.fleet, again.symbols, again.model.dropout) == (False, (MARKETS[1],), 0)
    assert not any(word.startswith("fleet") for word in overrides_of(manifest))


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        typed(compose_config("train", overrides), TrainConfig)
    return explain(caught.value, "train", overrides)


@pytest.mark.parametrize(
    "option",
    [
        "recipe=pooled",
        "init=pooled",
        "model=logistic",
        "experiment=tune",
        "evaluation=walk_forward",
        "windows_per_epoch=64",
        "optimizer.averaging=0.9",
    ],
)
def test_what_a_fleet_does_not_know_is_refused_by_name(option):
    line = refusal("fleet=true", "symbol='BTCUSDT,ETHUSDT'", option)
    assert line.startswith("fleet=true trains a network from scratch for each market")
    assert f"does not go with {option}: leave out one of the two" in line


def test_a_fleet_names_each_market_once_as_the_exchange_does():
    assert refusal("fleet=true", "symbol='BTCUSDT,BTCUSDT'") == "symbol names BTCUSDT twice"
    assert refusal("fleet=true", "symbol='BTCUSDT,eth'").startswith("symbol='eth' is not a market")
    assert "fleet=true to do the same at once on a GPU" in refusal("symbol='BTCUSDT,ETHUSDT'")


def test_a_fleet_is_no_sweep():
    with pytest.raises(ConfigError, match=r"fleet=true .* is no sweep: leave out -m"):
        plan_sweep(["fleet=true", "symbol=BTCUSDT,ETHUSDT"])


def test_the_runs_of_fleets_lie_in_one_folder(tmp_path):
    for symbol in ("BTCUSDT,ETHUSDT", "BTCUSDT"):
        folder = Path(run_dir(str(tmp_path), symbol, "15m", resume=False, fleet=True))
        assert folder.parent == tmp_path / "fleet" / "15m"
