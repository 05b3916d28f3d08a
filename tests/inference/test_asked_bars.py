"""Bars that callers of the library hand over: running, of the future, broken, impossible."""

import json
import logging
import math
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from builders import make_bars
from exported_models import (
    LOOKBACK,
    SMALL,
    bars_to_learn_from,
    export,
    make_dataset,
    make_draft,
    random_network,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from percoin.bars.given import as_bars
from percoin.bars.schema import Bars
from percoin.errors import ConfigError, DataError, InvalidArtifactError, InvalidBarsError
from percoin.features.feature_set import FeatureDefinition, history_bars
from percoin.inference import BarPart, NoPrediction, NoPredictionReason, Predictor
from percoin.inference.asked import checked_bars, closed_bars
from percoin.registry.artifact import export_artifact
from percoin.registry.layout import MANIFEST_FILE
from percoin.registry.manifest import ScalingNumbers, StoredVerdict
from percoin.registry.parts import Calibration
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.types import Signal, Timeframe

BARS = bars_to_learn_from(1200)
CLOSED = BARS.close_time().to_pydatetime()
# In the middle of the newest bar.
RUNNING = CLOSED - timedelta(minutes=7)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    root = tmp_path_factory.mktemp("models")
    export(root, random_network(), make_dataset(BARS))
    return Predictor(root, workers=1)


# --- Bars that still run


def test_a_bar_that_still_runs_is_left_out_with_a_warning(predictor, caplog):
    found = predictor.predict(BARS, now=RUNNING)

    assert found.ts == BARS.close_time(-2)
    assert found.probabilities == predictor.predict(BARS.slice(0, 1199)).probabilities
    [record] = caplog.records[-1:]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "BTCUSDT 15m: the bar that opened 2024-01-13 11:45 UTC has not closed at "
        "2024-01-13 11:53 UTC and is left out"
    )


@pytest.mark.parametrize("seconds", [0, 1, 10**9])
def test_a_bar_has_closed_from_its_close_on(predictor, caplog, seconds):
    assert predictor.predict(BARS, now=CLOSED + timedelta(seconds=seconds)).ts == CLOSED
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_runs_a_second_longer_has_not_closed(predictor):
    assert predictor.predict(BARS, now=CLOSED - timedelta(seconds=1)).ts == BARS.close_time(-2)


def test_without_a_moment_the_clock_of_the_machine_decides():
    start = pd.Timestamp(datetime.now(UTC)).floor("15min") - pd.Timedelta("15min") * 30
    bars = make_bars(31, start=start)

    assert len(closed_bars(bars)) == 30


def test_a_running_bar_is_left_out_of_many_and_of_a_range_too(predictor):
    [found] = predictor.predict_many([BARS], now=RUNNING)
    answers = predictor.predict_range(BARS, BARS.frame.index[1190], now=RUNNING)

    assert found.ts == BARS.close_time(-2)
    assert answers.open_time[-1] == BARS.frame.index[-2]


def test_on_a_clock_that_is_slow_both_newest_bars_are_left_out():
    before_it_opened = BARS.frame.index[-1].to_pydatetime() - timedelta(seconds=2)

    assert len(closed_bars(BARS, before_it_opened)) == 1198


def test_bars_of_the_future_are_refused(predictor):
    """As of a local time that was taken for UTC."""
    now = CLOSED - timedelta(hours=2)
    with pytest.raises(InvalidBarsError, match=r"BTCUSDT 15m: 8 bars had not closed at .*now="):
        predictor.predict(BARS, now=now)
    [answer] = predictor.predict_many([BARS], now=now)
    assert isinstance(answer, NoPrediction)
    assert answer.reason is NoPredictionReason.INVALID_BARS


def test_simulated_bars_know_no_clock():
    simulated = replace(BARS, origin="simulated: seed=0")

    assert closed_bars(simulated, datetime(2000, 1, 1, tzinfo=UTC)) is simulated


def test_a_moment_without_a_zone_is_refused(predictor):
    with pytest.raises(ValueError, match=r"no time zone: give datetime.now\(UTC\)"):
        predictor.predict(BARS, now=datetime(2024, 1, 13))


@pytest.mark.parametrize("year", [1, 1970, 2300, 9998, 9999])
def test_any_year_of_the_clock_is_answered_or_refused(predictor, year):
    now = datetime(year, 12, 31, 23, 59, tzinfo=UTC)
    [answer] = predictor.predict_many([BARS], now=now)

    assert isinstance(answer, NoPrediction) == (year < 2024)


@pytest.mark.parametrize(
    ("end", "found"),
    [
        ("2199-12-31T23:45", "1,200 bars had not closed"),
        ("9999-12-31T23:45", "open_time not between 1970 and 2200 in 1,200 bars"),
    ],
)
def test_bars_of_another_century_are_refused(predictor, end, found):
    index = pd.date_range(end=end, periods=1200, freq="15min", unit="ms", tz="UTC")
    with pytest.raises(InvalidBarsError, match=found):
        predictor.predict(replace(BARS, frame=BARS.frame.set_axis(index)))


@pytest.mark.parametrize(("column", "value"), [("high", 1.1e15), ("volume", 1.1e20)])
def test_numbers_beyond_any_market_are_refused_as_in_training(predictor, column, value):
    frame = BARS.frame.copy()
    frame.iloc[-100, frame.columns.get_loc(column)] = value
    with pytest.raises(InvalidBarsError, match=f"{column} above"):
        predictor.predict(replace(BARS, frame=frame))


# --- What a bar of a range was to the model


def test_a_range_says_what_each_bar_was_to_the_model(predictor, caplog):
    later = bars_to_learn_from(1300)
    answers = predictor.predict_range(later, in_sample=True)
    splits = predictor.model("BTCUSDT", Timeframe.M15).manifest.bars.splits
    frame = answers.to_frame()

    assert frame["part"].tolist() == [str(part) for part in answers.part]
    runs = frame["part"][frame["part"] != frame["part"].shift()].tolist()
    assert runs == [
        *("before", "train", "purged", "validation", "purged", "test", "purged", "live")
    ]
    for name, span in splits.items():
        rows = frame.index[frame["part"] == ("validation" if name == "val" else name)]
        assert (rows[0], rows[-1]) == (pd.Timestamp(span.first), pd.Timestamp(span.last))
    assert frame.index[frame["part"] == "live"].tolist() == later.frame.index[1200:].tolist()
    warning = caplog.records[-1].getMessage()
    n_seen = int((~frame["part"].isin(["test", "live"])).sum())
    assert f"{n_seen} of 1300 bars are among those that version" in warning
    assert np.isfinite(answers.probabilities[200:]).all()

    masked = predictor.predict_range(later)
    shown = np.isin(masked.part, [BarPart.TEST, BarPart.LIVE])
    assert (masked.part == answers.part).all()
    assert np.isnan(masked.probabilities[~shown]).all()
    np.testing.assert_array_equal(masked.probabilities[shown], answers.probabilities[shown])
    assert "hidden (in_sample=True shows them)" in caplog.records[-1].getMessage()


def test_the_last_day_of_a_range_is_all_of_it_as_a_text_and_as_a_date(predictor):
    day = date(2024, 1, 12)
    of_text = predictor.predict_range(BARS, "2024-01-12", "2024-01-12")
    of_date = predictor.predict_range(BARS, day, day)

    assert of_date.open_time.equals(of_text.open_time)
    assert len(of_date) == 96
    assert len(predictor.predict_range(BARS, day, datetime(2024, 1, 12))) == 1


def test_a_range_that_the_model_has_not_seen_warns_of_nothing(predictor, caplog):
    later = bars_to_learn_from(1300)
    predictor.predict(BARS)
    caplog.clear()
    answers = predictor.predict_range(later, later.frame.index[1200])

    assert set(answers.part) == {BarPart.LIVE}
    assert caplog.records == []


def test_a_model_of_simulated_bars_is_named_once_where_it_meets_others(tmp_path, caplog):
    simulated = replace(BARS, origin="simulated: seed=0")
    export(tmp_path, random_network(), make_dataset(simulated))
    predictor = Predictor(tmp_path, workers=1)
    predictor.predict(simulated)
    assert "simulated" not in caplog.text

    predictor.predict(table(), symbol="BTCUSDT", tf="15m", now=CLOSED)
    predictor.predict_many([BARS], CLOSED)
    predictor.predict_range(BARS, "2024-01-13")
    told = [r.getMessage() for r in caplog.records if "simulated bars" in r.getMessage()]
    assert len(told) == 1
    assert "(simulated: seed=0), and these do not say that they are (given)" in told[0]


# --- Tables of callers


OHLCV = ["open", "high", "low", "close", "volume"]
CCXT = [
    [int(moment), *row]
    for moment, row in zip(BARS.open_time, BARS.frame.to_numpy().tolist(), strict=True)
]


def table(**changes) -> pd.DataFrame:
    return BARS.frame.rename(columns=changes)


@pytest.mark.parametrize(
    "given",
    [
        table(),
        table().rename_axis("date"),
        table().reset_index(names="timestamp"),
        table(open="Open", high="High", low="Low", close="Close", volume="Vol").rename_axis(None),
        table().tz_convert("Asia/Tokyo").rename_axis("Datetime"),
        table().tz_localize(None).reset_index(names="Date")[["Date", *OHLCV]],
        pd.DataFrame(CCXT, columns=["timestamp", *OHLCV]),
        pd.DataFrame(CCXT, columns=["timestamp", *OHLCV]).set_index("timestamp"),
        pd.DataFrame(CCXT),
        table().assign(symbol="BTC/USDT", rsi=50.0),
        table().rename_axis("date").reset_index().set_index("date", drop=False),
        table().rename_axis(None).assign(open_time=BARS.frame.index),
        table().rename_axis(None).assign(timestamp=BARS.open_time),
        table().rename_axis(None).assign(date=BARS.frame.index.date),
        CCXT,
        [tuple(row) for row in CCXT],
        table().convert_dtypes(),
        table().reset_index(names="date").convert_dtypes(dtype_backend="pyarrow"),
        table().tz_localize(None).convert_dtypes(dtype_backend="pyarrow"),
    ],
)
def test_a_table_in_any_usual_spelling_is_answered_as_the_same_bars(predictor, given):
    expected = predictor.predict(BARS)

    for symbol in ("BTC/USDT", "BTC/USDT:USDT"):
        assert predictor.predict(given, symbol=symbol, tf="15m", now=CLOSED) == expected
    assert predictor.predict(given, RUNNING, symbol="BTCUSDT", tf="15m").ts == BARS.close_time(-2)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (
            table().rename_axis("date").assign(date=BARS.frame.index + pd.Timedelta("9h")),
            r"the index and column date differ in row 0: 2024-01-01 00:00:00\+00:00 and "
            r"2024-01-01 09:00:00\+00:00; give the one that is meant: reset_index\(drop=True\)",
        ),
        (
            table()
            .tz_convert("Asia/Tokyo")
            .tz_localize(None)
            .rename_axis(None)
            # As of a frame whose column of times in UTC was kept.
            .assign(date=BARS.frame.index),
            "the index, which has no name, and column date differ in row 0: 2024-01-01 09:00",
        ),
        (
            table().rename_axis(None).assign(timestamp=BARS.open_time + 900_000),
            "the index, which has no name, and column timestamp differ in row 0",
        ),
    ],
)
def test_an_index_and_a_column_with_other_times_are_refused(predictor, given, found):
    with pytest.raises(InvalidBarsError, match=f"BTCUSDT 15m: {found}"):
        predictor.predict(given, symbol="BTCUSDT", tf="15m", now=CLOSED)


@pytest.mark.parametrize("symbol", ["BTC/USD:BTC", "BTC/USDT:USDT-250926"])
def test_a_contract_that_is_no_perpetual_of_its_quote_currency_is_no_market(predictor, symbol):
    with pytest.raises(ConfigError, match="is not a market"):
        predictor.predict(table(), symbol=symbol, tf="15m", now=CLOSED)


def test_a_range_takes_a_table_too_and_times_without_a_zone_are_named(predictor, caplog):
    caplog.set_level(logging.INFO, "percoin")
    given = table().tz_localize(None)
    answers = predictor.predict_range(given, "2024-01-13", symbol="BTCUSDT", tf="15m")

    assert answers.open_time[-1] == BARS.frame.index[-1]
    assert "BTCUSDT 15m: times of open_time have no zone and are read as UTC" in caplog.messages


@pytest.mark.parametrize(
    ("given", "beside", "words"),
    [
        ("bars.csv", {}, "a str was given for bars; wanted are Bars, a pandas DataFrame, or rows"),
        ([1, 2], {}, "a list was given for bars"),
        (table(), {}, "give both, for example symbol='BTCUSDT', tf='15m'"),
        (table(), {"symbol": "BTCUSDT", "tf": "7m"}, "tf=7m is no length of bars; known are 1m"),
        (table(), {"symbol": "btc", "tf": "15m"}, "symbol='btc' is not a market"),
        (BARS, {"symbol": "ETHUSDT"}, "symbol=ETHUSDT was given beside bars of BTCUSDT"),
        (table(close="last"), {"symbol": "BTCUSDT", "tf": "15m"}, "no column close, the columns"),
        (table().iloc[::-1], {"symbol": "BTCUSDT", "tf": "15m"}, "before that of the row above"),
        (table(), {"symbol": "BTCUSDT", "tf": "1h"}, "open_time off the 1h grid in 900 bars"),
        (table().assign(symbol="XRPUSDT"), {"symbol": "BTCUSDT", "tf": "15m"}, "are of XRPUSDT"),
        (CCXT[:0], {"symbol": "BTCUSDT", "tf": "15m"}, "BTCUSDT 15m: no rows were given"),
    ],
)
def test_what_is_no_table_of_bars_is_refused_by_what_is_wanted(tmp_path, given, beside, words):
    with pytest.raises((ConfigError, DataError), match=re.escape(words)):
        closed_bars(as_bars(given, **beside))


# --- Bars that are none


def test_sound_bars_are_handed_on_as_they_are():
    assert checked_bars(BARS) is BARS


def changed(**columns) -> pd.DataFrame:
    frame = BARS.frame.copy()
    for name, (position, value) in columns.items():
        frame.iloc[position, frame.columns.get_loc(name)] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (BARS.frame.iloc[::-1], "open_time before that of the row above in 1,199 bars"),
        (BARS.frame.iloc[[*range(1200), 1199]], "duplicate open_time in 1 bar"),
        (BARS.frame.shift(freq="1min"), "open_time off the 15m grid in 1,200 bars"),
        (BARS.frame.reset_index(drop=True), "no column open_time"),
        (BARS.frame.drop(columns="high"), "no column high"),
        (pd.concat([BARS.frame, BARS.frame["close"]], axis=1), "more than one column close"),
        (BARS.frame.assign(close="x"), "column close holds something other than numbers"),
        (changed(close=(700, np.nan)), "close NaN or infinite in 1 bar (2024-01-08 07:00)"),
        (changed(volume=(1190, np.inf)), "volume NaN or infinite in 1 bar"),
        (changed(volume=(1190, -1.0)), "negative volume in 1 bar"),
        (changed(low=(1190, 0.0)), "low not above zero in 1 bar"),
        (changed(high=(1190, 1.0)), "high below open or close in 1 bar"),
        (changed(low=(1190, 1e9)), "low above open or close in 1 bar"),
        (None, "these are no bars"),
        ([1, 2], "these are no bars"),
    ],
)
def test_bars_that_are_none_are_refused_by_name(predictor, frame, found):
    with pytest.raises(InvalidBarsError) as raised:
        predictor.predict(replace(BARS, frame=frame))
    assert str(raised.value).startswith("BTCUSDT 15m: ")
    assert found in str(raised.value)


@pytest.mark.parametrize(
    "same",
    [
        replace(BARS, frame=BARS.frame.tz_localize(None)),
        replace(BARS, frame=BARS.frame.tz_convert("Asia/Tokyo")),
        replace(BARS, frame=BARS.frame.set_axis(BARS.frame.index.as_unit("ns"))),
        replace(BARS, frame=BARS.frame.reset_index()),
        replace(BARS, frame=BARS.frame.astype(object)),
        replace(BARS, frame=BARS.frame[["volume", "close", "low", "high", "open"]]),
        replace(BARS, frame=BARS.frame.assign(trades=3)),
        replace(BARS, timeframe="15m"),
    ],
    ids=["naive", "tokyo", "ns", "column", "object", "order", "further", "text"],
)
def test_the_same_bars_in_another_form_have_the_same_answer(predictor, same):
    assert predictor.predict(same) == predictor.predict(BARS)


def test_an_empty_table_is_too_few_bars(predictor):
    for frame in (BARS.frame.iloc[:0], pd.DataFrame()):
        [answer] = predictor.predict_many([replace(BARS, frame=frame)])
        assert answer.reason is NoPredictionReason.INSUFFICIENT_DATA


# --- Numbers that no market has


@pytest.mark.parametrize("definition", list(FeatureDefinition))
@pytest.mark.parametrize("size", [1e308, 1e150, 5e-324, 1e-300])
def test_sizes_of_prices_and_volumes_that_no_market_has(tmp_path, definition, size):
    export(tmp_path, random_network(Signal.LONG), make_dataset(BARS, definition))
    predictor = Predictor(tmp_path, workers=1)
    for frame in (
        BARS.frame.assign(volume=size),
        BARS.frame.assign(open=size, high=size, low=size, close=size),
        changed(high=(1190, max(size, 1e6)), volume=(1150, size)),
        changed(low=(1190, min(size, 1.0))),
    ):
        [answer] = predictor.predict_many([replace(BARS, frame=frame)])
        assert_is_clean(answer)


def assert_is_clean(answer) -> None:
    if isinstance(answer, NoPrediction):
        assert (
            isinstance(answer.error, DataError) or answer.reason is NoPredictionReason.MODEL_INVALID
        )
        assert "\n" not in answer.detail
        return
    assert math.isclose(sum(answer.probabilities), 1.0, abs_tol=1e-9)
    if answer.levels is not None:
        assert all(map(math.isfinite, vars(answer.levels).values()))


def test_a_price_that_stands_still_is_answered(predictor):
    frame = BARS.frame.copy()
    frame.iloc[200:, :4] = 100.0

    assert_is_clean(predictor.predict(replace(BARS, frame=frame)))


@pytest.mark.parametrize("n_silent", [1, 40, 600])
def test_bars_without_volume_are_named_with_what_to_wait_for(predictor, n_silent):
    frame = changed(volume=(slice(1200 - n_silent, 1200), 0.0))
    [answer] = predictor.predict_many([replace(BARS, frame=frame)])

    if n_silent == 1:
        # The newest bar's own volume is known to be nothing; the next change is not.
        assert_is_clean(answer)
        return
    assert answer.reason is NoPredictionReason.INSUFFICIENT_DATA
    n_shown = min(n_silent, LOOKBACK + 1)
    named = "no bar has volume" if n_silent > 61 else f"{n_shown} of 61 bars are without volume"
    assert named in answer.detail
    assert f"wait until the last of them is {LOOKBACK} bars back" in answer.detail


SIZES = st.sampled_from([5e-324, 1e-300, 1e-12, 1.0, 1e9, 1e40, 1e200, 1e308, 1.7e308])
NUMBERS = SIZES | st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1199), st.integers(0, 4), NUMBERS, st.booleans()), max_size=6
    )
)
def test_whatever_stands_in_a_table_is_answered_or_refused_in_one_line(predictor, changes):
    values = BARS.frame.to_numpy(copy=True)
    for row, column, number, is_whole_bar in changes:
        values[row, slice(0, 4) if is_whole_bar else column] = number
    frame = pd.DataFrame(values, BARS.frame.index, BARS.frame.columns)
    bars = Bars("BTCUSDT", Timeframe.M15, frame, "ccxt")
    [answer] = predictor.predict_many([bars])

    assert_is_clean(answer)


def test_a_history_too_short_says_where_the_training_began(predictor):
    short = BARS.slice(1200 - history_bars(LOOKBACK) + 1)
    [answer] = predictor.predict_many([short])

    assert f"load {history_bars(LOOKBACK)} bars or more, or all since 2024-01-01T00:00:00Z" in (
        answer.detail
    )


# --- Numbers of a manifest that no training writes


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling": ScalingNumbers((1e308,) * 15, (1.0,) * 15)},
        {"scaling": ScalingNumbers((0.0,) * 15, (5e-324,) * 15)},
        {"calibration": Calibration("vector", weights=(-1e308,) * 3, bias=(0.0,) * 3)},
        {"calibration": Calibration("vector", weights=(1.0,) * 3, bias=(1e308, -1e308, 1e308))},
    ],
    ids=["mean", "scale", "weights", "bias"],
)
def test_hostile_numbers_of_a_manifest_are_an_invalid_model_and_no_answer(tmp_path, changes):
    draft = replace(make_draft(make_dataset(BARS), StoredVerdict.ACCEPTED, SMALL), **changes)
    weights = random_network().state_dict()
    record = TrainingRecord({}, TrainingHistory([1.1], [0.3], [1.1], [0.3]))
    export_artifact(tmp_path, draft, weights, weights, record)
    predictor = Predictor(tmp_path, workers=1)
    [answer] = predictor.predict_many([BARS])

    if isinstance(answer, NoPrediction):
        assert answer.reason is NoPredictionReason.MODEL_INVALID
        # Asked about infinities, some networks answer with numbers.
        is_scaling = "its scaling gives values that are not finite" in answer.detail
        assert is_scaling is ("scaling" in changes)
        with pytest.raises(InvalidArtifactError, match="gives no valid answer"):
            predictor.predict_range(BARS)
    else:
        assert_is_clean(answer)
        # A bias that one class has alone is a certainty, and no NaN.
        assert "calibration" in changes


@pytest.mark.parametrize("number", ["Infinity", "NaN", "0.0", "-1.0", "1e999"])
@pytest.mark.parametrize("key", ["scale", "temperature"])
def test_a_scale_or_temperature_that_is_none_is_refused_before_any_answer(tmp_path, key, number):
    folder = export(tmp_path, random_network(), make_dataset(BARS))
    path = folder / MANIFEST_FILE
    text = path.read_text()
    content = json.loads(text)
    old = content["scaling"]["scale"][0] if key == "scale" else content["calibration"][key]
    path.write_text(text.replace(json.dumps(old), number, 1))
    [answer] = Predictor(tmp_path).predict_many([BARS])

    assert answer.reason is NoPredictionReason.MODEL_INVALID
    assert "changed after" not in answer.detail
