"""What a planted manifest may say, and what becomes of it: words of a command line, or nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from trained_registry import SYMBOL, TIMEFRAME, add_version

from percoin.assembly import label_rule
from percoin.cli import compose_config
from percoin.cli.overrides import literal
from percoin.config import CONF_DIR, TrainConfig, typed
from percoin.errors import ConfigError
from percoin.registry.artifact import load_artifact
from percoin.registry.manifest import Manifest
from percoin.targets import find_target
from percoin.training.version_settings import overrides_of, settings_of


def manifest_of(folder: Path) -> Manifest:
    return load_artifact(folder / "models", SYMBOL, TIMEFRAME).manifest


def planted(folder: Path, **changes: object) -> Manifest:
    """A manifest that fits its files and its own hash, and that percoin did not write."""
    add_version(folder, **changes)
    return manifest_of(folder)


def with_config(manifest: Manifest, **changes: object) -> Manifest:
    return replace(manifest, config={**manifest.config, **changes})


@pytest.fixture(scope="module")
def trained_once(once) -> Manifest:
    return manifest_of(once)


def write_trap(folder: Path) -> str:
    """A YAML file in the models folder; the option of a group that would lead to it."""
    trap = folder / "models" / "trap.yaml"
    trap.write_text(
        "# @package _global_\nlogger:\n  prefix:\n    _target_: pandas.read_pickle\n"
        "    filepath_or_buffer: evil.pkl\n"
    )
    up = "/".join(".." for _ in CONF_DIR.resolve().parts)
    return f"{up}{trap.resolve().with_suffix('')}"


def test_a_kind_that_leads_to_a_file_of_the_models_folder_is_never_composed(trained):
    kind = f"'{write_trap(trained)}'"
    # The way in is real: as an option of a group the file would be composed.
    composed = compose_config("train", ["symbol=BTCUSDT", "labels=fixed_horizon", f"labels={kind}"])
    assert "read_pickle" in OmegaConf.to_yaml(composed)

    manifest = planted(trained, label_rule={"kind": kind, "horizon": 3, "threshold": 0.01})
    for ask in (settings_of, overrides_of):
        with pytest.raises(ConfigError, match=r"^BTCUSDT 1h: .*label rule .* is not known"):
            ask(manifest)


def test_a_version_from_before_weights_were_averaged_is_trained_without(trained_once, monkeypatch):
    def composed(name: str, words: list[str]):
        return compose_config(name, [*words, "optimizer.averaging=0.5"])

    monkeypatch.setattr("percoin.training.version_settings.compose_config", composed)
    before = {k: v for k, v in trained_once.config["optimizer"].items() if k != "averaging"}
    for optimizer, averaging in ((before, 0.0), ({**before, "averaging": 0.9}, 0.9), ({}, 0.0)):
        manifest = with_config(trained_once, optimizer=optimizer)
        assert settings_of(manifest).optimizer.averaging == averaging


def test_code_that_a_manifest_names_is_not_imported_unless_it_is_allowed():
    with pytest.raises(ConfigError, match="plugins"):
        find_target("optimizer._target_", "pandas.read_pickle")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "${oc.env:HOME}"),
        ("recipe", "${oc.env:HOME}"),
        ("epochs", "???"),
        ("pooled", {"leave_out": ["${oc.env:HOME}"]}),
        ("pooled", {"${oc.env:HOME}": 1}),
        ("pooled", {"init_model": "/tmp/elsewhere"}),
        ("pooled", {"init_model": ["BTCUSDT"]}),
        ("_target_", "pandas.read_pickle"),
        ("optimizer", {"_target_": ["pandas.read_pickle"]}),
        ("epochs", {"_target_": "pandas.read_pickle"}),
        ("recipe", "pooled"),
        ("recipe", ["pooled"]),
        ("tf", ["1h"]),
        ("tf", {"name": "1h", "threshold": 10**400}),
        ("lr", 10**400),
        ("lookback", True),
        ("seed", -1),
    ],
)
def test_settings_that_are_no_plain_values_of_a_setting_are_one_line(trained_once, name, value):
    with pytest.raises(ConfigError, match=r"^BTCUSDT 1h: the settings of ") as caught:
        settings_of(with_config(trained_once, **{name: value}))
    assert str(Path.home()) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_nested_without_end_are_one_line(trained_once):
    value: object = 1
    for _ in range(900):
        value = {"split": value}
    with pytest.raises(ConfigError, match=r"config.*nested too deeply"):
        settings_of(with_config(trained_once, split=value))


def test_the_market_is_that_of_the_place_and_not_of_the_settings(trained_once):
    elsewhere = with_config(
        trained_once,
        symbol="SOLUSDT",
        tf={"name": "15m", "history_days": 30, "threshold": 0.005},
        models_dir="/tmp/elsewhere",
        data_dir="/tmp/elsewhere",
        outputs_dir="/tmp/elsewhere",
        logger={"_target_": "pandas.read_pickle"},
        experiment={"trials": 3},
    )
    asked = typed(compose_config("train", overrides_of(elsewhere)), TrainConfig)
    for settings in (settings_of(elsewhere), asked):
        assert (settings.symbol, settings.tf.name, settings.tf.history_days) == (
            "BTCUSDT",
            "1h",
            30,
        )
        assert (settings.models_dir, settings.data_dir, settings.experiment) == (
            "models",
            "data",
            None,
        )
    assert not any("elsewhere" in word or "pickle" in word for word in overrides_of(elsewhere))


def test_a_setting_that_hangs_on_another_one_is_asked_for_as_it_was(trained_once):
    horizon = with_config(
        trained_once, labels={"horizon": 2, "threshold": 0.02}, lr=0.02, lookback=16
    )
    asked = typed(compose_config("train", overrides_of(horizon)), TrainConfig)
    assert label_rule(asked.labels).to_json() == {
        "kind": "fixed_horizon",
        "horizon": 2,
        "threshold": 0.02,
    }
    # Both follow the horizon by themselves, and did not in this training.
    assert (asked.split.purge_bars, asked.split.embargo_bars) == (3, 3)


@given(st.text(st.sampled_from("\\'\"${}:,=()[]~#; a\n?é"), max_size=12))
@example("C:\\data\\'x'\\")
@example("${oc.env:HOME}")
@example("\\${oc.env:HOME}")
def test_text_means_itself_in_the_grammar_of_the_command_line(text):
    if text == "???":
        with pytest.raises(TypeError, match="no value of a setting"):
            literal(text)
        return
    read = OverridesParser.create().parse_override(f"key={literal(text)}").value()
    assert OmegaConf.to_container(OmegaConf.create({"key": read}), resolve=True) == {"key": text}


@pytest.mark.parametrize("value", [None, True, 3, -0.5, 5e-324, 1e22, [], ["a'b", 1, None], ()])
def test_other_values_mean_themselves_too(value):
    read = OverridesParser.create().parse_override(f"key={literal(value)}").value()
    assert read == (list(value) if isinstance(value, tuple) else value)


def test_what_is_no_value_of_a_setting_is_none():
    with pytest.raises(TypeError, match="no value of a setting"):
        literal({"of a name": "pandas.read_pickle"})


def test_a_history_that_ended_on_a_date_moves_on_and_keeps_its_length(trained_once):
    dated = with_config(trained_once, start="2024-01-01", end="2024-12-31", history_days=30)
    repeated, again = settings_of(dated), asked_again(dated)

    assert (repeated.start, repeated.end) == ("2024-01-01", "2024-12-31")
    assert (again.start, again.end, again.history_days) == (None, None, 365)


def test_a_history_that_ends_on_a_date_alone_keeps_its_days(trained_once):
    again = asked_again(with_config(trained_once, end="2024-12-31", history_days=30))

    assert (again.start, again.end, again.history_days) == (None, None, 30)


def test_a_history_that_began_on_a_date_grows(trained_once):
    again = asked_again(with_config(trained_once, start="2024-01-01"))

    assert (again.start, again.end) == ("2024-01-01", None)


def asked_again(manifest: Manifest) -> TrainConfig:
    return typed(compose_config("train", overrides_of(manifest)), TrainConfig)
