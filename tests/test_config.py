import ast
import inspect
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from omegaconf import OmegaConf

from percoin import config as config_module
from percoin.assembly import bar_source, label_rule
from percoin.cli import compose_config, explain
from percoin.config import (
    CONF_DIR,
    SCHEMAS,
    CnnLstmConfig,
    PredictConfig,
    TrainConfig,
    VolatilityScaledConfig,
    name_nearest,
    typed,
)
from percoin.errors import BarsNotFoundError
from percoin.evaluation.baselines import ALONE
from percoin.run_folder import run_dir
from percoin.types import OFFERED_TIMEFRAMES, Source, Timeframe

ROOT = Path(__file__).parents[1]
GROUPS = ("tf", "source", "features", "labels", "model", "trainer", "logger")


@pytest.fixture(autouse=True)
def _no_defaults_from_the_environment(monkeypatch):
    original = ("ML_DEFAULT_TF", "ML_DEVICE", "USE_ML_PER_COIN", "MIN_CONFIDENCE")
    for name in (*original, "USE_PRO_ANALYZER"):
        monkeypatch.delenv(name, raising=False)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def settings(*overrides: str, name: str = "train") -> TrainConfig | PredictConfig:
    return typed(compose_config(name, ["symbol=BTCUSDT", *overrides]), SCHEMAS[name])


def refusal(*overrides: str, name: str = "train") -> str:
    """The one line that a command prints for these overrides."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of several libraries; explained below
        typed(compose_config(name, overrides), SCHEMAS[name])
    line = explain(caught.value, name, overrides)
    assert "\n" not in line
    return line


def with_path(source: str) -> list[str]:
    return [f"source={source}", *(["source.path=bars"] if source == "files" else [])]


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_at_least_two_members(group):
    assert len(options(group)) >= 2


def choices() -> list[tuple[str, ...]]:
    """Every timeframe with every source, while all else goes through all it can be."""
    data = list(itertools.product(options("tf"), options("source")))
    others = [
        chosen
        for chosen in itertools.product(*map(options, GROUPS[2:]))
        # They are for pools, and a pool has a network.
        if chosen[1] != "relative" or chosen[2] not in ALONE
        # Rules of the user's own need their code.
        if chosen[1] != "own"
    ]
    longer = max(len(data), len(others))
    turns = zip(itertools.cycle(data), itertools.cycle(others), range(longer), strict=False)
    return [(*first, *second) for first, second, _ in turns]


def pairs_first() -> Iterator[ParameterSet]:
    """All choices, the first ones with every two options together; the others are slow."""
    made = choices()
    met: set[tuple[tuple[int, str], ...]] = set()
    for chosen in random.Random(0).sample(made, len(made)):
        pairs = set(itertools.combinations(enumerate(chosen), 2))
        yield pytest.param(chosen, marks=[pytest.mark.slow] if pairs <= met else [])
        met |= pairs


@pytest.mark.parametrize("chosen", list(pairs_first()), ids="-".join)
def test_every_choice_composes_and_becomes_typed(chosen, monkeypatch):
    monkeypatch.setattr("percoin.config.loggers.find_spec", lambda name: name)
    tf, source, features, labels, model, trainer, logger = chosen
    made = settings(
        f"tf={tf}",
        *with_path(source),
        f"features={features}",
        f"labels={labels}",
        f"model={model}",
        *(["model._target_=my_models:MyNet"] if model == "own" else []),
        f"trainer={trainer}",
        f"logger={logger}",
        *(["recipe=pooled", "symbol='BTCUSDT,ETHUSDT'"] if labels == "relative" else []),
    )
    assert made.tf.timeframe is Timeframe(tf)
    assert made.history_days == made.tf.history_days
    assert made.features.definition == features
    assert label_rule(made.labels).horizon == made.labels.horizon == made.split.purge_bars
    assert made.model.option == (model if model in {*ALONE, "average", "own"} else "cnn_lstm")
    assert made.model.has_network is (model not in {*ALONE, "average"})
    assert model in {*ALONE, "average", "own"} or len(made.model.channels) == 3
    assert made.trainer.accelerator == trainer
    assert made.logger[logger]["_target_"].lower().endswith(f"{logger}logger")


def test_several_loggers_or_none_are_chosen_in_one_word():
    assert list(settings("logger=[csv,tensorboard]").logger) == ["csv", "tensorboard"]
    assert not settings("logger=null").logger
    assert settings("logger.version=3").logger["tensorboard"]["version"] == 3
    assert settings("logger=csv", "logger.name=mine").logger["csv"]["name"] == "mine"
    assert "logger is one of csv, mlflow, tensorboard, wandb" in refusal(
        "symbol=BTCUSDT", "logger=[csv,aim]"
    )
    assert "labels=[fixed_horizon is not an option" in refusal(
        "symbol=BTCUSDT", "labels=[fixed_horizon,triple_barrier]"
    )
    assert "logger.version is no logger" in refusal(
        "symbol=BTCUSDT", "logger=[csv,tensorboard]", "+logger.version=3"
    )


def test_a_logger_without_its_package_is_refused_with_the_extra_to_install(monkeypatch):
    monkeypatch.setattr("percoin.config.loggers.find_spec", lambda name: None)
    line = refusal("symbol=BTCUSDT", "logger=[csv,wandb]")
    assert line.startswith("logger=wandb needs wandb: pip install 'percoin[wandb]'")
    assert settings("logger=[csv,tensorboard]").logger


@pytest.mark.parametrize("tf", options("tf"))
def test_every_prediction_composes_and_becomes_typed(tf):
    for source in options("source"):
        made = settings(f"tf={tf}", *with_path(source), name="predict")
        assert made.tf.timeframe is Timeframe(tf)


@pytest.mark.parametrize("source", options("source"))
def test_every_source_is_built_from_its_settings(source, tmp_path):
    from percoin.bars.store import BarStore

    store = BarStore(tmp_path)
    assert callable(bar_source(settings(*with_path(source)).source, store).load)


def test_the_defaults_are_those_of_the_original_where_they_are_kept():
    made = settings()
    assert (made.lookback, made.labels.horizon, made.labels.threshold) == (60, 3, 0.0025)
    assert (made.split.train, made.split.validation, made.split.test) == (0.7, 0.15, 0.15)
    assert (made.lr, made.optimizer.weight_decay) == (1e-3, 1e-5)
    assert (made.optimizer.plateau_factor, made.optimizer.plateau_patience) == (0.5, 3)
    assert made.optimizer.early_stopping_patience == 5
    assert made.optimizer.gradient_clip_norm == 1
    assert made.tf.name == "15m"
    assert made.history_days == 365


def test_the_library_trains_as_the_command_does_unless_told_otherwise():
    from percoin.training.datamodule import MarketDataModule
    from percoin.training.lit_module import OptimizerSpec

    made, usual = settings(), OptimizerSpec()
    assert usual == OptimizerSpec(**{key: getattr(made.optimizer, key) for key in asdict(usual)})
    for make in (MarketDataModule, MarketDataModule.of):
        sizes = inspect.signature(make).parameters
        for key in ("batch_size", "seed", "windows_per_epoch"):
            assert sizes[key].default == getattr(made, key)


def test_what_depends_on_the_timeframe_follows_it():
    thresholds = {tf: settings(f"tf={tf}").labels.threshold for tf in ("15m", "1h", "4h", "1d")}
    assert list(thresholds.values()) == sorted(set(thresholds.values()))
    assert settings("tf=4h", "tf.threshold=0.02").labels.threshold == 0.02
    assert settings("tf=4h", "labels.threshold=0.03").labels.threshold == 0.03
    assert settings("tf=1d").history_days == settings("tf=1d").tf.history_days
    assert settings("tf=1d", "history_days=90").history_days == 90


def test_purge_and_embargo_follow_the_horizon():
    made = settings("labels.horizon=7")
    assert (made.split.purge_bars, made.split.embargo_bars) == (7, 7)
    assert settings("labels=triple_barrier").split.purge_bars == 12


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("symbl=BTCUSDT", "symbol"),
        ("epoch=3", "epochs"),
        ("batchsize=3", "batch_size"),
        ("tff=1h", "tf"),
        ("split.tran=0.5", "split.train"),
        ("optimizer.wieght_decay=0", "optimizer.weight_decay"),
        ("labels.horizn=3", "labels.horizon"),
        ("model.dropuot=0.1", "model.dropout"),
        ("+epoch=3", "epochs"),
        ("+split.tran=0.5", "split.train"),
        ("spilt.train=0.5", "split.train"),
        ("optimizer.lr=0.1", "lr"),
    ],
)
def test_a_misspelt_key_names_the_nearest(override, nearest):
    key = override.partition("=")[0].removeprefix("+")
    line = refusal("symbol=BTCUSDT", override)
    assert line == f"{key} is not a setting; did you mean {nearest}?"


def test_the_nearest_key_is_looked_for_among_those_of_the_chosen_options():
    line = refusal("symbol=BTCUSDT", "source=files", "source.pth=bars")
    assert line == "source.pth is not a setting; did you mean source.path?"
    line = refusal("symbol=BTCUSDT", "labels=triple_barrier", "labels.barier_width=2")
    assert line == "labels.barier_width is not a setting; did you mean labels.barrier_width?"


def test_a_key_of_another_option_names_the_option():
    assert refusal("symbol=BTCUSDT", "source.path=bars") == (
        "source.path is a setting of source=files; add source=files"
    )


@pytest.mark.parametrize("override", ["+key=1", "++key=1", "key=1"])
def test_a_key_that_resembles_none_lists_what_there_is(override):
    line = refusal("symbol=BTCUSDT", override)
    assert line.startswith("key is not a setting; known are ")
    assert "epochs" in line
    assert "split.train" not in line


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("interval", "tf"),
        ("learning_rate", "lr"),
        ("max_epochs", "epochs"),
        ("timeframe", "tf"),
        ("pair", "symbol"),
    ],
)
def test_what_other_programs_call_a_setting_is_known(key, meant):
    assert refusal("symbol=BTCUSDT", "source=files", "source.path=x", f"{key}=1") == (
        f"{key} is not a setting; did you mean {meant}?"
    )


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("train", "epochs=10000000000", "epochs=10000000000 must be at most 100000"),
        ("train", "history_days=1000000000", "history_days=1000000000 must be at most 20000"),
        ("train", "source.timeout_secs=1e300", "source.timeout_secs=1e+300 must be at most 3600"),
        ("train", "model.channels=[8,99999,8]", "model.channels=[8, 99999, 8] must be at most"),
        ("train", f"lr={'1' * 40}", "lr=1.11111111111e+39 must be below 1"),
        ("audit", "cuts=10000000000", "cuts=10000000000 must be at most 1000"),
        ("audit", "replay_bars=0", "replay_bars=0 must be at least 1, or null"),
        ("signals", "repetitions=10000000000", "repetitions=10000000000 must be at most 100000"),
        ("train", "models_dir=", "models_dir= names no file or folder"),
        ("train", "outputs_dir= ", "outputs_dir=  names no file or folder"),
        ("fetch", "data_dir=", "data_dir= names no file or folder"),
        ("report", "output_dir=", "output_dir= names no file or folder"),
        ("train", "data_dir=" + "a/" * 600, "has 600 levels of folders; give at most 200"),
        ("train", "data_dir=" + "a" * 3001, "is too long for a path; give at most 3000 bytes"),
        ("predict", f"device=cuda:{'9' * 40}", " (or ML_DEVICE) must be cpu, cuda or cuda:N"),
        ("train", "split='${symbol}'", "split holds further settings, and none of them is called"),
        ("train", "split=${costs}", "split holds further settings, and none of them is called"),
    ],
)
def test_what_would_hang_overflow_or_go_astray_is_refused(name, override, words):
    market = () if name in {"fetch", "report"} else ("symbol=BTCUSDT",)
    assert words in refusal(*market, override, name=name)


def test_seeds_of_a_pool_stay_seeds():
    pool = ("recipe=pooled", "symbol=BTCUSDT,ETHUSDT", "seed=4294967295")
    assert "the last of the pool's seeds would be 4294967297" in refusal(*pool)
    settings(*pool[:1], "seed=4294967295", "symbol=BTCUSDT,ETHUSDT", "pooled.seeds=1")


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("predict", ("symbol=BTCUSDT,ETHUSDT",), "2 names where one belongs; give one, for exa"),
        ("predict", ("-m", "symbol=BTCUSDT,ETHUSDT"), "-m is for sweeps of train.py; name one"),
        ("predict", ("symbol=BTCUSDT", "tf=15m,1h"), "give one value, and write a list with bra"),
        ("train", ("symbol=BTCUSDT", "epochs=1,2"), "several values make a sweep: add -m"),
        ("predict", ("symbol=BTCUSDT", "hydra.verbose=true"), "is a setting of train.py; leave"),
        (
            "train",
            ("symbol=BTCUSDT", "hydra.output_subdir=x"),
            "is not a setting of percoin; of Hyd",
        ),
        ("train", ("symbol=BTCUSDT", "hydra.verbose=7"), "must be true, false, or the name of a"),
        ("train", ("symbol=BTCUSDT", "hydra.run.dir="), "hydra.run.dir= names no file or folder"),
        ("train", ("symbol=BTCUSDT", "hydra/launcher=basic"), "is one of processes, ray, slurm"),
    ],
)
def test_advice_is_about_the_command_that_was_given(name, words, said):
    assert said in refusal(*words, name=name)


def test_options_of_bar_lengths_are_those_that_advice_may_name():
    assert sorted(OFFERED_TIMEFRAMES) == options("tf")


def test_a_coin_alone_is_a_market_that_may_be_missing():
    missing = BarsNotFoundError("BTC", "15m", "no bars are stored", "fetch some")
    assert str(missing) == ("BTC 15m: no bars are stored; fetch some; did you mean symbol=BTCUSDT?")
    for symbol in ("BTCUSDT", "ETHBTC", "BTCEUR"):
        assert "did you mean" not in str(BarsNotFoundError(symbol, "15m", "none", "fetch some"))


def test_keys_of_a_group_are_listed_without_the_others():
    assert name_nearest("split.zzz", ["split.train", "split.test", "lr"]) == (
        "split.zzz is not a setting; known are split.test, split.train"
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epochs=ten", "epochs=ten: Value 'ten'"),
        ("epochs=1.5", "epochs=1.5: Value '1.5'"),
        ("resume=perhaps", "resume=perhaps: Value 'perhaps'"),
        ("model.channels=4", "model.channels=4: "),
        ("symbol=[a]", "symbol=[a] has brackets or quotes: name the markets with commas alone"),
        ("split=3", "split=3: split holds further settings; set one of split.train, "),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_key(override, words):
    assert refusal("symbol=BTCUSDT", override).startswith(words)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("value", ["nonsense", "4", "null", "", "[15m,1h]"])
def test_an_option_that_does_not_exist_lists_those_that_do(group, value):
    if (group, value) == ("logger", "null"):
        assert not settings("logger=null").logger
        return
    line = refusal("symbol=BTCUSDT", f"{group}={value}")
    assert line.startswith(f"{group}=")
    # By name, but bar lengths by their length.
    listed = list(OFFERED_TIMEFRAMES) if group == "tf" else options(group)
    assert line.endswith(f" is not an option; {group} is one of {', '.join(listed)}")


@pytest.mark.parametrize("override", ["~epochs", "~logger", "~symbol", "~split.train"])
def test_a_setting_cannot_be_left_out(override):
    assert refusal("symbol=BTCUSDT", override) == (
        f"{override}: a setting cannot be removed; give it another value"
    )


@pytest.mark.parametrize("word", ["symbol", "BTCUSDT", "-m", "epochs=(3"])
def test_what_is_no_key_and_value_is_named(word):
    assert refusal(word).startswith(f"{word!r} is not KEY=VALUE; ")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("BTCUSDT", "symbol=BTCUSDT"), ("BTCUSDT,ETHUSDT", "symbol=BTCUSDT,ETHUSDT"), ("1h", "tf=1h")],
)
def test_a_market_or_a_bar_length_without_its_key_is_given_one(word, meant):
    assert refusal(word) == f"{word!r} is not KEY=VALUE; did you mean {meant}?"


@pytest.mark.parametrize("name", ["train", "predict"])
def test_a_missing_symbol_is_asked_for_with_an_example(name):
    assert refusal(name=name) == "symbol has no value; give one, for example symbol=BTCUSDT"


def test_a_missing_path_is_asked_for_with_an_example():
    assert refusal("symbol=BTCUSDT", "source=files") == (
        "source.path has no value; give one, for example source.path=FOLDER"
    )


@pytest.mark.parametrize("name", ["train", "predict"])
@pytest.mark.parametrize(
    ("symbol", "words"),
    [
        ("../x", "give 2 to 20 letters A-Z and digits, for example symbol=BTCUSDT"),
        ("", "names no market; is the file of markets empty or missing?"),
        ("BTCUSDT,", "ends with a comma after BTCUSDT"),
        ("BTC-USDT", "did you mean symbol=BTCUSDT?"),
        ("btc_usdt", "did you mean symbol=BTCUSDT?"),
        ("BINANCE:BTCUSDT", "did you mean symbol=BTCUSDT?"),
        ("BTC/USDT:USDT", "did you mean symbol=BTCUSDT source.market=perp?"),
        ("BTCUSDT.P", "did you mean symbol=BTCUSDT source.market=perp?"),
        ("BTC-USDT-SWAP", "did you mean symbol=BTCUSDT source.market=perp?"),
        ("BTC/USD:BTC", "margined in BTC are not supported; give one margined in USDT"),
        ("BTCUSDT_260626", "for example symbol=BTCUSDT source.market=perp"),
        ("BTC/USDT:USDT-260626", "for example symbol=BTCUSDT source.market=perp"),
        ("币安人生USDT", "give one of those, for example symbol=BTCUSDT"),
        ('["BTCUSDT","ETHUSDT"]', "with commas alone, as in symbol=BTCUSDT,ETHUSDT"),
        ("MATICUSDT", "use symbol=POLUSDT, it also finds bars stored as MATICUSDT"),
        ("FTMUSDT", "use symbol=SUSDT, it also finds bars stored as FTMUSDT"),
    ],
)
def test_a_symbol_that_is_no_market_says_how_to_write_it(name, symbol, words):
    line = refusal(f"symbol={symbol}", name=name)
    assert line.startswith("symbol=")
    assert line.endswith(words)


@pytest.mark.parametrize(
    "override",
    [
        "epochs=0",
        "batch_size=1",
        "lr=0",
        "lr=-0.1",
        "lr=1",
        "lr=nan",
        "seed=-1",
        "workers=0",
        "lookback=3",
        "history_days=0",
        "folds=1",
        "trials=0",
        "looks=0",
        "evaluation=twice",
        "tf.name=7m",
        "labels.horizon=0",
        "labels.threshold=0",
        "labels.threshold=0.25%",
        "labels.threshold=25",
        "labels.threshold=nan",
        "model.channels=[1,2]",
        "model.head_sizes=[1,2,3]",
        "model.n_layers=0",
        "model.channels=[8,0,8]",
        "model.n_layers=1000000",
        "model.hidden_size=1000000",
        "model.n_heads=3",
        "model.dropout=1",
        "model.dropout=-0.1",
        "trainer.accelerator=tpu",
        "trainer.precision=64-true",
        "split.train=0.9",
        "split.test=0",
        "split.train=nan",
        "split.purge_bars=2",
        "split.embargo_bars=-1",
        "optimizer.weight_decay=-1",
        "optimizer.weight_decay=inf",
        "costs.slippage_bps=nan",
        "seed=4294967296",
        "optimizer.plateau_factor=1",
        "optimizer.plateau_factor=0",
        "optimizer.plateau_patience=-1",
        "optimizer.early_stopping_patience=-1",
        "optimizer.gradient_clip_norm=0",
        "costs.fee_bps=-1",
        "costs.slippage_bps=-0.5",
    ],
)
def test_a_number_out_of_its_range_names_its_key(override):
    key = override.partition("=")[0]
    line = refusal("symbol=BTCUSDT", override)
    named = "tf" if key == "tf.name" else key.rpartition(".")[2]
    if named in {"channels", "n_layers"} and "three" not in line:
        named = "model"  # one rule for all its widths
    if named.endswith("patience"):
        named = "patience"
    assert named in line


@pytest.mark.parametrize(
    "overrides",
    [
        ("source=simulated", "source.n_bars=0"),
        ("source=simulated", "source.seed=-1"),
        ("source=simulated", "source.edge=1.5"),
        ("labels=triple_barrier", "labels.barrier_width=0"),
        ("labels=triple_barrier", "labels.volatility_bars=1"),
        ("labels=triple_barrier", "labels.horizon=0"),
        ("labels=volatility_scaled", "labels.no_trade_share=1"),
        ("labels=volatility_scaled", "labels.volatility_bars=1"),
        ("labels=volatility_scaled", "labels.width=0"),
        ("labels=relative", "labels.min_share=0"),
    ],
)
def test_numbers_of_an_option_have_ranges_too(overrides):
    key = overrides[1].partition("=")[0]
    assert refusal("symbol=BTCUSDT", *overrides).startswith(f"{key}=")


def test_a_purge_shorter_than_the_horizon_says_why_it_matters():
    assert refusal("symbol=BTCUSDT", "split.purge_bars=1") == (
        "split.purge_bars=1 is less than labels.horizon=3: train labels would look into the next "
        "part; use split.purge_bars=3 or more"
    )


NO_CONFIDENCE = "(or MIN_CONFIDENCE) must be a number between 0 and 1, or judged"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("output=xml", "output=xml must be one of text, json"),
        ("device=tpu", "device=tpu (or ML_DEVICE) must be cpu, cuda or cuda:N"),
        ("predictor=keras", "predictor=keras must be one of auto, torch, onnx"),
        ("min_confidence=2", f"min_confidence=2 {NO_CONFIDENCE}"),
        ("min_confidence=nan", f"min_confidence=nan {NO_CONFIDENCE}"),
        ("min_confidence=" + "1" * 400, f"min_confidence={'1' * 57}... {NO_CONFIDENCE}"),
        ("min_confidence=true", f"min_confidence=True {NO_CONFIDENCE}"),
        ("min_confidence=null", f"min_confidence=None {NO_CONFIDENCE}"),
        ("min_confidence=high", f"min_confidence=high {NO_CONFIDENCE}"),
        (
            "max_age_bars=0.5",
            "max_age_bars=0.5 must be at least 1, or null: the newest bar is one bar old before "
            "the next one has closed",
        ),
        ("use_ml=3.5", "use_ml=3.5: Value '3.5' is not a valid bool (type float)"),
        (
            "chain=[ml,magic,hold]",
            "chain=[ml,magic,hold]: 'magic' is none of ml, pro, rsi_ma, momentum, hold",
        ),
        ("chain=[pro,pro,hold]", "chain=[pro,pro,hold]: pro is named twice"),
        ("chain=[]", "chain=[] must end with hold, which alone always has an answer"),
        ("chain=[ml,pro]", "chain=[ml,pro] must end with hold, which alone always has an answer"),
        (
            "chain=[hold,ml]",
            "chain=[hold,ml] must end with hold, which alone always has an answer",
        ),
        ("use_pro=maybe", "use_pro=maybe: Value 'maybe' is not a valid bool (type str)"),
    ],
)
def test_a_prediction_checks_its_settings(override, words):
    assert refusal("symbol=BTCUSDT", override, name="predict") == words


def test_every_source_is_in_the_chain_in_its_usual_order():
    assert settings(name="predict").chain == [source.option for source in Source]


def test_the_original_environment_variables_are_defaults(monkeypatch):
    monkeypatch.setenv("ML_DEFAULT_TF", "4h")
    monkeypatch.setenv("ML_DEVICE", "cuda:1")
    monkeypatch.setenv("USE_ML_PER_COIN", "false")
    monkeypatch.setenv("MIN_CONFIDENCE", "0.75")
    assert settings(name="predict").use_pro is True
    monkeypatch.setenv("USE_PRO_ANALYZER", "false")
    assert settings(name="predict").use_pro is False
    made = settings(name="predict")
    assert (made.tf.name, made.device, made.use_ml, made.min_confidence) == (
        "4h",
        "cuda:1",
        False,
        0.75,
    )
    assert settings("tf=1h", "use_ml=true", name="predict").use_ml is True
    assert settings("tf=1h").tf.name == "1h"
    assert settings().tf.name == "4h"


@pytest.mark.parametrize("value", ["2h", "4", "", "15M"])
@pytest.mark.parametrize("name", ["train", "predict"])
def test_a_bad_default_timeframe_names_its_variable(monkeypatch, name, value):
    monkeypatch.setenv("ML_DEFAULT_TF", value)
    assert refusal("symbol=BTCUSDT", name=name) == (
        f"tf={value} (from ML_DEFAULT_TF) is not an option; tf is one of 5m, 15m, 30m, 1h, 4h, 1d"
    )


def test_a_bad_default_names_key_and_variable(monkeypatch):
    monkeypatch.setenv("USE_ML_PER_COIN", "maybe")
    line = refusal("symbol=BTCUSDT", name="predict")
    assert line.startswith("use_ml (from USE_ML_PER_COIN): Value 'maybe'")
    monkeypatch.delenv("USE_ML_PER_COIN")
    monkeypatch.setenv("MIN_CONFIDENCE", "high")
    assert refusal("symbol=BTCUSDT", name="predict") == f"min_confidence=high {NO_CONFIDENCE}"


@pytest.mark.parametrize("value", ["judged", "0", "1", "0.5", "5e-1"])
def test_a_confidence_means_the_same_on_the_command_line_and_in_the_environment(monkeypatch, value):
    given = settings(f"min_confidence={value}", name="predict").min_confidence
    monkeypatch.setenv("MIN_CONFIDENCE", value)
    assert settings(name="predict").min_confidence == given
    assert given == ("judged" if value == "judged" else float(value))


def leaf_keys(name: str) -> list[str]:
    """The keys of a config and of all its options, as code would read them."""
    files = [CONF_DIR / f"{name}.yaml"]
    groups = (*GROUPS, "experiment")
    files += [path for group in groups for path in (CONF_DIR / group).glob("*.yaml")]
    return sorted({key for path in files for key in _leaves(OmegaConf.load(path))})


def _leaves(node) -> list[str]:
    found = []
    for key, value in OmegaConf.to_container(node, resolve=False).items():
        if key in {"defaults", "hydra", "_target_"}:
            continue
        if isinstance(value, dict):
            found += _leaves(OmegaConf.create(value))
        else:
            found.append(key)
    return found


@cache
def attributes_read() -> set[str]:
    """Names that the package reads as ``something.name``, outside the schemas' own checks."""
    read = set()
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text())
        if path.resolve().parent == Path(config_module.__file__).resolve().parent:
            checks = [
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef) and node.name == "__post_init__"
            ]
            for check in checks:
                check.body = []
        read |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        }
    return read


# Read as a whole: asdict() becomes the keyword arguments of the network or of the logger.
# The outputs folder goes to the resolver that names the folder of a run.
PASSED_ON = {
    *("channels", "hidden_size", "n_layers", "n_heads", "head_sizes", "dropout"),
    *("version", "default_hp_metric", "experiment_name", "tracking_uri", "offline", "project"),
    "reinit",
    "outputs_dir",
}


@pytest.mark.parametrize("name", ["train", "predict"])
def test_every_key_is_read_by_code(name):
    assert [key for key in leaf_keys(name) if key not in attributes_read() | PASSED_ON] == []


def test_what_the_network_is_built_from_are_its_own_arguments():
    import inspect

    from percoin.network import CnnLstm

    arguments = set(inspect.signature(CnnLstm).parameters) - {"n_features"}
    for option in set(options("model")) - {*ALONE, "average", "own"}:
        assert set(_leaves(OmegaConf.load(CONF_DIR / "model" / f"{option}.yaml"))) == arguments


def test_a_network_can_be_told_its_widths_and_what_it_is_blended_with():
    made = settings("model.hidden_size=8", "blend=logistic")
    assert isinstance(made.model, CnnLstmConfig)
    assert (made.model.hidden_size, made.blend) == (8, "logistic")
    own = ("logistic", "volatility", "volatility_clock", "boosting", "moves")
    assert settings().blended == own
    pool = ("recipe=pooled", "symbol='BTCUSDT,ETHUSDT'")
    pooled = (
        *("pooled_logistic", "pooled_boosting", "pooled_volatility_clock_boosting"),
        "pooled_moves",
    )
    assert settings(*pool).blended == ("volatility", "volatility_clock", *pooled)
    assert settings(*pool, "blend=none").blended == ()
    assert settings(*pool, "blend=pooled_boosting+logistic").blended == (pooled[1], "logistic")
    assert settings("blend=[boosting,volatility]").blended == ("boosting", "volatility")
    for name in ALONE:
        assert settings(f"model={name}").blended == ()


def test_relative_labels_are_for_pools_and_have_no_levels():
    pool = ("symbol='BTCUSDT,ETHUSDT'", "labels=relative")
    assert settings(*pool, "recipe=pooled").labels.alone() == VolatilityScaledConfig(3, 0.4, 50)
    alone = (
        "labels=relative compares a market with the mean of its pool, and this trains each market "
        "alone: add recipe=pooled and name the markets with symbol=A,B,C"
    )
    assert refusal("symbol=BTCUSDT", "labels=relative") == alone
    assert refusal("symbol=BTCUSDT", "labels=relative", "init=pooled") == alone
    assert refusal(*pool, "fleet=true") == alone
    assert "leave out backtest.exit=levels" in refusal(
        *pool, "recipe=pooled", "backtest.exit=levels"
    )


@pytest.mark.parametrize("words", ["bagging", "logistic+logistic", "none+logistic", "[]", "true"])
def test_a_blend_of_anything_else_is_refused_with_all_that_it_may_be(words):
    found = refusal("symbol=BTCUSDT", f"blend={words}")
    assert found == (
        f"blend={words} must be none, or some of logistic, volatility, volatility_clock, "
        "boosting, moves, pooled_logistic, pooled_boosting, pooled_volatility_clock_boosting, "
        "pooled_moves, joined by +"
    )


def test_what_learns_from_a_pool_is_no_part_of_the_blend_of_one_market():
    assert refusal("symbol=BTCUSDT", "blend=logistic+pooled_boosting") == (
        "blend=logistic+pooled_boosting: pooled_boosting learns from all markets of a pool; use "
        "it with recipe=pooled"
    )


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("blend=logistic", "blend=logistic averages several models, and model={name} is one"),
        ("experiment=tune", "experiment=tune searches settings of a network, and model={name}"),
        ("resume=true", "in seconds and cannot be resumed: leave out resume=true"),
        ("init=pooled", "init=pooled trains a network, and model={name} is none"),
        (
            "recipe=pooled",
            "recipe=pooled trains a network or model=average, and model={name} is none",
        ),
        ("model.hidden_size=8", "model.hidden_size is a setting of model=cnn_lstm"),
    ],
)
@pytest.mark.parametrize("name", ALONE)
def test_a_model_without_a_network_refuses_what_only_one_can_be_told(name, override, reason):
    market = "symbol='BTCUSDT,ETHUSDT'" if override == "recipe=pooled" else "symbol=BTCUSDT"
    assert reason.format(name=name) in refusal(market, f"model={name}", override)


def test_every_schema_key_has_a_value_or_asks_for_one():
    for name in ("train", "predict"):
        composed = compose_config(name, [])
        assert set(composed) == set(SCHEMAS[name].__dataclass_fields__)


def test_new_runs_are_named_by_the_time_and_never_share_a_folder(tmp_path):
    folders = []
    for _ in range(3):
        folder = Path(run_dir(str(tmp_path), "BTCUSDT", "15m", resume=False))
        folder.mkdir(parents=True)
        folders.append(folder)
    assert len(set(folders)) == 3
    assert {folder.parent for folder in folders} == {tmp_path / "BTCUSDT" / "15m"}
    assert sorted(folders) == folders


def make_run(outputs: Path, name: str, checkpoint: bool, finished: bool) -> Path:
    folder = outputs / "BTCUSDT" / "15m" / name
    (folder / "checkpoints").mkdir(parents=True)
    if checkpoint:
        (folder / "checkpoints" / "last.ckpt").touch()
    if finished:
        (folder / "result.json").touch()
    return folder


def test_resume_goes_on_with_the_newest_unfinished_run(tmp_path):
    make_run(tmp_path, "20250101-000000", checkpoint=True, finished=False)
    wanted = make_run(tmp_path, "20250102-000000", checkpoint=True, finished=False)
    make_run(tmp_path, "20250103-000000", checkpoint=True, finished=True)
    make_run(tmp_path, "20250104-000000", checkpoint=False, finished=False)

    assert run_dir(str(tmp_path), "BTCUSDT", "15m", resume=True) == str(wanted)
    assert run_dir(str(tmp_path), "BTCUSDT", "15m", resume=False) != str(wanted)


def test_resume_without_an_unfinished_run_names_a_new_one(tmp_path):
    make_run(tmp_path, "20250103-000000", checkpoint=True, finished=True)
    folder = Path(run_dir(str(tmp_path), "BTCUSDT", "15m", resume=True))

    assert not folder.exists()
    assert folder.parent == tmp_path / "BTCUSDT" / "15m"


def test_a_run_of_another_market_is_not_resumed(tmp_path):
    make_run(tmp_path, "20250101-000000", checkpoint=True, finished=False)

    assert "20250101" not in run_dir(str(tmp_path), "ETHUSDT", "15m", resume=True)
    assert "20250101" not in run_dir(str(tmp_path), "BTCUSDT", "1h", resume=True)


def test_a_value_that_a_check_compares_is_a_number():
    made = settings()
    numbers = [made.lr, made.split.train, made.optimizer.weight_decay, made.labels.threshold]
    assert all(isinstance(number, float) and math.isfinite(number) for number in numbers)


def test_composing_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings()
    assert list(tmp_path.iterdir()) == []
