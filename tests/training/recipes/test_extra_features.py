"""``features.extra`` with every recipe, and relative labels of a pool: from command to answers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from train_runs import run_train, train_arguments

from percoin.audit.findings import FindingStatus
from percoin.audit.pooled import with_compared
from percoin.audit.replay import replay_market
from percoin.audit.run import audit_dataset
from percoin.audit.served import audit_served, rebuild
from percoin.bars.panel import load_panel, with_panel
from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import RegistryConfig, TrainConfig, typed
from percoin.dataset import MarketDataset
from percoin.errors import NotEnoughBarsError
from percoin.features.feature_set import FeatureSet
from percoin.inference import Backend, Predictor, ServedModel
from percoin.monitoring.drift import measure_drift
from percoin.registry.artifact import Artifact, load_artifact
from percoin.registry.command.reproduction import reproduce
from percoin.registry.judged import train_rows
from percoin.registry.layout import MarketFolder
from percoin.signals.market import SourcedBars
from percoin.signals.model import ModelSource
from percoin.signals.response import to_json
from percoin.training.version_settings import overrides_of, settings_of
from percoin.types import Signal, Timeframe

EXTRA = "features.extra=[volatility,clock,market]"
REFERENCES = ("BTCUSDT", "ETHUSDT", "XRPUSDT")
GROUPS = ("volatility", "clock", "market")
NAMES = FeatureSet(extra=GROUPS, references=REFERENCES).names(Timeframe.H1)
POOL = (
    "symbol=BTCUSDT,ETHUSDT",
    "recipe=pooled",
    *("pooled.windows_per_epoch=400", "pooled.validation_windows=100", "pooled.seeds=1"),
)
RECIPES = {
    "per_market": (("export.onnx=true",),),
    "blend": (("blend=logistic", "features=raw"),),
    "logistic": (("model=logistic",),),
    "walk_forward": (("evaluation=walk_forward", "folds=2"),),
    "tuned": (("experiment=tune", "experiment.trials=1", "experiment.epochs=1"),),
    "fleet": (("symbol=BTCUSDT,ETHUSDT", "fleet=true", "model.dropout=0"),),
    "pooled": ((*POOL, "labels=relative"),),
    "init_pooled": (POOL, ("init=pooled",)),
}


def train(folder: Path, *overrides: str):
    words = [EXTRA, *overrides]
    if all("market" in word for word in words if word.startswith("features.extra=")):
        words.append(f"features.references=[{','.join(REFERENCES)}]")
    return run_train(train_arguments(folder, *words))


# Two in every run; the others are as long, and take the same paths through most of the code.
QUICK = ("per_market", "pooled")


@pytest.fixture(
    scope="module",
    params=[
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES
    ],
)
def folder(request, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    for overrides in RECIPES[request.param]:
        finished = train(made, *overrides)
        assert (finished.code, finished.stderr) == (0, "")
    return made


def served(folder: Path) -> Artifact:
    return load_artifact(folder / "models", "BTCUSDT", Timeframe.H1)


def stored(folder: Path, symbol: str = "BTCUSDT") -> Bars:
    return BarStore(folder / "data" / "bars").load(symbol, Timeframe.H1)


def at_hand(folder: Path) -> Bars:
    """The stored bars, as a prediction has them."""
    bars, store = stored(folder), BarStore(folder / "data" / "bars")
    return SourcedBars(bars, store).beside(served(folder).manifest.references)


def rebuilt(folder: Path) -> MarketDataset:
    manifest = served(folder).manifest
    return rebuild(
        manifest, with_compared(manifest, stored(folder), lambda name: stored(folder, name))
    )


def test_the_artifact_says_which_columns_it_takes(folder):
    manifest = served(folder).manifest
    record = json.loads((served(folder).folder / "metrics.json").read_text())
    assert manifest.features.names == NAMES
    assert manifest.features.extra == GROUPS
    assert manifest.features.references == REFERENCES
    assert tuple(manifest.bars.references) == REFERENCES
    assert manifest.format_version == 5
    n_features = len(NAMES)
    assert (manifest.num_features, manifest.dataset_info.num_features) == (n_features, n_features)
    assert len(manifest.scaling.mean) == n_features
    assert record["dataset_info"]["feature_names"] == list(NAMES)
    assert list(record["train_rows"]["feature_bins"]) == list(NAMES)
    if manifest.has_network:
        assert served(folder).state_dict["convolution.0.weight"].shape[1] == n_features


def test_serving_gives_what_was_measured(folder):
    found = served(folder)
    dataset = rebuilt(folder)
    if found.manifest.config["evaluation"] == "walk_forward":
        # The figures are those of all folds; the served network is that of the newest.
        return
    rows, probabilities = ServedModel(found).probabilities(at_hand(folder))
    by_row = dict(zip(rows.tolist(), probabilities, strict=True))
    losses = [-np.log(by_row[row][dataset.label[row]]) for row in dataset.rows("test").tolist()]
    record = json.loads((found.folder / "metrics.json").read_text())
    assert np.mean(losses) == pytest.approx(record["test_metrics"]["log_loss"], abs=1e-6)


def test_a_replay_of_live_answers_differs_nowhere_and_the_audit_finds_no_leak(folder):
    bars = at_hand(folder)
    backends = [Backend.TORCH]
    if "cnn_lstm_v1.onnx" in served(folder).manifest.files:
        backends.append(Backend.ONNX)
    for backend in backends:
        replay = replay_market(folder / "models", bars, 25, backend)
        assert len(replay.compared) == 25
        assert replay.differing == []
    findings = audit_served(folder / "models", bars, lambda name: stored(folder, name))
    assert {finding.status for finding in findings} <= {FindingStatus.OK, FindingStatus.CONSTANT}
    by_check = {finding.check: finding.status for finding in findings}
    assert by_check["model: scaler knows train only"] is FindingStatus.OK


def test_one_market_among_many_has_the_answer_of_one_alone(folder):
    predictor, bars = Predictor(folder / "models"), at_hand(folder)
    alone = predictor.predict(bars)
    [together, again] = predictor.predict_many([bars, bars])
    assert together.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    assert again.probabilities == pytest.approx(alone.probabilities, abs=1e-6)


def test_an_answer_names_the_market_that_it_lacks(folder):
    model = ModelSource(Predictor(folder / "models"), require_accepted=False)
    bars = stored(folder)
    passed = model.answer(SourcedBars(bars))
    assert passed.reason == "insufficient_data"
    assert passed.detail.startswith("BTCUSDT 1h: the market ETHUSDT, which it is compared with, is")
    behind = with_panel(bars, [stored(folder, "ETHUSDT"), stored(folder, "XRPUSDT").slice(0, -1)])
    with pytest.raises(NotEnoughBarsError, match="the market XRPUSDT, which the model compares"):
        Predictor(folder / "models").predict(behind)


def test_a_relative_signal_says_so_and_has_no_levels(folder):
    bars, manifest = at_hand(folder), served(folder).manifest
    model = ModelSource(Predictor(folder / "models"), require_accepted=False)
    answers = []
    for n_bars in range(len(bars) - 30, len(bars)):
        answers.append(model.answer(SourcedBars(bars.slice(0, n_bars))))
    directions = [answer for answer in answers if answer.signal is not Signal.NO_TRADE]
    content = to_json(answers[-1], bars, answers[-1].ts)
    assert content["labels"] == manifest.label_rule["kind"]
    if manifest.label_rule["kind"] == "relative":
        assert content["compared_with"] == manifest.label_rule["markets"] == ["BTCUSDT", "ETHUSDT"]
        assert directions
        assert all(answer.levels is None for answer in answers)
        record = json.loads((served(folder).folder / "metrics.json").read_text())
        assert {curve["n_legs"] for curve in record["evaluation"]["money"][:-1]} == {2}
        assert record.get("levels_reached") is None
    else:
        assert content["compared_with"] is None
        assert all(answer.levels is not None for answer in directions)


def test_drift_is_measured_in_every_column(folder):
    manifest = served(folder).manifest
    bins = train_rows(folder / "models", manifest).feature_bins
    assert tuple(bins) == NAMES

    def later_of(symbol: str) -> Bars:
        """The same bars once more, after those that the model knows."""
        bars = stored(folder, symbol)
        index = bars.frame.index + len(bars) * Timeframe.H1.timedelta
        return replace(bars, frame=bars.frame.set_index(index))

    later = load_panel(later_of("BTCUSDT"), REFERENCES, later_of)
    ready = {name: replace(known, furthest=0.2) for name, known in bins.items()}
    drift = measure_drift(manifest, ready, later)
    assert tuple(drift.shifts) == NAMES
    assert all(np.isfinite(shift.psi) for shift in drift.shifts.values())


def test_a_training_that_repeats_the_version_has_its_columns(folder):
    manifest = served(folder).manifest
    assert settings_of(manifest).features.extra == list(GROUPS)
    assert settings_of(manifest).features.references == list(REFERENCES)
    words = [word for word in overrides_of(manifest) if not word.startswith("init=")]
    again = typed(compose_config("train", words), TrainConfig)
    assert again.features == settings_of(manifest).features


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (("blend=logistic",), "regression"),
        pytest.param((*POOL, "labels=relative"), "combination", marks=pytest.mark.slow),
    ],
)
def test_a_version_is_reproduced_bit_for_bit(tmp_path, monkeypatch, overrides, part):
    assert train(tmp_path, "epochs=1", *overrides).code == 0
    monkeypatch.chdir(tmp_path)
    source = ["source=simulated", "source.n_bars=1200"]
    wanted = typed(
        compose_config("registry", ["action=reproduce", "symbol=BTCUSDT", "tf=1h", *source]),
        RegistryConfig,
    )
    found = reproduce(wanted, MarketFolder(tmp_path / "models", "BTCUSDT", Timeframe.H1))
    assert found.is_same
    assert {entry.part for entry in found.compared} >= {"weights", "scaling", part}


def test_the_audit_looks_at_the_extra_columns_too(tmp_path):
    assert train(tmp_path, "model=logistic").code == 0
    dataset = rebuilt(tmp_path)
    found = {finding.check: finding for finding in audit_dataset(dataset, n_cuts=5)}
    assert found["features look back only"].evidence.startswith(
        f"{len(NAMES)} features are the same"
    )
    assert FindingStatus.LEAK not in {finding.status for finding in found.values()}


@pytest.mark.slow
@pytest.mark.parametrize("pooled", [EXTRA, "features.extra=[]"])
def test_a_pooled_model_is_not_begun_with_under_other_columns(tmp_path, pooled):
    assert train(tmp_path, *POOL, pooled, "epochs=1").code == 0
    others = {"[]", "[volatility]", "[volatility,clock]"} - {pooled.partition("=")[2]}
    for other in others:
        finished = train(tmp_path, "init=pooled", f"features.extra={other}")
        assert finished.code == 2
        [line] = finished.stderr.splitlines()
        assert " has features.extra=[" in line
        assert "repeat the settings that it was trained with" in line


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("[moon]", "features.extra names 'moon'; this percoin knows volatility, clock, market"),
        ("[clock,clock]", "features.extra=['clock', 'clock'] names a group twice"),
    ],
)
def test_a_group_that_there_is_not_is_one_line_before_any_work(tmp_path, extra, words):
    finished = train(tmp_path, f"features.extra={extra}")
    assert finished.code != 0
    [line] = finished.stderr.splitlines()
    assert words in line
    assert not (tmp_path / "outputs").exists()


def test_too_few_bars_for_the_longest_span_say_how_many_it_takes(tmp_path):
    finished = train(tmp_path, "source.n_bars=170")
    assert finished.code == 1
    assert "lookback=8 takes at least " in finished.stderr
