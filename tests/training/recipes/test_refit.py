"""``refit=true``: judged as ever, then trained again on all rows, which is what is served."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional
from train_runs import Finished, run_train, train_arguments

from percoin.audit.findings import FindingStatus
from percoin.audit.served import audit_served, rebuild
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import RegistryConfig, TrainConfig, typed
from percoin.dataset import MarketDataset, PreparedMarket
from percoin.evaluation.baselines import BOOSTING, VOLATILITY
from percoin.evaluation.fold_forecasts import fit_parts
from percoin.features.feature_set import compute_features
from percoin.features.scaling import Scaling
from percoin.inference import ServedModel
from percoin.inference.results import BarPart, find_parts
from percoin.registry.artifact import Artifact, load_artifact, load_version
from percoin.registry.catalogue import version_ids
from percoin.registry.command.details import read_details, show_as_text
from percoin.registry.command.reproduction import Reproduction, reproduce
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest, ScalingNumbers
from percoin.report.board import make_board
from percoin.report.reading import read_models
from percoin.serving.served_models import describe
from percoin.training.datamodule import BatchSampler
from percoin.training.lit_module import SignalClassifier, epoch_seed
from percoin.training.recipes import from_pool
from percoin.training.recipes.network import seeded_network
from percoin.training.version_settings import settings_of
from percoin.types import Timeframe

POOL = (
    "symbol=BTCUSDT,ETHUSDT,SOLUSDT",
    "recipe=pooled",
    "pooled.leave_out=[SOLUSDT]",
    "pooled.windows_per_epoch=400",
    "pooled.validation_windows=100",
    "pooled.seeds=2",
    "epochs=2",
)


def train(folder: Path, *overrides: str) -> Finished:
    done = run_train(train_arguments(folder, *overrides))
    assert (done.code, done.stderr) == (0, "")
    return done


def market(folder: Path, symbol: str = "BTCUSDT") -> MarketFolder:
    return MarketFolder(folder / "models", symbol, Timeframe.H1)


def newest(folder: Path, symbol: str = "BTCUSDT") -> Artifact:
    place = market(folder, symbol)
    return load_version(place, version_ids(place)[-1])


def bars_of(folder: Path, symbol: str = "BTCUSDT"):
    return BarStore(folder / "data" / "bars").load(symbol, Timeframe.H1)


def rebuilt(folder: Path) -> tuple[MarketDataset, MarketDataset]:
    """The twin's dataset and the refit's."""
    twin = rebuild(newest(folder).manifest, bars_of(folder))
    return twin, PreparedMarket.again(twin).without_holdout()


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def reproduced(folder: Path, symbol: str = "BTCUSDT") -> Reproduction:
    words = ["action=reproduce", f"data_dir={folder / 'data'}"]
    words.append(f"version={version_ids(market(folder, symbol))[-1]}")
    wanted = typed(compose_config("registry", words), RegistryConfig)
    return reproduce(wanted, market(folder, symbol))


@pytest.fixture(scope="module")
def refit(tmp_path_factory) -> tuple[Finished, Path]:
    folder = tmp_path_factory.mktemp("refit")
    return train(folder, "refit=true"), folder


@pytest.fixture
def judged(trained) -> Path:
    """The same training without a refit."""
    return trained[1]


def test_every_figure_is_that_of_the_same_training_without_a_refit(refit, judged):
    with_refit, without = newest(refit[1]), newest(judged)
    assert same_weights(with_refit.judged, without.state_dict)
    for name in ("test_metrics", "dataset_info", "gate", "calibration", "label_rule", "bars"):
        assert getattr(with_refit.manifest, name) == getattr(without.manifest, name), name
    assert with_refit.manifest.weights == without.manifest.weights
    assert with_refit.manifest.judged_scaling == without.manifest.scaling
    assert with_refit.move == without.move
    records = [
        json.loads((entry.folder / "metrics.json").read_text()) for entry in (with_refit, without)
    ]
    for name in ("evaluation", "judging", "training_history", "daily_losses", "hit_rate"):
        assert records[0][name] == records[1][name], name
    assert without.manifest.refit is None
    assert without.manifest.format_version < with_refit.manifest.format_version == 6


def test_the_refit_has_every_row_with_a_known_label_and_its_own_scaling(refit):
    manifest = newest(refit[1]).manifest
    twin, everything = rebuilt(refit[1])
    rows = everything.rows("train")
    # Purge and embargo split nothing any more; the newest bars have no label yet.
    assert len(rows) == rows[-1] - rows[0] + 1 > sum(map(len, vars(twin.split).values()))
    assert rows[-1] == len(twin.bars) - 1 - twin.label_rule.horizon
    assert manifest.refit.rows == len(rows)
    opened = pd.to_datetime(twin.bars.open_time[rows[[0, -1]]], unit="ms", utc=True)
    said = (manifest.refit.first_open_time, manifest.refit.last_open_time)
    assert [pd.Timestamp(text) for text in said] == list(opened)
    features = compute_features(twin.bars, twin.feature_set)[rows]
    assert manifest.scaling == ScalingNumbers.of(Scaling.fit(features))
    np.testing.assert_array_equal(everything.label, twin.label)
    record = json.loads((newest(refit[1]).folder / "metrics.json").read_text())
    counted = np.bincount(twin.label[rows], minlength=3) + 1
    np.testing.assert_allclose(
        record["train_rows"]["class_shares"], counted / counted.sum(), atol=1e-12
    )


def test_its_weights_are_those_of_a_plain_loop_over_all_rows(refit):
    artifact = newest(refit[1])
    settings, epochs = settings_of(artifact.manifest), artifact.manifest.refit.epochs
    assert epochs <= 3, "more may lower the learning rate, which stays as it is below"
    _, everything = rebuilt(refit[1])
    windows = torch.from_numpy(np.array(everything.windows))
    ends = torch.from_numpy(everything.rows("train"))
    label = torch.from_numpy(everything.label)
    network = seeded_network(settings)
    # Fused as there: Adam divides gradients that are nothing but rounding by their own size.
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=1e-5, fused=True
    )
    sampler = BatchSampler(len(ends), settings.batch_size, settings.seed)
    for epoch in range(epochs):
        network.train()
        sampler.set_epoch(epoch)
        for number, batch in enumerate(sampler):
            if number == 0:
                torch.manual_seed(epoch_seed(settings.seed, epoch))
            rows = ends[batch]
            loss = functional.cross_entropy(
                network(windows[rows - everything.lookback + 1]), label[rows]
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
    for name, values in network.state_dict().items():
        torch.testing.assert_close(artifact.state_dict[name], values, rtol=1e-4, atol=1e-5)
    assert not same_weights(artifact.state_dict, artifact.judged)


def test_the_other_parts_are_fitted_to_all_rows_too_and_keep_their_weights(refit, judged):
    artifact, twin = newest(refit[1]), newest(judged)
    _, everything = rebuilt(refit[1])
    served = {name: part for name, part in artifact.manifest.parts.items() if part.numbers}
    assert served
    expected = fit_parts(everything, served, settings_of(artifact.manifest).seed)
    for name, part in served.items():
        wanted = expected[name]
        if part.numbers.regression:
            classes = getattr(wanted.numbers, "classes", wanted.numbers)
            assert part.numbers.regression == classes, name
        if part.numbers.trees:
            assert artifact.trees[part.numbers.trees].to_json() == wanted.trees.to_json(), name
        before = twin.manifest.parts[name]
        assert part.calibration == before.calibration
        assert part.numbers != before.numbers or part.numbers.trees


def test_it_serves_the_refit_and_says_whose_the_figures_are(refit):
    done, folder = refit
    artifact = load_artifact(folder / "models", "BTCUSDT", Timeframe.H1)
    manifest = artifact.manifest
    last, test = manifest.refit.last_open_time[:10], manifest.bars.splits["test"]
    text = (
        f"refit on all rows until {last}; figures are of its twin judged on "
        f"{test.first[:10]} to {test.last[:10]}"
    )
    assert manifest.refit_text == text
    assert text in " ".join(done.stdout.replace("│", " ").split())
    assert text in show_as_text(read_details(market(folder)))
    [entry] = make_board(read_models(folder / "models")).entries
    assert text in entry.cautions
    assert describe(("BTCUSDT", Timeframe.H1), manifest)["refit"] == text
    said = json.loads((artifact.folder / "meta.json").read_text())["refit"]
    assert said["figures_of"] == "twin"
    assert said["twin_sha256"]["network"] == manifest.files["cnn_lstm_best.pth"]


def test_none_of_its_rows_is_a_forecast(refit):
    bars, manifest = bars_of(refit[1]), newest(refit[1]).manifest
    answers = ServedModel(newest(refit[1])).predict_range(bars)
    assert set(answers.part) == {BarPart.BEFORE, BarPart.TRAIN, BarPart.PURGED}
    later = pd.DatetimeIndex([bars.frame.index[-1] + bars.timeframe.timedelta])
    assert list(find_parts(later, manifest)) == [BarPart.LIVE]


def test_the_audit_knows_the_refit_from_a_leak(refit):
    findings = audit_served(refit[1] / "models", bars_of(refit[1]))
    assert {finding.status for finding in findings} == {FindingStatus.OK}
    [own] = [finding for finding in findings if "refit" in finding.check]
    assert "none of them is evidence" in own.evidence


def test_it_is_reproduced_bit_for_bit_and_so_is_its_twin(refit):
    found = reproduced(refit[1])
    assert found.is_same, found.as_text()
    assert {entry.part for entry in found.compared} >= {"weights", "weights of twin", "refit"}


@pytest.mark.slow
def test_a_run_killed_in_its_refit_goes_on_there_with_the_same_weights(
    refit, tmp_path, monkeypatch
):
    train_epoch_end, trained = SignalClassifier.on_train_epoch_end, []

    def noted(module):
        train_epoch_end(module)
        trained.append(module.twin is not None)
        if trained[-1] and os.environ.get("PERCOIN_TEST_STOPS"):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(SignalClassifier, "on_train_epoch_end", noted)
    monkeypatch.setenv("PERCOIN_TEST_STOPS", "1")
    arguments = train_arguments(tmp_path, "refit=true")
    epochs = newest(refit[1]).manifest.refit.epochs
    assert epochs == 2, "with another number this test interrupts nothing, or not in the middle"
    assert run_train(arguments).code == 128 + signal.SIGTERM
    assert not (tmp_path / "models" / "per_coin" / "BTCUSDT" / "1h").exists()
    monkeypatch.delenv("PERCOIN_TEST_STOPS")
    trained.clear()
    assert run_train([*arguments, "resume=true"]).code == 0
    # No epoch of the twin, and of the refit those that were left.
    assert trained == [True] * (epochs - 1)
    for name in ("state_dict", "judged"):
        assert same_weights(getattr(newest(tmp_path), name), getattr(newest(refit[1]), name))


@pytest.mark.parametrize("name", [VOLATILITY, BOOSTING])
def test_a_model_without_a_network_is_fitted_again(name, tmp_path):
    words = (f"model={name}", "refit=true")
    folds = ("evaluation=walk_forward", "folds=2") if name == VOLATILITY else ()
    train(tmp_path, *words, *folds)
    artifact = newest(tmp_path)
    _, everything = rebuilt(tmp_path)
    expected = fit_parts(everything, [name])[name].numbers
    [part] = artifact.manifest.parts.values()
    served = part.numbers.regression or artifact.trees[f"{name}.json"]
    assert served == expected if part.numbers.regression else served.to_json() == expected.to_json()
    assert artifact.manifest.refit.epochs is None
    assert set(artifact.manifest.refit.twin_sha256) == {name}


@pytest.fixture(scope="module")
def pooled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pooled")
    done = train(folder, *POOL, "refit=true")
    assert done.stdout.count("refit on all ") >= 1
    assert done.stdout.count(" rows of 2 markets") == 2  # the twin, and the refit once
    return folder


@pytest.mark.slow
def test_a_pool_is_trained_again_once_for_all_of_its_markets(pooled):
    markets = [newest(pooled, symbol) for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")]
    first = markets[0]
    assert not same_weights(first.state_dict, first.judged)
    for other in markets[1:]:
        assert same_weights(first.state_dict, other.state_dict)
        assert same_weights(first.judged, other.judged)
        assert other.manifest.scaling == first.manifest.scaling != first.manifest.judged_scaling
    seen = [PreparedMarket.again(rebuild(e.manifest, bars_of(pooled, e.manifest.symbol)))
            for e in markets[:2]]  # fmt: skip
    scaling = Scaling.fit_together(entry.features[entry.rows] for entry in seen)
    assert first.manifest.scaling == ScalingNumbers.of(scaling)
    findings = audit_served(
        pooled / "models", bars_of(pooled), lambda symbol: bars_of(pooled, symbol)
    )
    assert {finding.status for finding in findings} == {FindingStatus.OK}


@pytest.mark.slow
def test_a_market_of_a_pool_with_a_refit_is_reproduced(pooled):
    found = reproduced(pooled, "ETHUSDT")
    assert found.is_same, found.as_text()


@pytest.mark.slow
def test_what_begins_with_a_pool_is_judged_from_the_twin_and_served_from_the_refit(
    pooled, tmp_path
):
    folder = tmp_path / "copy"
    shutil.copytree(pooled, folder, symlinks=True)
    before = newest(folder)
    train(folder, "init=pooled", "epochs=1", "refit=true", "pooled.init_lr=0.01")
    after = newest(folder)
    assert after.manifest.pool.started_from == before.manifest.version_id
    assert after.manifest.judged_scaling == before.manifest.judged_scaling
    assert after.manifest.scaling == before.manifest.scaling
    improved = after.manifest.pool.improved
    assert same_weights(after.judged, before.judged) is not improved
    assert same_weights(after.state_dict, before.state_dict) is not improved
    settings = replace(settings_of(after.manifest), models_dir=str(folder / "models"))
    start = from_pool.find_start(settings)
    assert same_weights(start.judged, before.judged)
    assert same_weights(start.served, before.state_dict)


def test_a_fleet_has_no_refit(tmp_path):
    done = run_train(
        train_arguments(tmp_path, "fleet=true", "symbol=BTCUSDT,ETHUSDT", "refit=true")
    )
    assert done.code != 0
    assert {"fleet=true", "refit=true:"} <= set(done.stderr.split())
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("figures_of", "refit", "figures_of"),
        ("rows", 0, "no rows"),
        ("last_open_time", "2020-01-01T00:00:00Z", "ends before"),
        ("twin_sha256", {"network": "0" * 64}, "does not hold the judged twin"),
        ("epochs", None, "do not agree on a network"),
    ],
)
def test_a_manifest_whose_refit_cannot_be_is_refused(refit, name, value, words):
    manifest = newest(refit[1]).manifest
    with pytest.raises(ValueError, match=words):
        replace(manifest, refit=replace(manifest.refit, **{name: value}))
    assert Manifest.from_json(manifest.to_json(), "BTCUSDT", Timeframe.H1) == manifest


def test_the_settings_of_a_version_ask_for_its_refit_again(refit):
    assert settings_of(newest(refit[1]).manifest).refit is True
    assert typed(compose_config("train", ["symbol=BTCUSDT"]), TrainConfig).refit is False
