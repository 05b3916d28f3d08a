"""The Lightning modules in a plain ``Trainer``, as in a notebook, without ``train.py``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from bf16 import needs_bf16
from builders import make_bars
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_builders import LOOKBACK, TINY, make_dataset

from percoin import Predictor
from percoin.assembly import bar_source, dataset_spec
from percoin.bars.panel import with_panel
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.dataset import DatasetSpec, build_dataset
from percoin.errors import (
    BarsNotFoundError,
    ConfigError,
    DivergedError,
    NotEnoughBarsError,
    PercoinError,
    RegistryWriteError,
    TrainingError,
)
from percoin.features.feature_set import FeatureSet
from percoin.labels import FixedHorizon, VolatilityScaled
from percoin.network import CnnLstm
from percoin.registry.artifact import load_artifact
from percoin.retrain.sources import source_of
from percoin.training import ExportToRegistry, MarketDataModule, ModelExporter, SignalClassifier
from percoin.training.export import settings_of as exported_settings
from percoin.training.export import source_settings
from percoin.training.lit_module import new_network
from percoin.training.recipes.network import network_kwargs, plan_of
from percoin.training.version_settings import settings_of
from percoin.types import Timeframe

# What Lightning tells the users of a plain trainer.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{words}")
    for words in (
        "does not have many workers",
        "smaller than the logging interval",
        "Checkpoint directory .* exists",
        "is not available but strict is set to",
        "`trainer.test",
        "You defined a `validation_step`",
        "Found .* module.s. in eval mode",
    )
]
SPEC = DatasetSpec(FixedHorizon(horizon=3, threshold=0.005), lookback=LOOKBACK)
SOURCE = SimulatedSource(seed=0, n_bars=1200, edge=0.0)
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def market() -> MarketDataModule:
    return MarketDataModule("BTCUSDT", "1h", SOURCE, SPEC)


def small_market() -> MarketDataModule:
    return MarketDataModule.of(make_dataset())


def classifier(**arguments) -> SignalClassifier:
    return SignalClassifier(new_network(0, **TINY), **arguments)


def trainer_with(folder: Path, *callbacks: pl.Callback, **arguments) -> pl.Trainer:
    checkpoints = {"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks)}
    told = {**QUIET, "max_epochs": 1, **checkpoints, **arguments}
    return pl.Trainer(default_root_dir=folder, callbacks=list(callbacks), **told)


def exporting(folder: Path) -> ExportToRegistry:
    return ExportToRegistry(ModelExporter(folder / "models"))


@pytest.fixture(scope="module")
def notebook(tmp_path_factory) -> tuple[ExportToRegistry, pl.Trainer, MarketDataModule, Path]:
    """A market that is trained, tested and exported as the README's notebook does."""
    folder = tmp_path_factory.mktemp("notebook")
    data, export = market(), exporting(folder)
    best = ModelCheckpoint(folder, monitor="loss/val")
    trainer = trainer_with(folder, best, export, max_epochs=2)
    trainer.fit(classifier(), datamodule=data)
    trainer.test(datamodule=data, ckpt_path="best", verbose=False)
    return export, trainer, data, folder


def contents(folder: Path) -> tuple[dict, dict, dict[str, torch.Tensor]]:
    manifest, metrics = (
        json.loads((folder / name).read_text()) for name in ("meta.json", "metrics.json")
    )
    return manifest, metrics, torch.load(folder / "cnn_lstm_v1.pth", weights_only=True)


def test_a_notebook_gives_the_model_and_the_figures_of_train_py_bit_for_bit(notebook, trained):
    _, other = trained
    expected = load_artifact(other / "models", "BTCUSDT", Timeframe.H1).folder
    found, wanted = contents(notebook[0].exported.version.folder), contents(expected)
    for name, tensor in wanted[2].items():
        assert torch.equal(found[2][name], tensor), name
    for key in ("scaling", "calibration", "gate", "label_rule", "features", "model", "bars"):
        assert found[0][key] == wanted[0][key], key
    figures = ("training_history", "test_metrics", "evaluation", "daily_losses", "judging")
    for key in figures:
        assert found[1][key] == wanted[1][key], key


def test_a_notebook_logs_the_test_figures_of_train_py(notebook, trained):
    (mark,) = (trained[1] / "outputs").rglob("result.json")
    events = EventAccumulator(str(mark.parent))
    events.Reload()
    logged = {name: float(value) for name, value in notebook[1].callback_metrics.items()}
    names = [name for name in events.Tags()["scalars"] if "test" in name and "result" not in name]
    assert {"loss/test", "test/accuracy", "test/f1_macro"} <= set(names)
    assert {name: events.Scalars(name)[-1].value for name in names} == {
        name: pytest.approx(logged[name], rel=1e-7) for name in names
    }


def test_what_a_notebook_exported_answers(notebook):
    export, _, data, folder = notebook
    prediction = Predictor(folder / "models").predict(data.bars)
    assert prediction.version_id == export.exported.version.folder.name


def test_the_manifest_of_a_notebook_says_how_to_train_the_same_again(notebook):
    manifest = load_artifact(notebook[3] / "models", "BTCUSDT", Timeframe.H1).manifest
    settings = settings_of(manifest)
    assert (settings.epochs, settings.batch_size, settings.lookback) == (2, 64, LOOKBACK)
    assert settings.history_days == math.ceil(1200 / 24)
    assert tuple(settings.model.channels) == TINY["channels"]


def test_the_manifest_of_a_notebook_names_the_source_for_retraining(notebook, tmp_path):
    manifest = load_artifact(notebook[3] / "models", "BTCUSDT", Timeframe.H1).manifest
    assert source_of(manifest, BarStore(tmp_path)) == (
        "source=simulated",
        "source.seed=0",
        "source.n_bars=1200",
        "source.edge=0.0",
    )


@pytest.mark.parametrize(
    "words",
    [
        ["source=store"],
        ["source=sample"],
        ["source=files", "source.path=bars"],
        ["source=simulated", "source.seed=3", "source.n_bars=10", "source.edge=0.5"],
        ["source=binance", "source.market=perp", "source.attempts=2", "source.archive_url=null"],
    ],
)
def test_a_source_is_described_by_the_settings_that_make_it(words, tmp_path):
    settings = typed(compose_config("train", ["symbol=BTCUSDT", *words]), TrainConfig).source
    described = source_settings(bar_source(settings, BarStore(tmp_path)))
    assert described == {"source": asdict(settings), "choices": {"source": settings.option}}


def test_the_markets_that_a_notebook_compares_with_are_settings_of_its_training():
    compared = ("BTCUSDT", "ETHUSDT")
    features = FeatureSet(extra=("market",), references=compared)
    bars = make_bars(600, timeframe=Timeframe.H1)
    dataset = build_dataset(
        with_panel(bars, [make_bars(600, "ETHUSDT", Timeframe.H1, seed=1)]),
        replace(SPEC, feature_set=features),
    )
    network = CnnLstm(len(dataset.feature_names), **TINY)
    described = exported_settings(SignalClassifier(network), dataset)
    assert described["features"]["references"] == list(compared)


def test_what_was_fitted_on_its_train_rows_is_fitted_again_by_its_retraining():
    rule = VolatilityScaled(3, 0.4, 50)
    dataset = build_dataset(
        make_bars(600, timeframe=Timeframe.H1), replace(SPEC, label_rule=rule, history_days=24.5)
    )
    assert dataset.label_rule.width is not None
    described = exported_settings(SignalClassifier(CnnLstm(15, **TINY)), dataset)
    assert described["labels"]["width"] is None
    words = ["symbol=BTCUSDT", "tf=1h", "labels=volatility_scaled"]
    settings = typed(compose_config("train", words), TrainConfig)
    assert described["labels"] == {
        name: value
        for name, value in asdict(settings.labels).items()
        if name in described["labels"]
    }
    assert described["history_days"] == 25
    assert type(described["history_days"]) is int


def test_a_source_of_the_users_own_is_described_by_nothing():
    assert source_settings(SimpleNamespace(load=None)) == {}
    assert source_settings(SimulatedSource(end="2020-01-01")) == {}


def test_what_a_notebook_does_not_say_is_as_in_the_config():
    settings = typed(compose_config("train", ["symbol=BTCUSDT", "tf=1h"]), TrainConfig)
    module, data, expected = SignalClassifier(), market(), plan_of(settings)
    assert (module.optimizer, module.lr, module.seed) == (
        expected.optimizer,
        expected.lr,
        expected.seed,
    )
    assert (data.batch_size, data.seed) == (expected.batch_size, expected.seed)
    spec = DatasetSpec(SPEC.label_rule, history_days=settings.history_days)
    assert spec == replace(dataset_spec(settings), split=None)
    assert spec.split_spec == dataset_spec(settings).split_spec
    assert module.network.kwargs == network_kwargs(settings.model)


def test_the_usual_module_is_the_network_that_train_py_begins_with():
    usual = SignalClassifier()
    torch.manual_seed(0)
    expected = CnnLstm(15).state_dict()
    assert all(torch.equal(usual.network.state_dict()[name], t) for name, t in expected.items())
    before = torch.random.get_rng_state()
    new_network(5, **TINY)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_export_is_a_function_that_needs_no_trainer(notebook, tmp_path):
    export, trainer, data, _ = notebook
    again = ModelExporter(tmp_path).export(trainer.lightning_module, data.dataset)
    before = export.exported.judgement.evaluation
    assert again.judgement.evaluation.to_json() == before.to_json()


def test_a_checkpoint_of_lightning_can_be_loaded_and_exported(notebook, tmp_path):
    _, trainer, data, _ = notebook
    path = trainer.checkpoint_callback.best_model_path
    loaded = SignalClassifier.load_from_checkpoint(path, network=new_network(1, **TINY))
    export = exporting(tmp_path)
    trainer_with(tmp_path, export).test(loaded, datamodule=data, verbose=False)
    weights = contents(export.exported.version.folder)[2]
    assert all(
        torch.equal(weights[name], tensor)
        for name, tensor in contents(notebook[0].exported.version.folder)[2].items()
    )


@pytest.mark.parametrize("timeframe", ["1h", Timeframe.H1])
def test_a_timeframe_may_be_text_or_the_enum(timeframe):
    data = MarketDataModule("BTCUSDT", timeframe, SOURCE, SPEC)
    assert data.market == ("BTCUSDT", "1h")
    assert data.dataset.bars.timeframe is Timeframe.H1


def test_bars_are_fetched_once_and_in_prepare_data():
    class Counted:
        n_asked = 0

        def load(self, symbol, timeframe):
            self.n_asked += 1
            return SOURCE.load(symbol, timeframe)

    source = Counted()
    data = MarketDataModule("BTCUSDT", "1h", source, SPEC)
    assert source.n_asked == 0
    data.prepare_data()
    assert source.n_asked == 1
    data.setup("fit")
    data.setup("test")
    assert len(next(iter(data.train_dataloader()))[0]) == 64
    assert source.n_asked == 1


def no_bars(folder: Path) -> None:
    MarketDataModule("BTCUSDT", "1h", BarStore(folder), SPEC).prepare_data()


def few_bars(_: Path) -> None:
    MarketDataModule("BTCUSDT", "1h", SimulatedSource(0, 60, 0.0), SPEC).setup()


def untrained(folder: Path) -> None:
    trainer_with(folder, exporting(folder)).test(classifier(), datamodule=small_market())


def fitted_on_another_market(folder: Path) -> None:
    module = classifier()
    trainer = trainer_with(folder, exporting(folder))
    trainer.fit(module, datamodule=small_market())
    trainer.test(module, datamodule=market())


def without_validation(folder: Path) -> None:
    module = classifier()
    trainer = trainer_with(folder, exporting(folder), limit_val_batches=0)
    trainer.fit(module, datamodule=small_market())
    trainer.test(module, datamodule=small_market())


def own_loaders(folder: Path) -> None:
    data = small_market()
    loaders = data.train_dataloader(), data.val_dataloader()
    trainer_with(folder, exporting(folder)).fit(classifier(), *loaders)


def other_network(folder: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(15 * LOOKBACK, 3))
    trainer_with(folder, exporting(folder)).fit(SignalClassifier(network), small_market())


def other_features(folder: Path) -> None:
    trainer_with(folder, exporting(folder)).fit(
        SignalClassifier(CnnLstm(14, **TINY)), small_market()
    )


def extra_features(folder: Path) -> None:
    """A network of 15 and data of more, without an export."""
    spec = replace(SPEC, feature_set=FeatureSet(extra=("clock",)))
    data = MarketDataModule("BTCUSDT", "1h", SOURCE, spec)
    trainer_with(folder).fit(classifier(), datamodule=data)


def other_module(folder: Path) -> None:
    trainer_with(folder, exporting(folder)).fit(BoringModel(), small_market())


def two_devices(_: Path) -> None:
    module = classifier()
    module.trainer = SimpleNamespace(world_size=2)
    module.setup("fit")


def other_bits(folder: Path) -> None:
    trainer_with(folder, precision="64-true").fit(classifier(), small_market())


def refused_folder(folder: Path) -> None:
    (folder / "models").write_text("in the way")
    trainer_with(folder, exporting(folder)).fit(classifier(), small_market())


def nan_weights(folder: Path) -> None:
    module = classifier()
    with torch.no_grad():
        module.network.head[0].weight[0, 0] = torch.nan
    trainer_with(folder, exporting(folder)).fit(module, small_market())


@pytest.mark.parametrize(
    ("mistake", "error", "words"),
    [
        (
            lambda _: MarketDataModule("btcusdt", "1h", SOURCE, SPEC),
            ConfigError,
            "did you mean symbol=BTCUSDT",
        ),
        (
            lambda _: MarketDataModule("BTCUSDT", "1w", SOURCE, SPEC),
            ConfigError,
            "tf=1w is not a timeframe; known are 1m",
        ),
        (
            lambda _: MarketDataModule("BTCUSDT", "1h", SOURCE, SPEC, batch_size=1),
            ConfigError,
            "batch_size=1: ",
        ),
        (
            lambda _: MarketDataModule(
                "BTCUSDT", "1h", SOURCE, DatasetSpec(SPEC.label_rule, lookback=3)
            ),
            ConfigError,
            "lookback=3: ",
        ),
        (
            lambda _: MarketDataModule("BTCUSDT", "1h", SimulatedSource, SPEC),
            ConfigError,
            r"has no bars: give an object such as SampleSource\(\)",
        ),
        (
            lambda _: MarketDataModule("BTCUSDT", "1h", "sample", SPEC),
            ConfigError,
            "source='sample' has no bars",
        ),
        (
            lambda _: MarketDataModule("BTCUSDT", "1h", SOURCE, SPEC.label_rule),
            ConfigError,
            "is no DatasetSpec: give",
        ),
        (no_bars, BarsNotFoundError, "BTCUSDT 1h: no bars are stored"),
        (few_bars, NotEnoughBarsError, "BTCUSDT 1h: 60 bars give "),
        (untrained, TrainingError, "has not been trained.* trainer.fit"),
        (
            fitted_on_another_market,
            TrainingError,
            "BTCUSDT 1h: the network was trained on BTCUSDT 15m",
        ),
        (without_validation, TrainingError, "with validation"),
        (own_loaders, ConfigError, "needs a MarketDataModule.* no data module"),
        (other_network, ConfigError, "and Sequential comes without"),
        (other_features, ConfigError, "takes 14 features and there are 15"),
        (extra_features, ConfigError, r"takes 15 features and there are 21: use CnnLstm\(21\)"),
        (other_module, ConfigError, "the trainer has a BoringModel"),
        (two_devices, ConfigError, "2 devices.*devices=1"),
        (other_bits, ConfigError, "precision='64-true'"),
        (refused_folder, RegistryWriteError, "cannot write to"),
        (nan_weights, DivergedError, "BTCUSDT 15m: the val loss became nan"),
        (lambda folder: exporting(folder).exported, ConfigError, "nothing has been exported yet"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path, mistake, error, words):
    with pytest.raises(error, match=words) as caught:
        mistake(tmp_path)
    assert isinstance(caught.value, PercoinError)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "models").is_dir() or not any((tmp_path / "models").rglob("meta.json"))


def test_a_network_that_was_not_trained_can_be_tested_without_an_export(tmp_path):
    trainer = trainer_with(tmp_path)
    (figures,) = trainer.test(classifier(), datamodule=small_market(), verbose=False)
    assert math.isfinite(figures["loss/test"])


def test_validation_alone_leaves_no_history(tmp_path):
    module = classifier()
    (figures,) = trainer_with(tmp_path).validate(module, datamodule=small_market(), verbose=False)
    assert math.isfinite(figures["loss/val"])
    assert module.history["val_loss"] == []


@needs_bf16
def test_callbacks_epochs_and_precision_of_the_trainer_count(tmp_path):
    class Seen(pl.Callback):
        n_epochs = 0

        def on_train_epoch_end(self, trainer, pl_module) -> None:
            self.n_epochs += 1

    seen, export, module, data = Seen(), exporting(tmp_path), classifier(), small_market()
    trainer = trainer_with(tmp_path, seen, export, max_epochs=3, precision="bf16-mixed")
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    assert seen.n_epochs == len(module.history["val_loss"]) == 3
    # Whatever it is trained in, a model is tested and served in 32 bits.
    dataset = data.dataset
    windows = torch.tensor(dataset.windows[dataset.rows("test") - dataset.lookback + 1])
    with torch.inference_mode():
        expected = module.network.eval()(windows).softmax(dim=1)
    torch.testing.assert_close(module.test_probabilities, expected, atol=1e-6, rtol=0)
    assert contents(export.exported.version.folder)[2]["head.0.weight"].dtype == torch.float32


def test_exporting_twice_makes_two_versions(tmp_path):
    export, module, data = exporting(tmp_path), classifier(), small_market()
    trainer = trainer_with(tmp_path, export)
    trainer.fit(module, datamodule=data)
    versions = set()
    for _ in range(2):
        trainer.test(module, datamodule=data, verbose=False)
        versions.add(export.exported.version.folder)
    assert len(versions) == 2
    assert all((folder / "meta.json").is_file() for folder in versions)


def test_nothing_is_exported_after_a_fast_dev_run(tmp_path):
    export, module = exporting(tmp_path), classifier()
    trainer = trainer_with(tmp_path, export, fast_dev_run=True)
    trainer.fit(module, datamodule=small_market())
    trainer.test(module, datamodule=small_market(), verbose=False)
    with pytest.raises(ConfigError, match="nothing has been exported"):
        _ = export.exported


def test_the_trainers_own_clipping_comes_first(tmp_path):
    def change(**arguments) -> float:
        module = classifier()
        before = new_network(0, **TINY).state_dict()
        trainer_with(tmp_path, **arguments).fit(module, datamodule=small_market())
        weights = dict(module.network.named_parameters())
        return max(float((weights[name] - before[name]).detach().abs().max()) for name in weights)

    # A gradient that short is lost beside the epsilon of AdamW, 1e-8.
    assert change(gradient_clip_val=1e-13) < 1e-4 < change()
