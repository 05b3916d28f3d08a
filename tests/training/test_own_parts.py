"""Networks, losses, optimizers and schedules of the user's own."""

import dataclasses
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import make_bars
from torch.nn import functional

from percoin.audit.served import rebuild
from percoin.bars.schema import Bars
from percoin.cli import compose_config, explain
from percoin.config import RegistryConfig, TrainConfig, typed
from percoin.errors import ConfigError, InvalidArtifactError, ResumeError
from percoin.inference import Predictor
from percoin.plugins import allow_plugins
from percoin.registry.artifact import load_artifact
from percoin.registry.command.reproduction import reproduce
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest
from percoin.sweep.worker import job_key
from percoin.training.datamodule import MarketDataModule
from percoin.training.export import ModelExporter
from percoin.training.folds import make_folds
from percoin.training.lit_module import OwnTraining, SignalClassifier
from percoin.training.own_checks import check_own_parts
from percoin.training.pipeline import prepare, train
from percoin.training.recipes.network import plan_of, seeded_network
from percoin.training.run import fit
from percoin.training.run import train as train_network
from percoin.training.run_files import RunContext
from percoin.training.version_settings import overrides_of, settings_of
from percoin.types import Timeframe

FILE = Path(__file__).parent / "own_code" / "my_nets.py"
ROOT = Path(__file__).parents[2]
TINY = (
    *("symbol=BTCUSDT", "tf=1h", "lookback=8", "epochs=2", "batch_size=32", "workers=1"),
    *("blend=none", "logger=csv", "history_days=60"),
)
NET = "model._target_=my_nets.Net"
CHOICES = {"labels": "fixed_horizon", "model": "own"}


@pytest.fixture(autouse=True)
def _plugins():
    allow_plugins([str(FILE)])
    yield
    allow_plugins([])


def settings(*words: str, file: Path = FILE) -> TrainConfig:
    return typed(compose_config("train", [*TINY, f"plugins=[{file}]", *words]), TrainConfig)


@cache
def bars(symbol: str = "BTCUSDT") -> Bars:
    return make_bars(900, symbol, Timeframe.H1, seed=len(symbol))


def dataset(made: TrainConfig):
    return make_folds(made, bars())[-1]


def run(folder: Path, made: TrainConfig):
    made.models_dir = str(folder / "models")
    place = folder / "run"
    place.mkdir(exist_ok=True)
    recipe = prepare(made, lambda own: bars(own.symbol))
    return train(made, recipe, RunContext(place, CHOICES))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A registry with a model of an own network, loss, optimizer and schedule."""
    folder = tmp_path_factory.mktemp("own")
    words = ("model.width=6", "loss._target_=my_nets:focal", "loss.gamma=1.5")
    steps = ("optimizer._target_=torch.optim.SGD", "optimizer.momentum=0.9", "lr=0.01")
    schedule = ("scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR",)
    allow_plugins([str(FILE)])
    run(folder, settings(NET, *words, *steps, *schedule)).check()
    return folder


def manifest_of(folder: Path) -> Manifest:
    return load_artifact(folder / "models", "BTCUSDT", Timeframe.H1).manifest


SGD = ("optimizer._target_=torch.optim.SGD",)
REFUSED = {
    "two classes": r"answers one window with \(1, 2\), not with shape \(1, 3\); return one logit",
    "a list": r"answers one window with list",
    "not finite": r"values that are not finite before any training",
    "wrong shape": r"fails on windows of shape \(B, L, F\) = \(1, 8, 15\): RuntimeError",
    "detached": r"no gradient comes from its logits; look for a detach",
    "unused": r"no gradient reaches spare.weight, spare.bias; use them in forward",
    "deaf": r"no gradient reaches head.weight",
    "random": r"in eval mode it gives the same windows other logits each time",
    "sees the batch": r"the logits of a window change with the other windows of its batch",
    "flag buffer": r"weights cannot be kept: .*BoolStorage; register such values as buffers with",
    "reads a tensor": r"reads a tensor's values while it is made \(.*meta.*compute such numbers",
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_network_that_could_not_be_trained_or_trusted_is_refused_before(how):
    made = settings("model._target_=my_nets:Bad", f"model.how='{how}'")
    before = torch.get_rng_state()
    with pytest.raises(ConfigError, match=REFUSED[how]) as caught:
        check_own_parts(made, dataset(made))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model._target_=my_nets:Bad")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((NET, "model.wdth=3"), "unexpected keyword argument 'wdth'; it takes n_features, lookb"),
        ((NET, "model.width=-3"), "fails with n_features=15, lookback=8, width=-3: RuntimeErr"),
        ((NET, "model.width=2000000"), "model: width is 2000000, not a text, a number up to"),
        (("model._target_=my_nets:Nett",), "my_nets has no Nett; did you mean Net?"),
        (("model._target_=my_nets:NoModule",), "makes a NoModule, not a torch.nn.Module"),
        (("model._target_=others:Net",), "does not allow; add its file, such as plugins=[others"),
        ((NET, "loss._target_=my_nets:each_row"), "shape (12,), not with one number"),
        ((NET, "loss._target_=my_nets:lets_go"), "no gradient leads from its number to the logits"),
        (("optimizer._target_=torch.optim.SparseAdam",), "SparseAdam: it fails in its first step:"),
        (
            ("model._target_=my_nets:Bad", "model.how='two classes'", *SGD),
            "model._target_=my_nets:Bad: it answers one window with (1, 2)",
        ),
        (("optimizer._target_=my_nets:Broken",), "its first step: KeyError: 'momentum'; choose an"),
        (("scheduler._target_=my_nets:Stuck",), "my_nets:Stuck: it fails in its first step: Zero"),
        ((NET, "loss._target_=my_nets:takes_one"), "too many positional arguments; it takes log"),
        ((NET, "loss._target_=torch.nn.NoSuchLoss"), "torch.nn has no class NoSuchLoss"),
    ],
)
def test_what_cannot_be_made_or_called_is_said_in_one_line(words, line):
    made = settings(*words)
    market = dataset(made)
    with pytest.raises(ConfigError) as caught:
        check_own_parts(made, market)
    assert line in str(caught.value)


SCHEDULES = "torch.optim.lr_scheduler"
EACH_BATCH = "scheduler.each=batch"


@pytest.mark.parametrize(
    "words",
    [
        ("optimizer._target_=torch.optim.LBFGS",),
        (*SGD, f"scheduler._target_={SCHEDULES}.StepLR", "scheduler.step_size=1"),
        (f"scheduler._target_={SCHEDULES}.ReduceLROnPlateau",),
        (f"scheduler._target_={SCHEDULES}.OneCycleLR", "scheduler.max_lr=0.01", EACH_BATCH),
    ],
    ids=lambda words: words[-1],
)
def test_optimizers_and_schedules_that_work_pass_the_checks(words):
    made = settings(*words)
    before = torch.get_rng_state()
    check_own_parts(made, dataset(made))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("target", ["template_net.MyNet", "transformer.Transformer", "tcn.Tcn"])
def test_the_examples_pass_the_checks(target):
    file = ROOT / "examples" / f"{target.split('.')[0]}.py"
    made = settings(f"model._target_={target}", "model.width=8", file=file)
    check_own_parts(made, dataset(made))


def test_an_own_network_is_served_as_it_was_judged_and_only_by_its_very_code(trained, tmp_path):
    manifest = manifest_of(trained)
    assert (manifest.model_version, manifest.format_version) == ("own_v1", 4)
    assert dict(manifest.model.kwargs) == {"width": 6}
    assert manifest.model.source.name == "my_nets:Net"
    assert set(manifest.sources) == {"loss"}
    shown = rebuild(manifest, bars())
    answers = Predictor(trained / "models").predict_range(bars())
    rows = shown.rows("test")
    right = (answers.probabilities[rows].argmax(axis=1) == shown.label[rows]).mean()
    assert manifest.test_metrics.accuracy == pytest.approx(right, abs=1e-12)

    allow_plugins([])
    with pytest.raises(InvalidArtifactError, match=r"plugins=\[\] does not allow; add its file"):
        Predictor(trained / "models").model("BTCUSDT", Timeframe.H1)
    other = tmp_path / FILE.name
    other.write_text(FILE.read_text() + "\n# changed\n")
    allow_plugins([str(other)])
    with pytest.raises(InvalidArtifactError, match="my_nets:Net has changed since the training"):
        Predictor(trained / "models").model("BTCUSDT", Timeframe.H1)


def test_a_manifest_cannot_ask_for_a_network_that_was_not_trained(trained):
    manifest = manifest_of(trained)
    fields = [field for field in dataclasses.fields(Manifest) if field.init]
    plain = {field.name: getattr(manifest, field.name) for field in fields}

    def forged(**changes: object) -> None:
        Manifest(**plain | {"model": dataclasses.replace(manifest.model, **changes)})

    with pytest.raises(ValueError, match="its network has 1000000000 weights"):
        forged(n_weights=10**9)
    with pytest.raises(ValueError, match="width is 10000000, not a text, a number up to"):
        forged(kwargs={"width": 10**7})
    with pytest.raises(ValueError, match="source or n_weights of a cnn_lstm"):
        forged(kind="cnn_lstm", kwargs={})
    with pytest.raises(ValueError, match="source or n_weights of a own"):
        forged(source=None)
    served = load_artifact(trained / "models", "BTCUSDT", Timeframe.H1)
    wider = dataclasses.replace(manifest.model, kwargs={"width": 60_000})
    artifact = dataclasses.replace(served, manifest=Manifest(**plain | {"model": wider}))
    from percoin.inference.networks import load_network

    with pytest.raises(InvalidArtifactError, match=r"has \d+ weights, not \d+ as in the training"):
        load_network(artifact)


def test_the_settings_of_a_version_are_those_of_its_training(trained):
    manifest = manifest_of(trained)
    again = typed(compose_config("train", overrides_of(manifest)), TrainConfig)
    stored = settings_of(manifest)
    for found in (again, stored):
        assert found.targets == {
            "model": ("my_nets.Net", {"width": 6}),
            "loss": ("my_nets:focal", {"gamma": 1.5}),
            "optimizer": ("torch.optim.SGD", {"momentum": 0.9}),
            "scheduler": ("torch.optim.lr_scheduler.CosineAnnealingLR", {}),
        }
        assert found.plugins == [str(FILE)]


def test_a_job_and_a_resumed_run_know_the_source(tmp_path):
    file = tmp_path / FILE.name
    file.write_text(FILE.read_text())
    made = settings(NET, file=file)
    recipe = prepare(made, lambda own: bars())
    key = job_key(made, recipe)
    assert job_key(settings(NET, file=file), recipe) == key
    run(tmp_path, made).check()
    (tmp_path / "run" / "result.json").unlink()

    file.write_text(FILE.read_text() + "\n# changed\n")
    made = settings(NET, "resume=true", file=file)
    assert job_key(settings(NET, file=file), recipe) != key
    with pytest.raises(ResumeError, match="the code changed since"):
        run(tmp_path, made)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("optimizer._target_=torch.optim.SGD", "optimizer.momentum=0.9"),
        ("scheduler._target_=torch.optim.lr_scheduler.StepLR", "scheduler.step_size=1"),
        ("loss._target_=my_nets:Centred", "loss.share=0.1"),
    ],
)
def test_an_own_part_changes_the_training_and_goes_on_after_an_interruption(words, tmp_path):
    made, usual = settings(NET, *words), settings(NET)
    market = dataset(made)

    def trained_for(epochs: int, folder: str, resume: bool = False):
        plan = dataclasses.replace(plan_of(made), epochs=epochs)
        return train_network(market, seeded_network(made), plan, tmp_path / folder, resume=resume)

    whole = trained_for(2, "whole").module
    trained_for(1, "parts")
    resumed = trained_for(2, "parts", resume=True).module.state_dict()
    assert all(torch.equal(values, resumed[name]) for name, values in whole.state_dict().items())
    plain = fit(market, seeded_network(usual), plan_of(usual))
    ended = fit(market, seeded_network(made), plan_of(made))
    assert not torch.equal(plain.network.head.weight, ended.network.head.weight)
    assert not hasattr(ended.loss, "centre") or bool(ended.loss.centre.any())


def test_a_schedule_steps_when_it_is_told_to():
    each_epoch = settings(
        *(NET, "scheduler._target_=torch.optim.lr_scheduler.StepLR", "scheduler.step_size=1"),
        *("scheduler.gamma=0.5", "lr=0.004"),
    )
    module = fit(dataset(each_epoch), seeded_network(each_epoch), plan_of(each_epoch))
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.001)
    each_batch = settings(
        *(NET, "scheduler._target_=torch.optim.lr_scheduler.LinearLR", "scheduler.each=batch"),
        *("scheduler.start_factor=1.0", "scheduler.end_factor=0.5", "scheduler.total_iters=4"),
    )
    module = fit(dataset(each_batch), seeded_network(each_batch), plan_of(each_batch))
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0005)
    assert module.trainer.lr_scheduler_configs[0].scheduler.last_epoch == module.global_step


@pytest.mark.slow
def test_a_pool_of_an_own_network_is_fine_tuned_only_by_the_same_code(tmp_path):
    pool = settings(
        *(NET, "recipe=pooled", "symbol='BTCUSDT,ETHUSDT'", "pooled.seeds=1", "epochs=1"),
        "pooled.windows_per_epoch=400",
    )
    run(tmp_path, pool).check()
    own = ("init=pooled", "epochs=1")
    (tmp_path / "one").mkdir()
    made = settings(NET, *own)
    made.models_dir = pool.models_dir
    recipe = prepare(made, lambda _: bars())
    train(made, recipe, RunContext(tmp_path / "one", CHOICES)).check()
    served = load_artifact(tmp_path / "models", "BTCUSDT", Timeframe.H1).manifest
    assert served.model.source.name == "my_nets:Net"

    other = settings(NET, "model.width=9", *own)
    other.models_dir = pool.models_dir
    with pytest.raises(ConfigError, match=r"has model=.*repeat the settings"):
        prepare(other, lambda _: bars())


def test_fleets_and_models_without_a_network_take_none():
    def line(*words: str) -> str:
        with pytest.raises(ConfigError) as caught:
            settings(*words)
        return explain(caught.value, "train", words)

    two = ("fleet=true", "symbol='BTCUSDT,ETHUSDT'")
    assert "does not go with model=own: leave out one" in line(NET, *two)
    assert "does not go with loss._target_" in line("loss._target_=my_nets:focal", *two)
    assert line(NET, "model=cnn_lstm").startswith("model._target_ names a model of your own")
    assert "is no argument that percoin can pass on" in line(NET, "model.width={a: 1}")
    assert "is no argument that percoin can pass on" in line(NET, "model.width=nan")
    assert "loss.arguments" not in line(NET, "loss._target_=my_nets:focal", "loss.a=[[1]]")


def test_a_notebook_exports_no_training_that_it_cannot_describe(tmp_path):
    data = MarketDataModule.of(dataset(settings(NET)))
    own = OwnTraining(make_loss=lambda: functional.cross_entropy)
    for module in (SignalClassifier(own=own), SignalClassifier(seeded_network(settings(NET)))):
        with pytest.raises(ConfigError, match=r"no settings name a loss|Net comes without"):
            ModelExporter(tmp_path).check(module, data)


@pytest.mark.slow
def test_a_walk_forward_with_an_own_loss_is_reproduced_and_another_file_is_named(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ("evaluation=walk_forward", "folds=2", "loss._target_=my_nets:focal", "epochs=1")
    made = settings(NET, *words, "source=simulated")
    place = tmp_path / "outputs" / "BTCUSDT" / "1h" / "run"
    place.mkdir(parents=True)
    train(made, prepare(made), RunContext(place, CHOICES)).check()
    other = tmp_path / FILE.name
    other.write_text(FILE.read_text() + "\n# changed\n")
    found = []
    for file in (FILE, other):
        asked = ("action=reproduce", "symbol=BTCUSDT", "tf=1h", "source=simulated")
        wanted = typed(compose_config("registry", [*asked, f"plugins=[{file}]"]), RegistryConfig)
        market = MarketFolder(Path("models"), "BTCUSDT", Timeframe.H1)
        found.append(reproduce(wanted, market))
    assert [each.is_same for each in found] == [True, True]
    changed = [[one.name for one in each.changed] for each in found]
    assert changed == [[], ["own code model", "own code loss"]]


@pytest.mark.slow
def test_an_exported_network_is_served_without_its_code(tmp_path):
    pytest.importorskip("onnxruntime")
    run(tmp_path, settings(NET, "export.onnx=true", "epochs=1")).check()
    by_torch = Predictor(tmp_path / "models").predict_range(bars())
    allow_plugins([])
    by_onnx = Predictor(tmp_path / "models", backend="onnx").predict_range(bars())
    np.testing.assert_allclose(by_onnx.probabilities, by_torch.probabilities, rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["version"]
