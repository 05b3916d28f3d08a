"""Whatever a word of a command line says, a command takes it or refuses it in one line.

Every key of every command meets values that no setting can have, without a training.
"""

import copy
import itertools
import time
from collections.abc import Iterator
from functools import cache

import pytest
from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from percoin.cli import compose as composing
from percoin.cli import compose_config, explain
from percoin.config import CONF_DIR, SCHEMAS, typed
from percoin.config.structure import leaves_of
from percoin.errors import ConfigError

VALUES = (
    "",
    "null",
    "true",
    "-1",
    "0",
    "1_0",
    "10**10",
    "10000000000",
    "1" * 40,
    "-" + "1" * 40,
    "1" * 400,
    "1" * 5000,
    "0." + "1" * 400,
    "1e400",
    "-1e400",
    "1e-320",
    "nan",
    "-inf",
    "${symbol}",
    "'${symbol}'",
    "${tf}",
    "${nothing}",
    "${",
    "${oc.env:NOTHING}",
    "${oc.decode:[}",
    "${percoin.run_dir:1}",
    "${percoin.usual_epochs}",
    "[]",
    "[[[[1]]]]",
    "{a:1}",
    "[null]",
    "[1e400]",
    "a=b",
    "(",
    "'",
    "it's #1; ~x",
    "\\",
    "币",
    "\udcff",
    "\x1b]0;x\x07",
    "a\nb",
    "???",
    "/" * 3000,
    "a/" * 600,
    "-m",
    "[" * 90 + "]" * 90,
)
NEEDED = {
    **dict.fromkeys(("train", "predict", "signals"), ("symbol=BTCUSDT",)),
    "judge": ("symbol=BTCUSDT", "forecasts=x.csv"),
}
# Options with keys of their own, by group.
CHOICES = {
    "source": ("files", "simulated", "binance"),
    "labels": ("triple_barrier", "volatility_scaled"),
    "experiment": ("tune",),
}
OF_HYDRA = (
    *("hydra", "hydra.run", "hydra.run.dir", "hydra.verbose", "hydra.job.name", "hydra.mode"),
    *("hydra.launcher", "hydra.job_logging", "hydra.sweeper", "hydra/launcher", "hydra/nothing"),
)
_BOUND_SECS = 20


def keys_of(name: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every key of a command, with the words that make it one."""
    schema = SCHEMAS[name]
    groups = [group for group in CHOICES if group in schema.__dataclass_fields__]
    told: list[tuple[str, ...]] = [()]
    told += [(f"{group}={option}",) for group in groups for option in CHOICES[group]]
    seen = set()
    for words in told:
        for key in _names(composed(name, (*NEEDED.get(name, ()), *words)), ""):
            if key not in seen:
                seen.add(key)
                yield words, key
    for key in (*OF_HYDRA, "nothing", "+nothing", "++split.nothing", "tf@x", "a b", "."):
        yield (), key


def _names(config: DictConfig, prefix: str) -> Iterator[str]:
    for key, value in OmegaConf.to_container(config, resolve=False).items():
        if key != "hydra":
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from _names(OmegaConf.create(value), f"{prefix}{key}.")


@cache
def composed(name: str, words: tuple[str, ...]) -> DictConfig:
    if GlobalHydra.instance().is_initialized():
        return compose(name, overrides=list(words), return_hydra_config=True)
    composing.register_configs()
    with composing.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose(name, overrides=list(words), return_hydra_config=True)


def compose_the_last(name: str, overrides: list[str], return_hydra_config: bool) -> DictConfig:
    """What Hydra's ``compose`` does with the last word, onto what the others make.

    It would read all files anew each time, a tenth of a second for each of thousands.
    """
    if not overrides or _told(overrides) == overrides:
        return copy.deepcopy(composed(name, tuple(overrides)))
    *others, last = overrides
    (override,) = OverridesParser.create().parse_overrides([last])
    is_choice = (CONF_DIR / override.key_or_group).is_dir() or "/" in override.key_or_group
    if is_choice or override.is_sweep_override() or others != _told(others):
        return compose(name, overrides=overrides, return_hydra_config=return_hydra_config)
    config = copy.deepcopy(composed(name, tuple(others)))
    ConfigLoaderImpl._apply_overrides_to_config([override], config)
    return config


def _told(words: list[str]) -> list[str]:
    known = {*NEEDED["judge"], *(f"{key}={one}" for key in CHOICES for one in CHOICES[key])}
    return [word for word in words if word in known]


def refusal(name: str, *words: str) -> str:
    try:
        typed(compose_config(name, words), SCHEMAS[name])
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        return explain(error, name, words)
    return ""


def complaint(name: str, *words: str) -> str:
    """Nothing if a command takes the words or refuses them as it should; else what is wrong."""
    start = time.monotonic()
    try:
        line = refusal(name, *words)
    except Exception as error:  # noqa: BLE001 - the test is that there is none
        return f"{name} {words}: {type(error).__name__}: {error}"[:500]
    if line and not (line.isprintable() and 10 <= len(line) <= 2000):
        return f"{name} {words}: says {line!r}"[:500]
    if time.monotonic() - start > _BOUND_SECS:
        return f"{name} {words}: takes {time.monotonic() - start:.0f} s"
    return ""


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(composing, "compose", compose_the_last)
    for variable in ("ML_DEFAULT_TF", "ML_DEVICE", "MIN_CONFIDENCE", "NOTHING"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_needed_is_named(name):
    assert refusal(name, *NEEDED.get(name, ())) == ""


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_value_that_no_setting_has_ends_in_one_line(name):
    # Every value meets some keys, and every key some values; many more in the slow test.
    turns = itertools.cycle(VALUES)
    words = [
        (*NEEDED.get(name, ()), *told, f"{key}={value}")
        for told, key in keys_of(name)
        for value in itertools.islice(turns, 1)
    ]
    assert [found for word in words if (found := complaint(name, *word))] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMAS)
def test_many_values_at_every_key_end_in_one_line(name):
    # All of them with all keys would take an hour: every key meets a fifth, turn by turn.
    found = [
        complaint(name, *NEEDED.get(name, ()), *told, f"{key}={value}")
        for number, (told, key) in enumerate(keys_of(name))
        for value in VALUES[number % 5 :: 5]
    ]
    assert [line for line in found if line] == []


@pytest.mark.parametrize("variable", ["ML_DEFAULT_TF", "ML_DEVICE", "MIN_CONFIDENCE"])
@pytest.mark.parametrize("name", ["predict", "serve"])
def test_the_environment_is_read_as_carefully(monkeypatch, name, variable):
    monkeypatch.setattr(composing, "compose", compose)
    for value in ("cuda:" + "9" * 40, "${nothing}", "1" * 400, "\x1b[2J"):
        monkeypatch.setenv(variable, value)
        assert complaint(name, *NEEDED.get(name, ())) == ""


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_number_has_bounds(name):
    # The ranges of a search are checked one by one.
    unbound = [
        leaf.name
        for leaf in leaves_of(SCHEMAS[name])
        if leaf.kinds & {int, float, list[int], list[float]} and leaf.setting.bounds is None
    ]
    assert [key for key in unbound if ".space." not in key] == []
