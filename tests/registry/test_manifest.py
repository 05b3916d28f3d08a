import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import artifact_builders as builders
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from percoin import json_codec
from percoin.errors import InvalidArtifactError
from percoin.evaluation.blend import PartSkill, PartSkills
from percoin.evaluation.calibration import (
    CALIBRATION_METHODS,
    apply_calibration,
    fit_calibration,
)
from percoin.evaluation.last_row import InputColumns
from percoin.evaluation.moves import RangeRegression
from percoin.evaluation.regression import Regression
from percoin.expected_move.inputs import bars_needed
from percoin.features.feature_set import FEATURE_NAMES, FeatureDefinition
from percoin.features.scaling import Scaling
from percoin.inference.results import BarPart, find_parts
from percoin.registry.field_checks import open_time_text, time_text
from percoin.registry.layout import COMMON_FILES, HASHED_FILES, ONNX_FILE
from percoin.registry.manifest import (
    BLEND_PARTS,
    LOGISTIC_KIND,
    Blend,
    Features,
    Gate,
    Manifest,
    ModelSpec,
    ScalingNumbers,
    StoredVerdict,
)
from percoin.registry.parts import Calibration, StoredNumbers
from percoin.registry.pool_record import PooledMarket, PoolRecord
from percoin.types import Timeframe

HASHES = dict.fromkeys(HASHED_FILES, "0f" * 32)
LOGISTIC_HASHES = dict.fromkeys(COMMON_FILES, "0f" * 32)

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
n_features = len(FEATURE_NAMES)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
drafts = st.builds(
    builders.draft,
    symbol=st.from_regex(r"[A-Z0-9]{2,20}", fullmatch=True),
    timeframe=st.sampled_from(Timeframe),
    lookback=st.integers(1, 10_000),
    features=st.builds(Features, st.sampled_from(FeatureDefinition)),
    scaling=st.builds(
        ScalingNumbers,
        st.tuples(*[finite] * n_features),
        st.tuples(*[positive] * n_features),
    ),
    calibration=st.one_of(
        st.builds(Calibration),
        st.builds(Calibration, st.just("temperature"), st.floats(0.05, 20)),
        st.builds(
            Calibration,
            st.just("vector"),
            weights=st.tuples(*[finite] * 3),
            bias=st.tuples(*[finite] * 3),
        ),
    ),
    gate=st.builds(
        Gate, st.sampled_from(StoredVerdict), st.lists(st.text(), max_size=3).map(tuple)
    ),
    config=st.dictionaries(st.text(), any_json, max_size=4),
    seed=st.integers(0, 2**63),
    code_version=st.text(),
    machine=st.none() | st.dictionaries(st.text(), st.text()),
    libraries=st.dictionaries(st.text(), st.text(), max_size=4),
)
numbers = st.tuples(*[finite] * n_features)
regressions = st.builds(Regression, st.tuples(*[numbers] * 3), st.tuples(*[finite] * 3))
skills = st.builds(PartSkills, *[st.builds(PartSkill, finite, st.none() | finite)] * 2)
blends = st.builds(
    Blend,
    st.floats(0, 1),
    st.just(Calibration()),
    st.fixed_dictionaries(dict.fromkeys(BLEND_PARTS, skills)),
)
moments = st.datetimes(
    min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)
)


def sealed(**changes) -> Manifest:
    return builders.draft(**changes).seal(builders.CREATED_AT, HASHES)


def read(text: str) -> Manifest:
    return Manifest.from_json(text, builders.SYMBOL, builders.TIMEFRAME)


@given(drafts, moments)
def test_a_manifest_reads_back_equal_to_what_was_written(draft, moment):
    manifest = draft.seal(moment, HASHES)
    again = Manifest.from_json(manifest.to_json(), draft.symbol, draft.timeframe)
    assert again == manifest
    assert again.to_json() == manifest.to_json()
    assert again.scaling == draft.scaling
    assert again.config == draft.config
    assert again.created_at == time_text(moment)


@given(regressions, blends | st.none(), moments)
def test_the_numbers_of_a_regression_and_a_blend_read_back_bit_for_bit(regression, blend, moment):
    kind = {"blend": blend} if blend is not None else builders.LOGISTIC
    draft = builders.draft(**kind | {"regression": regression})
    manifest = draft.seal(moment, HASHES if blend is not None else LOGISTIC_HASHES)
    again = Manifest.from_json(manifest.to_json(), draft.symbol, draft.timeframe)
    assert again == manifest
    assert (again.regression, again.blend) == (regression, blend)
    assert again.format_version == 2


@given(moments, moments)
def test_version_ids_sort_by_the_time_of_the_export(first, second):
    draft = builders.draft()
    ids = [draft.seal(moment, HASHES).version_id for moment in (first, second)]
    assert (ids[0] < ids[1]) == (first < second)


def test_the_time_of_a_version_is_utc_wherever_it_was_exported():
    elsewhere = builders.CREATED_AT.astimezone(timezone(timedelta(hours=9)))
    manifest = builders.draft().seal(elsewhere, HASHES)
    assert manifest.version_id.startswith("20250901T000312482911Z-")
    assert manifest.created_at == "2025-09-01T00:03:12Z"


def test_open_times_are_written_in_utc():
    assert open_time_text(1_756_683_900_000) == "2025-08-31T23:45:00Z"


def test_the_scaling_comes_back_bit_for_bit():
    scaling = sealed().scaling.fitted()
    assert ScalingNumbers.of(scaling) == builders.draft().scaling


def test_every_key_of_the_original_is_there():
    content = json.loads(sealed().to_json())
    first = ["symbol", "timeframe", "model_version", "lookback", "num_features"]
    assert list(content)[:7] == [*first, "dataset_info", "test_metrics"]
    assert set(content["dataset_info"]) == {
        "num_features",
        "train_samples",
        "val_samples",
        "test_samples",
    }
    assert set(content["test_metrics"]) == {
        "accuracy",
        "precision",
        "recall",
        "f1",
        "confusion_matrix",
    }
    assert content["model_version"] == "cnn_lstm_v1"
    assert content["test_metrics"]["confusion_matrix"] == [[20, 10, 5], [15, 50, 15], [5, 10, 20]]


def test_every_key_the_original_lacked_is_there():
    content = json.loads(sealed().to_json())
    assert content["class_order"] == ["SHORT", "NO_TRADE", "LONG"]
    assert content["features"] == {"definition": "relative", "names": list(FEATURE_NAMES)}
    assert content["format_version"] == 1
    assert content["files"] == HASHES
    others = "scaling label_rule calibration gate bars model config seed code_version libraries"
    assert set(others.split()) <= set(content)


def test_a_flipped_bit_anywhere_in_the_text_is_refused():
    content = sealed().to_json().encode()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 7)
        with pytest.raises(InvalidArtifactError, match=r"BTCUSDT 15m: meta\.json: "):
            read(flipped.decode())


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '{"format_version": 1}', "[" * 99999])
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(InvalidArtifactError, match=r"meta\.json: .+; train the model again"):
        read(text)


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (("scaling", "scale", 3), 0.0, "scaling: a scale is not positive"),
        (("scaling", "scale", 3), -1.0, "scaling: a scale is not positive"),
        (("scaling", "mean", 3), "1.0", r"scaling\.mean\[3\]: Expected `float`, got `str`"),
        (("scaling", "mean"), [0.0] * 14, r"mean and scale have \(14, 15\) entries"),
        (("num_features",), 60, r"num_features is \(60, 15\)"),
        (("features", "names", 0), "ema_20", "names are not the features of this percoin"),
        (("features", "definition"), "absolute", "definition: Invalid enum value 'absolute'"),
        (("class_order",), ["NO_TRADE", "SHORT", "LONG"], "class_order is"),
        (("symbol",), "../../etc", "is not a market"),
        (("symbol",), "ETHUSDT", "it belongs to ETHUSDT 15m"),
        (("timeframe",), "1h", "it belongs to BTCUSDT 1h"),
        (("timeframe",), "7m", "timeframe: Invalid enum value '7m'"),
        (("model_version",), "cnn_lstm_v9", "model_version 'cnn_lstm_v9' is unknown"),
        (("model", "kind"), "os.system", "kind 'os.system' is unknown"),
        (("lookback",), 0, "lookback 0 is not positive"),
        (("lookback",), True, "lookback: Expected `int`, got `bool`"),
        (("lookback",), 10**9, "lookback 1000000000 is no number of bars"),
        (("label_rule", "horizon"), 10**12, r"label_rule\.horizon is 1000000000000, beyond"),
        (("model", "kwargs"), {"n_layers": 1_000_000}, "n_layers is 1000000, not a whole number"),
        (("model", "kwargs"), {"n_heads": 0}, "n_heads is 0, not a whole number"),
        (("bars", "last_open_time"), "9999-12-31T23:59:59Z", "lies in no year of a market"),
        (("bars", "first_open_time"), "1969-12-31T23:59:59Z", "lies in no year of a market"),
        (("bars", "first_open_time"), "2025-1-1T0:0:0Z", "is not a moment as manifests write it"),
        (("created_at",), "9999-12-31T23:59:59Z", "lies in no year of a market"),
        (("gate", "reasons"), ["\ud800"], "half a surrogate pair"),
        (("config", "x"), 10**50, "a number of 51 digits"),
        (("files",), {f"a{n}.pth": "0f" * 32 for n in range(17)} | HASHES, "files lists 2. files"),
        (
            ("surprise\x1b[2J\n" + "x" * 10_000,),
            1,
            r"unexpected key 'surprise\\x1b\[2J\\n.{200,260}\.\.\.",
        ),
        (("label_rule",), {}, "label_rule has no kind"),
        (("calibration", "temperature"), 0.0, "temperature 0.0, expected 0.05 to 20.0"),
        (("calibration", "method"), "vector", "calibration lacks usable numbers under 'weights'"),
        (("gate", "verdict"), "splendid", "gate.verdict: Invalid enum value 'splendid'"),
        (("test_metrics", "accuracy"), 97.78, "a score outside 0 to 1"),
        (("test_metrics", "confusion_matrix"), [[1]], "confusion_matrix is not 3 x 3"),
        (("test_metrics", "confusion_matrix", 0, 0), -20, "a negative count"),
        (("test_metrics", "confusion_matrix", 0, 0), 21, "counts 151 of 150 test samples"),
        (("dataset_info", "val_samples"), 0, "dataset_info: an empty split"),
        (("bars", "sha256"), "abc", "bars: sha256 is not one"),
        (("bars", "splits"), {}, "splits are not train, val and test"),
        (("bars", "splits", "val", "rows"), 0, "rows is not positive"),
        (("bars", "splits", "val", "first"), "2025-01-19T00:00:00Z", "not in time order"),
        (("bars", "splits", "val", "first"), "2025-01-26T00:00:00Z", "last lies before first"),
        (("bars", "first_open_time"), "yesterday", "does not match format"),
        (("created_at",), "2025-09-01", "does not match format"),
        (("version_id",), "../..", "version_id is none"),
        (("files",), {}, "files does not list"),
        (("files", "../../x.pth"), "0f" * 32, "which is no file of a version"),
        (("files", "meta.json"), "0f" * 32, "which is no file of a version"),
        (("files", "scaler.pkl"), "0F" * 32, r"scaler\.pkl has no sha256"),
        (("format_version",), 0, "format version 0"),
        (("format_version",), "2", "format_version: Expected `int`, got `str`"),
        (("surprise",), 1, "unexpected key 'surprise'"),
        (("seed",), 43, "it was changed after the export"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused_with_the_reason(keys, value, reason):
    content = json.loads(sealed().to_json())
    entry = content
    for key in keys[:-1]:
        entry = entry[key]
    entry[keys[-1]] = value
    with pytest.raises(InvalidArtifactError, match=reason):
        read(json.dumps(content, indent=2) + "\n")


def test_each_missing_key_is_named():
    content = json.loads(sealed().to_json())
    for key in content:
        rest = {name: value for name, value in content.items() if name != key}
        with pytest.raises(
            InvalidArtifactError,
            match=f"missing (key|required field) ['`]{key}['`]|format version 7",
        ):
            read(json.dumps(rest))


def test_a_newer_format_is_refused_by_its_number_whatever_else_it_holds():
    with pytest.raises(InvalidArtifactError, match=r"format version 8 is newer than 7; upgrade"):
        read('{"format_version": 8, "layers": []}')


def test_a_model_that_the_first_format_can_describe_says_so():
    assert sealed().format_version == 1
    assert sealed(**builders.BLENDED).format_version == 2
    assert combined().format_version == 3
    assert sealed(**builders.with_market()).format_version == 5
    assert sealed(label_rule=builders.RELATIVE.to_json()).format_version == 5
    text = (
        sealed(**builders.BLENDED).to_json().replace('"format_version": 2', '"format_version": 1')
    )
    with pytest.raises(InvalidArtifactError, match="format version 1"):
        read(text)


def test_what_is_loaded_is_enough_for_the_expected_move_too():
    """On 5m it looks back at a week, further than the features."""
    five = builders.draft(timeframe=Timeframe.M5)
    assert (five.history_bars, five.bars_to_load) == (961, bars_needed(Timeframe.M5)) == (961, 2016)


def test_a_model_with_extra_columns_is_one_of_the_third_format_and_names_them():
    text = sealed(**builders.WITH_EXTRA).to_json()
    manifest = read(text)
    assert manifest.format_version == 3
    assert manifest.features.feature_set == builders.EXTRA_SET
    assert manifest.num_features == len(manifest.features.names) == 27
    assert manifest.history_bars == 961
    assert '"extra"' not in sealed().to_json()
    with pytest.raises(InvalidArtifactError, match="format version 2"):
        read(text.replace('"format_version": 3', '"format_version": 2'))


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (("features", "extra"), ["volatility"], "names are not the features of this percoin"),
        (("features", "extra"), ["clock", "volatility"], "names are not the features"),
        (("features", "extra"), [], "extra is an empty list"),
        (("features", "extra"), ["moon"], "names 'moon'; this percoin knows volatility, clock"),
        (("features", "extra"), ["clock", "clock"], "names a group twice"),
        (("features", "names", 15), "range_volatility_2", "names are not the features"),
        (("num_features",), 15, r"num_features is \(15, 27\), not 27"),
        (("dataset_info", "num_features"), 15, r"num_features is \(27, 15\), not 27"),
        (("scaling",), {"mean": [0.0] * 15, "scale": [1.0] * 15}, "15 entries, not 27"),
        (("timeframe",), "1h", "names are not the features of this percoin"),
    ],
)
def test_columns_that_do_not_agree_with_their_groups_are_refused(keys, value, reason):
    content = json.loads(sealed(**builders.WITH_EXTRA).to_json())
    entry = content
    for key in keys[:-1]:
        entry = entry[key]
    entry[keys[-1]] = value
    with pytest.raises(InvalidArtifactError, match=reason) as caught:
        read(json.dumps(content, indent=2) + "\n")
    assert "\n" not in str(caught.value)


def test_a_manifest_that_hides_its_extra_columns_is_refused():
    content = json.loads(sealed(**builders.WITH_EXTRA).to_json())
    del content["features"]["extra"]
    with pytest.raises(InvalidArtifactError, match="names are not the features"):
        read(json.dumps(content, indent=2) + "\n")


def test_a_regression_of_the_15_does_not_go_with_extra_columns():
    with pytest.raises(ValueError, match="logistic takes 15 columns, not 27"):
        builders.draft(**builders.WITH_EXTRA, **builders.BLENDED)


def test_each_kind_of_model_has_its_own_files_and_no_others():
    regression = builders.draft(**builders.LOGISTIC)
    assert regression.seal(builders.CREATED_AT, LOGISTIC_HASHES).files == LOGISTIC_HASHES
    for name in (*set(HASHED_FILES) - set(COMMON_FILES), ONNX_FILE):
        with pytest.raises(ValueError, match=f"files lists .'{name}'.*not of a logistic"):
            regression.seal(builders.CREATED_AT, {**LOGISTIC_HASHES, name: "0f" * 32})
    for name in COMMON_FILES:
        rest = {other: value for other, value in LOGISTIC_HASHES.items() if other != name}
        with pytest.raises(ValueError, match=f"files does not list .'{name}'"):
            regression.seal(builders.CREATED_AT, rest)
    with pytest.raises(ValueError, match=r"files does not list .'cnn_lstm_best\.pth'"):
        builders.draft(**builders.BLENDED).seal(builders.CREATED_AT, LOGISTIC_HASHES)


def moves(**changes) -> dict[str, object]:
    return builders.MOVES | {"last_row": replace(builders.MOVES_NUMBERS, **changes)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (builders.LOGISTIC | {"regression": None}, "regression and model do not agree"),
        ({"regression": builders.regression()}, "regression and model do not agree"),
        ({"blend": builders.blend()}, "regression and model do not agree"),
        (builders.LOGISTIC | {"blend": builders.blend()}, "a logistic has nothing to blend with"),
        (
            builders.BOOSTED | {"combination": builders.combination()},
            "a boosting has nothing to blend with",
        ),
        (
            builders.BLENDED | {"combination": builders.combination()},
            "a blend and a combination at once",
        ),
        (builders.AVERAGED | {"combination": None}, "an average has no combination"),
        (
            builders.AVERAGED | {"combination": builders.combination()},
            "the parts are not of a model of the kind average",
        ),
        (
            {"combination": builders.averaged()},
            "the parts are not of a model of the kind cnn_lstm",
        ),
        (
            builders.AVERAGED | {"last_row": builders.BOOSTED["last_row"]},
            "last_row and model do not agree",
        ),
        (builders.BOOSTED | {"last_row": None}, "last_row and model do not agree"),
        ({"last_row": builders.BOOSTED["last_row"]}, "last_row and model do not agree"),
        (builders.LOGISTIC | {"model_version": "cnn_lstm_v1"}, "is cnn_lstm_v1 of a logistic"),
        ({"model_version": "logistic_v1"}, "is logistic_v1 of a cnn_lstm"),
        (
            builders.BLENDED | {"regression": Regression(((0.0,) * 14,) * 3, (0.0,) * 3)},
            "logistic takes 14 columns, not 15",
        ),
        (moves(regression=Regression(((0.0,) * 7,) * 3, (0.0,) * 3)), "takes 7 columns, not 8"),
        (moves(ridge=RangeRegression((0.0,) * 6, 0.0)), "moves takes 6 columns, not 12"),
    ],
)
def test_parts_that_do_not_make_one_model_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        builders.draft(**changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ridge": None}, "not a regression, trees, or two stages"),
        ({"regression": None}, "not a regression, trees, or two stages"),
        ({"trees": None}, "not a regression, trees, or two stages"),
        ({"columns": InputColumns.FEATURES}, "the columns are not those of the model"),
    ],
)
def test_half_a_model_in_two_stages_is_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        moves(**changes)


def test_a_model_in_two_stages_is_described_in_the_format_that_older_percoins_refuse():
    hashes = {**HASHES, "boosting.json": "0f" * 32, "moves.json": "0f" * 32}
    made = builders.draft(combination=builders.with_moves()).seal(builders.CREATED_AT, hashes)
    assert (made.format_version, combined().format_version) == (4, 3)
    assert read(made.to_json()) == made
    # Its name is enough: an older percoin knows no such part, and would not say to upgrade.
    unused = builders.combination(moves=builders.part(0.0))
    del hashes["moves.json"]
    sealed = builders.draft(combination=unused).seal(builders.CREATED_AT, hashes)
    assert sealed.format_version == 4


def test_an_average_without_a_network_is_described_in_the_format_that_older_percoins_refuse():
    hashes = {"scaler.pkl": "0f" * 32, "metrics.json": "0f" * 32, "boosting.json": "0f" * 32}
    made = builders.draft(**builders.AVERAGED).seal(builders.CREATED_AT, hashes)
    assert (made.format_version, made.has_network) == (7, False)
    assert read(made.to_json()) == made
    assert made.weights == {"logistic": 0.0, "volatility": 0.5, "boosting": 0.5}
    assert list(made.part_skills) == ["logistic", "volatility", "boosting", "blend"]
    with pytest.raises(ValueError, match=r"files lists .'cnn_lstm_best\.pth'., which is not of a"):
        builders.draft(**builders.AVERAGED).seal(
            builders.CREATED_AT, {**hashes, "cnn_lstm_best.pth": "0f" * 32}
        )


def combined(**changes) -> Manifest:
    hashes = {**HASHES, "boosting.json": "0f" * 32}
    made = builders.draft(combination=builders.combination(), **changes)
    return made.seal(builders.CREATED_AT, hashes)


def test_a_combination_reads_back_and_asks_for_the_file_of_its_trees():
    made = combined()
    assert read(made.to_json()) == made
    assert made.tree_files == ("boosting.json",)
    assert list(made.parts) == ["network", "volatility", "boosting"]
    # On 5m a week has more bars than the features ask for.
    assert made.history_bars == 961
    last_row = StoredNumbers(InputColumns.VOLATILITY, Regression(((0.0,) * 7,) * 3, (0.0,) * 3))
    alone = {"model_version": "volatility_v1", "model": ModelSpec({}, "volatility")}
    five = builders.draft(**alone, last_row=last_row, timeframe=Timeframe.M5)
    assert five.history_bars == 2016
    assert (made.bars_to_load, five.bars_to_load) == (961, 2016)
    with pytest.raises(ValueError, match=r"files does not list .'boosting\.json'"):
        builders.draft(combination=builders.combination()).seal(builders.CREATED_AT, HASHES)


@pytest.mark.parametrize("file", ["boosting.json", "pooled_boosting.json"])
def test_trees_that_no_part_needs_are_refused(file):
    with pytest.raises(ValueError, match=f"files lists .'{file}'.*not of a cnn_lstm"):
        builders.draft().seal(builders.CREATED_AT, {**HASHES, file: "0f" * 32})


TREES = StoredNumbers(InputColumns.FEATURES, trees="boosting.json")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": builders.part(0.6)}, "the weights of the parts sum to 1.1"),
        ({"network": builders.part(0.5, TREES)}, "numbers and weight of network"),
        ({"boosting": builders.part(0.25)}, "numbers and weight of boosting"),
        ({"logistic": builders.part(0.0, TREES)}, "numbers and weight of logistic"),
        ({"volatility": builders.part(0.25, TREES)}, "the trees of volatility lie in 'boosting.j"),
        ({"bagging": builders.part(0.0)}, "'bagging' is no part of a combination"),
    ],
)
def test_a_combination_that_cannot_be_meant_is_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        builders.combination(**changes)


def test_numbers_of_a_part_that_cannot_be_meant_are_refused():
    regression = builders.regression()
    for wrong in ({}, {"regression": regression, "trees": "boosting.json"}):
        with pytest.raises(ValueError, match="is not a regression, trees, or two"):
            StoredNumbers(InputColumns.FEATURES, **wrong)
    with pytest.raises(ValueError, match="is no file of trees"):
        StoredNumbers(InputColumns.FEATURES, trees="../../meta.json")
    with pytest.raises(ValueError, match="weight of a part is not between 0 and 1"):
        builders.part(-0.1)
    wide = builders.part(0.25, StoredNumbers(InputColumns.VOLATILITY, regression))
    too_wide = builders.combination(volatility=wide)
    with pytest.raises(ValueError, match="volatility takes 15 columns, not 6"):
        builders.draft(combination=too_wide)


def test_a_blend_that_cannot_be_meant_is_refused():
    for weight in (-0.1, 1.1):
        with pytest.raises(ValueError, match="network_weight is not between 0 and 1"):
            builders.blend(weight)
    with pytest.raises(ValueError, match="skills are not of network, regression, blend"):
        replace(builders.blend(), skills={})
    with pytest.raises(ValueError, match="kwargs are not of a logistic"):
        ModelSpec({"channels": [1]}, LOGISTIC_KIND)


def test_a_draft_that_cannot_be_meant_fails_where_it_is_made():
    with pytest.raises(ValueError, match="lookback 0"):
        builders.draft(lookback=0)
    with pytest.raises(ValueError, match="counts 150 of 149"):
        builders.draft(dataset_info=replace(builders.draft().dataset_info, test_samples=149))


def test_a_draft_with_a_number_that_is_not_finite_is_not_sealed():
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed(config={"lr": float("nan")})


def test_reading_manifests_needs_no_torch():
    code = "import sys, percoin.registry.manifest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_calibration_that_nobody_can_apply_is_refused():
    with pytest.raises(ValueError, match="method 'banana'; known are none, temperature, vector"):
        Calibration("banana", 1.0)


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
def test_a_calibration_is_kept_as_it_was_fitted(method):
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(500, 3)), rng.integers(0, 3, 500)
    fitted = fit_calibration(logits, labels, method)
    manifest = sealed(calibration=Calibration(**fitted))
    read = Manifest.from_json(manifest.to_json(), builders.SYMBOL, builders.TIMEFRAME)

    assert json.loads(manifest.to_json())["calibration"] == fitted
    applied = apply_calibration(logits, read.calibration.to_json())
    assert np.array_equal(applied, apply_calibration(logits, fitted))


def test_the_first_manifests_wrote_a_temperature_beside_none():
    text = sealed(calibration=Calibration("none", 1.0)).to_json()
    assert json.loads(text)["calibration"] == {"method": "none", "temperature": 1.0}

    read = Manifest.from_json(text, builders.SYMBOL, builders.TIMEFRAME).calibration.to_json()
    logits = np.random.default_rng(4).normal(size=(9, 3))
    plain = apply_calibration(logits, {"method": "none"})
    assert np.array_equal(apply_calibration(logits, read), plain)


@settings(deadline=None)
@given(
    arrays(np.float64, (3, n_features), elements=st.floats(-1e9, 1e9, allow_subnormal=False)),
)
def test_a_scaling_is_written_and_read_bit_for_bit(features):
    scaling = Scaling.fit(features)
    text = json_codec.dumps(ScalingNumbers.of(scaling))
    again = json_codec.decode(ScalingNumbers, json_codec.loads(text)).fitted()
    assert again.mean_.tobytes() == scaling.mean_.tobytes()
    assert again.scale_.tobytes() == scaling.scale_.tobytes()


@pytest.mark.parametrize(
    ("mean", "scale"),
    [((0.0,) * 15, (1.0,) * 14), ((0.0,), (1.0,)), ((0.0,) * 15, (1.0,) * 14 + (0.0,))],
)
def test_numbers_that_cannot_scale_are_refused(mean, scale):
    with pytest.raises(ValueError, match=r"entries|not positive"):
        ScalingNumbers(mean, scale)


def test_a_refit_of_a_pool_knows_the_newest_bars_of_every_market_that_it_learnt_from():
    first, last = "2025-01-01T00:00:00Z", "2025-02-03T00:00:00Z"
    markets = {
        "BTCUSDT": PooledMarket("ab" * 32, first, "2025-01-31T23:45:00Z", is_seen=True),
        "ETHUSDT": PooledMarket("ab" * 32, first, last, is_seen=True),
        "SOLUSDT": PooledMarket("ab" * 32, first, "2025-02-09T00:00:00Z", is_seen=False),
    }
    pool = PoolRecord(first, "2025-01-20T06:00:00Z", "2025-01-25T06:00:00Z", markets)
    judged = builders.draft(pool=pool)
    refit = replace(judged, refit=builders.refit({"a": torch.zeros(1)}))
    assert judged.last_known == judged.bars.last_open_time == "2025-01-31T23:45:00Z"
    assert refit.last_known == last
    parts = find_parts(pd.DatetimeIndex(["2025-02-03T00:00Z", "2025-02-03T00:15Z"]), refit)
    assert list(parts) == [BarPart.PURGED, BarPart.LIVE]
