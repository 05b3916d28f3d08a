"""Features of the user's own: what the proof refuses, and what it measures."""

from pathlib import Path

import numpy as np
import pytest
from builders import make_bars
from own_code import features_file

from percoin.config.features import FeaturesConfig
from percoin.dataset import DatasetSpec, build_dataset
from percoin.errors import ConfigError, OwnCodeError
from percoin.features.feature_set import FeatureSet, compute_features, compute_newest_features
from percoin.features.own import OwnFeature, extra_of
from percoin.features.proof import find_faults
from percoin.labels import OwnRule
from percoin.plugins import PluginSource, allow_plugins

BARS = make_bars(2000)
ATR = "ta:volatility.AverageTrueRange.average_true_range"


@pytest.fixture(autouse=True)
def own(tmp_path):
    path = features_file(tmp_path)
    allow_plugins([str(path)])
    yield path
    allow_plugins([])


def proven(*entries: object, bars=BARS) -> FeatureSet:
    return FeatureSet(extra=extra_of(entries)).proven(bars)


def memory(entry: object) -> int:
    return proven(entry).own[0].memory_bars


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("peek", r"looks ahead: .* changes when the bars after 20.* are cut off"),
        ("of_all_bars", r"looks ahead"),
        ("of_the_day", r"looks ahead"),
        ("balance", r"depends on where the history begins: .* no prediction loads more than"),
        ("zeros", r"begins with 0 where it cannot know its value yet"),
        ("filled", r"begins with .* where it cannot know its value yet"),
        ("infinite", r"is infinite at the bar that closed 20"),
        ("constant", r"is 1 on every bar, the first at the bar that closed 20"),
        ("copy", r"copies returns, to be seen at the bar that closed 20"),
        ("random", r"gives another value when it is computed again"),
        ("unknown", r"is unknown on every bar"),
        ("fails", r"fails on 2000 bars: KeyError: 'no_such_column'"),
        ("short", r"gives an array of shape \(1999,\) for 2000 bars"),
    ],
)
def test_a_harmful_feature_is_refused_by_name_with_the_bar_that_shows_it(name, found):
    with pytest.raises(OwnCodeError, match=rf"BTCUSDT 15m: my_features:{name} {found}") as error:
        proven(f"my_features:{name}")
    assert "\n" not in str(error.value)


def test_two_features_with_the_same_values_are_refused_too():
    with pytest.raises(OwnCodeError, match=r"zscore\(span=50\) copies my_features:zscore"):
        proven("my_features:zscore", {"name": "my_features:zscore", "span": 50})


@pytest.mark.parametrize(
    ("entry", "bars"),
    [
        ("my_features:zscore", 49),
        ({"name": "my_features:zscore", "span": 20}, 19),
        ("my_features:several", 3),
        ("ta:momentum.StochasticOscillator.stoch", 13),
        ({"name": "ta:momentum.StochasticOscillator.stoch", "window": 30}, 29),
    ],
)
def test_how_far_a_window_looks_back_is_measured_exactly(entry, bars):
    assert memory(entry) == bars


def test_a_fading_average_is_given_time_to_forget():
    # (39/41)^n of the first price; 1e-7 of a deviation is a matter of some 250 to 400 bars.
    assert 250 < memory("my_features:average") < 900


def test_columns_are_known_once_they_have_forgotten_the_start_and_the_same_from_any_start():
    features = proven("clock", "my_features:several", "my_features:average")
    names = features.names(BARS.timeframe)
    assert names[-3:] == (
        *("my_features:several.body", "my_features:several.of three", "my_features:average"),
    )
    full = compute_features(BARS, features)
    assert np.isnan(full[: features.own[1].memory_bars, -1]).all()
    n_bars = features.history_bars(60, BARS.timeframe)
    newest = compute_newest_features([BARS.slice(len(BARS) - n_bars)], features, 60)[0]
    np.testing.assert_allclose(newest, full[-60:], rtol=1e-9, atol=1e-9)


def test_bars_too_few_for_a_proof_are_refused():
    with pytest.raises(OwnCodeError, match="cannot be put to the proof on 150 bars; load 200"):
        proven("my_features:zscore", bars=BARS.slice(0, 150))


def test_a_function_that_fails_when_a_prediction_is_due_says_so():
    features = proven("my_features:fails_later")
    with pytest.raises(OwnCodeError, match="fails on 67 bars: RuntimeError: the exchange is cl"):
        compute_newest_features([BARS.slice(0, 1200)], features, 60)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("my_features:zcore", "my_features has no zcore; did you mean zscore"),
        ("others:zscore", r"which plugins=\[.*my_features.py\] does not allow"),
        ({"name": "my_features:zscore", "spam": 1}, "cannot be called: got an unexpected keyword"),
        ({"name": "my_features:zscore", "span": [1]}, "span must be a number, a text"),
        ({"name": "clock", "span": 1}, "'clock' takes no parameters"),
        ({"span": 1}, "write the name of a group or of a function"),
        ("voltility", "this percoin knows volatility, clock, market, MODULE:FUNCTION"),
        ("ta:os.system.x", "is no indicator of ta: write ta:MODULE.CLASS.METHOD"),
        ("ta:momentum.RSI.rsi", "ta.momentum has .*RSIIndicator"),
        ("ta:momentum.RSIIndicator.fit", "RSIIndicator has rsi"),
    ],
)
def test_what_cannot_be_a_feature_is_one_line_before_any_bar_is_read(entry, found):
    with pytest.raises(ConfigError, match=found):
        FeaturesConfig("relative", [entry])


def test_code_that_has_changed_is_not_taken_for_that_of_a_training(own):
    features = proven("my_features:zscore")
    own.write_text(own.read_text() + "\n")
    allow_plugins([str(own)])

    with pytest.raises(ConfigError, match="my_features:zscore has changed since the training"):
        compute_features(BARS, features)
    indicator = OwnFeature(PluginSource("ta", "momentum.RSIIndicator.rsi", "0" * 64))
    with pytest.raises(ConfigError, match="has changed since the training: ta is 0"):
        indicator.function()


def test_the_example_passes_its_proof():
    example = Path(__file__).parents[2] / "examples" / "template_features.py"
    allow_plugins([str(example)])
    features = proven("template_features:zscore", "template_features:candle")
    assert [own.memory_bars for own in features.own] == [49, 0]
    rule = OwnRule.of("template_features:Breakout", 4, {"share": 0.3})
    assert (build_dataset(BARS, DatasetSpec(rule)).class_counts("train") > 0).all()


def faults_of_ta(bars) -> dict[str, str]:
    """What is found about all 86 columns of ``ta.add_all_ta_features`` together."""
    import ta

    names: list[str] = []

    class AllOfTa:
        label, columns = "ta", ()

        def compute(self, some):
            with np.errstate(all="ignore"):
                frame = some.frame.reset_index(drop=True)
                found = ta.add_all_ta_features(frame, *frame.columns).iloc[:, 5:]
            names[:] = found.columns
            return (), found.to_numpy(dtype=np.float64)

        @property
        def names(self):
            return tuple(names)

    one = AllOfTa()
    faults = find_faults(one, bars, one.compute(bars)[1], {}).faults
    assert len(names) == 86
    return {names[column]: why for column, why in faults.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_of_the_86_columns_of_ta_exactly_the_harmful_ones_are_caught():
    faults = faults_of_ta(make_bars(1200))
    ahead = {name for name, why in faults.items() if why.startswith("looks ahead")}
    hangs = {name for name, why in faults.items() if why.startswith("depends on where")}
    zeros = {name for name, why in faults.items() if why.startswith("begins with 0 ")}

    assert ahead == {
        *("trend_kst", "trend_kst_sig", "trend_kst_diff"),
        *("trend_visual_ichimoku_a", "trend_visual_ichimoku_b"),
    }
    assert hangs == {"volume_adi", "volume_obv", "volume_vpt", "volume_nvi", "others_cr"}
    assert zeros == {
        *("volatility_atr", "trend_adx", "trend_adx_pos", "trend_adx_neg"),
        *("volatility_bbhi", "volatility_bbli"),
    }
    assert set(faults) == ahead | hangs | zeros


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("trend.KSTIndicator.kst", "looks ahead"),
        ("volume.OnBalanceVolumeIndicator.on_balance_volume", "depends on where the history"),
        ("volatility.AverageTrueRange.average_true_range", "begins with 0 where"),
        ("volatility.BollingerBands.bollinger_hband_indicator", "begins with 0 where"),
    ],
)
def test_one_of_each_kind_is_caught_by_its_name(name, found):
    with pytest.raises(OwnCodeError, match=f"ta:{name} {found}"):
        proven(f"ta:{name}")
