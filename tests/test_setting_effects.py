"""Each setting of a training says what it affects; resuming, sweeps and retraining go by that."""

import copy
from dataclasses import fields, is_dataclass
from functools import cache
from types import SimpleNamespace

import pytest

from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.config.effects import effects_of, names_with, settings_with
from percoin.config.fields import OF_THE_MODEL, OF_THE_RUN, Effect
from percoin.config.structure import leaves_of
from percoin.errors import ConfigError, ResumeError
from percoin.sweep.plan import plan_sweep
from percoin.sweep.worker import job_key
from percoin.training.run_files import check_resumable, plain_settings
from percoin.tuning.command import study_key

BARS = {"BTCUSDT": {"sha256": "0"}}
# Every option whose settings are tried.
CHOICES = [
    ("source=simulated", "labels=fixed_horizon", "model=cnn_lstm"),
    ("source=binance", "labels=triple_barrier", "model=cnn_lstm"),
    ("source=files", "labels=volatility_scaled", "model=logistic"),
]
LEAVES = {leaf.name: leaf for leaf in leaves_of(TrainConfig)}


@cache
def _settings(words: tuple[str, ...]) -> TrainConfig:
    path = ["source.path=bars"] if "source=files" in words else []
    return typed(compose_config("train", ["symbol=BTCUSDT", *words, *path]), TrainConfig)


def settings(*words: str) -> TrainConfig:
    return copy.deepcopy(_settings(words))


def names_in(config, prefix: str = "") -> list[str]:
    found = []
    for entry in fields(config):
        value = getattr(config, entry.name)
        inner = names_in(value, f"{prefix}{entry.name}.") if is_dataclass(value) else None
        # Arguments of objects that nothing names.
        found += [] if value == {} else [f"{prefix}{entry.name}"] if inner is None else inner
    return found


def changed(config: TrainConfig, name: str) -> TrainConfig:
    """The same settings with another value of one, whatever it may be."""
    other = copy.deepcopy(config)
    *groups, leaf = name.split(".")
    group = other
    for key in groups:
        group = getattr(group, key)
    setattr(group, leaf, "torch.optim.SGD" if leaf == "_target_" else "something else")
    return other


ALL = [(words, name) for words in CHOICES for name in names_in(_settings(words))]


def resumes(before: TrainConfig, after: TrainConfig, folder, bars=BARS) -> bool:
    """Whether a run that was interrupted under ``before`` goes on under ``after``."""
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    facts = [{"config": plain_settings(one, {}), "bars": BARS} for one in (before, after)]
    facts[1]["bars"] = bars
    before.resume = False
    check_resumable(before, folder, facts[0])
    asked = copy.copy(after)
    asked.resume, asked.tf, asked.symbol = True, before.tf, before.symbol
    try:
        check_resumable(asked, folder, facts[1])
    except ResumeError:
        return False
    return True


def key(config: TrainConfig) -> str:
    return job_key(config, SimpleNamespace(datasets=(), begins_with=None))


def test_every_setting_of_a_training_declares_what_it_affects():
    assert [name for name, leaf in LEAVES.items() if leaf.affects is None] == []
    assert set(Effect) == OF_THE_MODEL | OF_THE_RUN | {Effect.BARS}
    assert not OF_THE_MODEL & OF_THE_RUN


def test_a_name_means_the_same_in_every_option_of_a_group():
    declared = {(leaf.name, leaf.affects) for leaf in leaves_of(TrainConfig)}

    assert len(declared) == len(LEAVES)


def test_a_group_affects_what_its_settings_affect():
    assert effects_of(TrainConfig, "trainer") == {Effect.MODEL, Effect.RUN}
    assert effects_of(TrainConfig, "source") == {Effect.BARS, Effect.RUN}
    assert effects_of(TrainConfig, "experiment") == {Effect.RUN}
    assert effects_of(TrainConfig, "logger.name") == {Effect.RUN}
    assert effects_of(TrainConfig, "lr") == {Effect.MODEL}
    assert effects_of(TrainConfig, "nothing") == effects_of(TrainConfig, "split.x") == frozenset()
    assert set(names_with(TrainConfig, {Effect.FOLDER})) == {
        "data_dir",
        "models_dir",
        "outputs_dir",
    }


@pytest.mark.parametrize("words", CHOICES)
def test_every_setting_is_in_one_of_the_three_lists(words):
    config = settings(*words)
    lists = [settings_with(config, effects) for effects in (OF_THE_MODEL, OF_THE_RUN)]
    lists.append(settings_with(config, {Effect.BARS}))
    for name in names_in(config):
        found = [name in one or any(k.startswith(f"{name}.") for k in one) for one in lists]
        assert found.count(True) == 1, name


@pytest.mark.parametrize(("words", "name"), ALL)
def test_a_run_is_resumed_and_a_job_is_the_same_as_the_setting_affects_it(words, name, tmp_path):
    config = settings(*words)
    other, effects = changed(config, name), effects_of(TrainConfig, name)
    (effect,) = effects
    is_free = effect in OF_THE_RUN | {Effect.LENGTH, Effect.JUDGEMENT, Effect.BARS}

    assert resumes(config, other, tmp_path) == is_free
    assert (key(other) == key(config)) == (effect not in OF_THE_MODEL)


def test_other_bars_and_another_source_are_another_run(tmp_path):
    config = settings(*CHOICES[0])

    assert not resumes(config, config, tmp_path, bars={"BTCUSDT": {"sha256": "1"}})
    assert resumes(config, config, tmp_path)
    assert resumes(config, changed(config, "source.seed"), tmp_path)


def test_the_length_of_a_pool_is_part_of_its_schedule(tmp_path):
    config = settings("recipe=pooled", "symbol='BTCUSDT,ETHUSDT'")

    assert not resumes(config, changed(config, "epochs"), tmp_path)


@pytest.mark.parametrize(
    ("words", "is_free"),
    [
        (("OneCycleLR", "scheduler.max_lr=0.01", "scheduler.each=batch"), False),
        (("CosineAnnealingLR",), False),
        (("CosineAnnealingLR", "scheduler.T_max=9"), True),
        (("StepLR", "scheduler.step_size=1"), True),
    ],
)
def test_the_length_of_a_training_is_part_of_an_own_schedule_made_for_it(words, is_free, tmp_path):
    name, *further = words
    config = settings(f"scheduler._target_=torch.optim.lr_scheduler.{name}", *further)

    assert resumes(config, changed(config, "epochs"), tmp_path) == is_free
    assert resumes(config, config, tmp_path)


def test_what_judged_markets_had_stays_when_the_others_are_judged(tmp_path):
    config = settings("recipe=pooled", "symbol='BTCUSDT,ETHUSDT'")
    other = changed(config, "looks")

    assert resumes(config, other, tmp_path)
    (tmp_path / "markets" / "BTCUSDT").mkdir(parents=True)
    (tmp_path / "markets" / "BTCUSDT" / "result.json").write_text("{}")
    assert not resumes(config, other, tmp_path)


def test_a_sweep_is_named_by_what_affects_its_models_and_by_their_registry():
    lists = "symbol=BTCUSDT,ETHUSDT", "tf=15m,1h"
    name = plan_sweep(["symbol=BTCUSDT"]).folder.name
    for word in (*lists, "source.parallel=2", "logger=csv", "workers=2", "data_dir=elsewhere"):
        assert plan_sweep(["symbol=BTCUSDT", word]).folder.name == name, word
    for word in ("lr=0.01", "looks=2", "epochs=3", "source.market=perp", "models_dir=elsewhere"):
        assert plan_sweep(["symbol=BTCUSDT", word]).folder.name != name, word


@pytest.mark.parametrize("word", ["logger=csv,tensorboard", "source.parallel=1,2", "data_dir=a,b"])
def test_what_affects_a_run_alone_is_the_same_for_all_jobs_of_a_sweep(word):
    with pytest.raises(ConfigError, match="is the same for a whole sweep; give it one value"):
        plan_sweep(["symbol=BTCUSDT", word])


def test_a_search_goes_on_by_what_its_trials_are_worth():
    config = settings("source=binance", "experiment=tune")
    search = config.experiment
    again = changed(changed(config, "source.parallel"), "workers")
    assert study_key(again, search) == study_key(config, search)
    assert study_key(changed(config, "lr"), search) != study_key(config, search)
    assert study_key(changed(config, "source.market"), search) != study_key(config, search)
    longer, other = copy.deepcopy(search), copy.deepcopy(search)
    longer.trials, other.epochs = search.trials + 1, search.epochs + 1
    assert study_key(config, longer) == study_key(config, search)
    assert study_key(config, other) != study_key(config, search)
