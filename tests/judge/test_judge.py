"""Somebody's forecasts before the judge that percoin's own models stand before."""

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import make_bars
from market_judgements import RULE

from percoin.bars.sources.simulated import SimulatedSource
from percoin.cli import compose_config
from percoin.config import JudgeConfig, typed
from percoin.dataset import DatasetSpec, PreparedMarket, SplitSpec
from percoin.errors import InvalidForecastsError, NotEnoughBarsError
from percoin.evaluation.baselines import class_shares
from percoin.evaluation.calibration import apply_calibration
from percoin.evaluation.fold_forecasts import JudgingRules, forecast_baselines, forecast_fold
from percoin.evaluation.gate import Outcome
from percoin.evaluation.judgement import judge_folds
from percoin.features.feature_set import FeatureSet
from percoin.judge.__main__ import main
from percoin.judge.forecasts import Forecasts, read_forecasts
from percoin.judge.run import judge_forecasts
from percoin.splits import chronological_split
from percoin.types import Signal, Timeframe

BARS = SimulatedSource(3, 4000, 0.5).load("BTCUSDT", Timeframe.H1)
SPEC = SplitSpec(purge_bars=RULE.horizon, embargo_bars=RULE.horizon)
MARKET = PreparedMarket.prepare(BARS, DatasetSpec(RULE, FeatureSet(), 8, SPEC, 10_000))
RULES = JudgingRules(repetitions=100, model_name="mine")
USUAL = MARKET.dataset(
    lambda rows: chronological_split(rows, SPEC.fractions, SPEC.purge_bars, SPEC.embargo_bars)
)
TEST = USUAL.rows("test")


def knowing(rows: np.ndarray, certainty: float = 0.6, seed: int = 0) -> np.ndarray:
    """Logits that lean towards what comes, more often than not."""
    noise = np.random.default_rng(seed).normal(size=(len(rows), 3))
    return certainty * np.eye(3)[USUAL.label[rows]] + noise * 0.3


def probabilities(rows: np.ndarray, **options) -> np.ndarray:
    return apply_calibration(knowing(rows, **options), {"method": "none"})


@cache
def volatility_forecasts() -> np.ndarray:
    """What the regression on volatility says at each test row, and knows at its close."""
    asked = forecast_baselines(USUAL).forecasts
    return next(each.probabilities for each in asked if each.name == "volatility")


def forecasts_of(rows: np.ndarray, said: np.ndarray) -> Forecasts:
    return Forecasts(BARS.open_time[rows], said)


def test_a_models_own_probabilities_get_its_own_verdict():
    validation = knowing(USUAL.rows("validation"), seed=1)
    fold = forecast_fold(USUAL, validation, knowing(TEST), RULES)
    own = judge_folds([fold], RULES).evaluation
    judged = judge_forecasts(forecasts_of(TEST, fold.model.probabilities), MARKET, RULES).evaluation
    assert judged.model == own.model
    assert judged.baselines == own.baselines
    assert (judged.rival, judged.against_rival) == (own.rival, own.against_rival)
    assert judged.verdict.reasons == own.verdict.reasons
    assert judged.verdict.p_value == own.verdict.p_value


def test_baselines_learn_from_nothing_that_was_forecast():
    later = TEST[100:]
    judged = judge_forecasts(forecasts_of(later, probabilities(later)), MARKET, RULES)
    split = judged.dataset.split
    assert split.train[-1] < split.validation[0] < split.validation[-1] < later[0]
    assert split.validation[-1] + RULE.horizon < later[0]
    np.testing.assert_array_equal(split.test, later)


@pytest.mark.parametrize("n_early", [1, 2])
def test_forecasts_that_are_stamped_too_early_are_a_leak(n_early):
    stamped = TEST[:-5] - n_early
    judged = judge_forecasts(forecasts_of(stamped, probabilities(TEST[:-5])), MARKET, RULES)
    verdict = judged.evaluation.verdict
    assert verdict.outcome is Outcome.REJECTED
    bars = "1 bar" if n_early == 1 else "2 bars"
    assert verdict.reasons[0].startswith(f"stamped {bars} too early")
    assert judged.evaluation.shown() == f"stamped {bars} too early"
    assert judged.board().entries[0].short_reason == f"stamped {bars} too early"


@pytest.mark.parametrize("n_bars", [1, 8])
def test_forecasts_that_are_stamped_too_late_are_named(n_bars):
    said = volatility_forecasts()[:-n_bars]
    judged = judge_forecasts(forecasts_of(TEST[n_bars:], said), MARKET, RULES)
    bars = "1 bar" if n_bars == 1 else f"{n_bars} bars"
    (caution,) = (text for text in judged.evaluation.verdict.cautions if "stamped" in text)
    assert caution.startswith(
        f"stamped {bars} too late? they change with the range of the bar {bars} earlier more than "
        "with that of their own bar (correlation higher by +0."
    )


@pytest.mark.parametrize("n_bars", [1, 3, 14])
def test_volatility_forecasts_that_have_seen_later_bars_are_a_leak(n_bars):
    """They fit the outcome of a later bar no better: what has just happened is known best."""
    judged = judge_forecasts(
        forecasts_of(TEST[:-n_bars], volatility_forecasts()[n_bars:]), MARKET, RULES
    )
    verdict = judged.evaluation.verdict
    assert verdict.outcome is Outcome.REJECTED
    bars = "1 bar" if n_bars == 1 else f"{n_bars} bars"
    assert verdict.reasons[0].startswith(
        f"stamped {bars} too early: they change with what the market does {bars} later more than "
        "with their own bar (correlation higher by +0."
    )
    assert judged.evaluation.shown() == f"stamped {bars} too early"


def test_volatility_forecasts_in_their_place_are_not_suspected():
    judged = judge_forecasts(forecasts_of(TEST, volatility_forecasts()), MARKET, RULES)
    verdict = judged.evaluation.verdict
    assert not any("stamped" in text for text in (*verdict.reasons, *verdict.cautions))


def test_forecasts_in_their_place_are_not_suspected():
    judged = judge_forecasts(forecasts_of(TEST, probabilities(TEST)), MARKET, RULES)
    verdict = judged.evaluation.verdict
    assert not any("stamped" in text for text in (*verdict.reasons, *verdict.cautions))
    assert not any("a day earlier" in text for text in verdict.cautions)


def test_what_is_as_good_on_another_day_is_told():
    said = np.tile(probabilities(TEST[:24], certainty=0.0), (len(TEST) // 24 + 1, 1))[: len(TEST)]
    judged = judge_forecasts(forecasts_of(TEST, said), MARKET, RULES)
    assert any("a day earlier or later" in text for text in judged.evaluation.verdict.cautions)


def test_bars_without_a_forecast_between_the_first_and_the_last_are_told():
    rows = np.delete(TEST, slice(100, 160))
    judged = judge_forecasts(forecasts_of(rows, probabilities(rows)), MARKET, RULES)
    first, last = (str(BARS.frame.index[row])[:16] for row in (TEST[100], TEST[159]))
    assert (
        f"60 of {len(TEST)} bars from the first to the last forecast have none, most in a row "
        f"from {first} to {last} UTC: nothing is judged there"
    ) in judged.notes
    whole = judge_forecasts(forecasts_of(TEST, probabilities(TEST)), MARKET, RULES)
    assert not any("have none" in note for note in whole.notes)


def test_forecasts_of_one_bar_a_day_are_judged_by_their_days():
    daily = TEST[::24]
    judged = judge_forecasts(forecasts_of(daily, probabilities(daily)), MARKET, RULES)
    assert judged.evaluation.bootstrap.day == 1
    assert judged.evaluation.model.skill.lower is not None
    whole = judge_forecasts(forecasts_of(TEST, probabilities(TEST)), MARKET, RULES)
    assert whole.evaluation.bootstrap.day == 24


@pytest.mark.parametrize("n_rows", [1, 3, 29])
def test_a_few_rows_are_no_constant(n_rows):
    said = np.tile([0.3, 0.4, 0.3], (n_rows, 1))
    verdict = judge_forecasts(forecasts_of(TEST[:n_rows], said), MARKET, RULES).evaluation.verdict
    assert verdict.outcome is Outcome.UNTESTABLE
    assert f"too few test rows for an interval: {n_rows}, which make" in verdict.reasons[0]


def test_a_constant_is_rejected_by_name():
    said = np.tile([0.3, 0.4, 0.3], (len(TEST), 1))
    verdict = judge_forecasts(forecasts_of(TEST, said), MARKET, RULES).evaluation.verdict
    assert verdict.outcome is Outcome.REJECTED
    assert verdict.reasons[0].startswith("collapsed (constant)")


def test_signals_alone_take_the_first_rows_to_learn_what_they_are_worth():
    said = probabilities(TEST).argmax(axis=1)
    judged = judge_forecasts(Forecasts(BARS.open_time[TEST], signal=said), MARKET, RULES)
    n_learn = -(-3 * len(TEST) // 10)
    np.testing.assert_array_equal(judged.dataset.rows("test"), TEST[n_learn:])
    assert any(f"the first {n_learn} are used to learn" in note for note in judged.notes)
    # Whatever comes after them changes nothing about what they have taught.
    label = USUAL.label.copy()
    learnt = TEST[:n_learn][TEST[:n_learn] < TEST[n_learn] - RULE.horizon]
    longs = label[learnt][said[: len(learnt)] == Signal.LONG]
    prior = class_shares(label[learnt])
    expected = (np.bincount(longs, minlength=3) + 30 * prior) / (len(longs) + 30)
    assert judged.evaluation.model.scores.accuracy > 0.4
    assert expected[Signal.LONG] > expected[Signal.SHORT]


@pytest.mark.parametrize("n_rows", [1, 5, 9])
def test_signals_that_are_too_few_to_learn_from_are_refused(n_rows):
    signal = np.arange(n_rows) % 3
    few = Forecasts(BARS.open_time[TEST[:n_rows]], signal=signal)
    with pytest.raises(NotEnoughBarsError, match=f"{n_rows} signals without probabilities"):
        judge_forecasts(few, MARKET, RULES)


def test_signals_of_a_quiet_market_are_no_constant_answer():
    rule = replace(RULE, threshold=4 * RULE.threshold)
    market = PreparedMarket.prepare(BARS, DatasetSpec(rule, FeatureSet(), 8, SPEC, 10_000))
    label = market.dataset(lambda _: USUAL.split).label[TEST]
    random = np.random.default_rng(0)
    said = np.where(random.random(len(TEST)) < 0.3, label, random.integers(0, 3, len(TEST)))
    judged = judge_forecasts(Forecasts(BARS.open_time[TEST], signal=said), market, RULES)
    evaluation = judged.evaluation
    # NO_TRADE is likeliest after each of the three signals, but not what is said.
    assert evaluation.collapse is None
    assert not any("decides" in text for text in evaluation.verdict.cautions)


def test_confidence_is_the_probability_of_the_signal_and_the_rest_is_shared_out():
    said = probabilities(TEST)
    signal, confidence = said.argmax(axis=1), said.max(axis=1)
    given = Forecasts(BARS.open_time[TEST], signal=signal, confidence=confidence)
    judged = judge_forecasts(given, MARKET, RULES)
    shares = class_shares(USUAL.label[USUAL.rows("train")])
    others = np.where(np.eye(3, dtype=bool)[signal], 0, shares)
    spread = others / others.sum(axis=1, keepdims=True) * (1 - confidence)[:, None]
    spread[np.arange(len(TEST)), signal] = confidence
    expected = -np.log(spread[np.arange(len(TEST)), USUAL.label[TEST]]).mean()
    assert judged.evaluation.model.scores.log_loss == pytest.approx(expected)


def test_signals_below_the_threshold_are_not_traded():
    said = probabilities(TEST)
    signal, confidence = said.argmax(axis=1), said.max(axis=1)

    def traded(threshold, confidence=confidence):
        given = Forecasts(BARS.open_time[TEST], signal=signal, confidence=confidence)
        evaluation = judge_forecasts(given, MARKET, RULES, threshold).evaluation
        assert not any("no trades" in caution for caution in evaluation.verdict.cautions)
        return evaluation.money[0].n_trades

    of_probabilities = judge_forecasts(forecasts_of(TEST, said), MARKET, RULES, 0.5).evaluation
    assert traded(0.0) > traded(0.5) == of_probabilities.money[0].n_trades > traded(1.0) == 0
    assert traded(0.0, confidence=None) > 0
    with pytest.raises(InvalidForecastsError, match=r"threshold=0\.5, and the signals have no con"):
        traded(0.5, confidence=None)


def test_few_days_do_not_tell_what_the_forecasts_know():
    few = TEST[: 24 * 6]
    judged = judge_forecasts(forecasts_of(few, probabilities(few)), MARKET, RULES)
    assert judged.evaluation.model.skill.lower is None
    assert not any("a day earlier" in text for text in judged.evaluation.verdict.cautions)


def test_forecasts_of_bars_that_the_forecaster_has_seen_are_refused():
    until = int(BARS.open_time[TEST[10]])
    with pytest.raises(InvalidForecastsError, match=r"10 of \d+ forecasts are of bars up to"):
        judge_forecasts(forecasts_of(TEST, probabilities(TEST)), MARKET, RULES, 0.0, until)
    later = TEST[10:]
    judged = judge_forecasts(forecasts_of(later, probabilities(later)), MARKET, RULES, 0.0, until)
    assert judged.notes[0].startswith("trained until")


def test_rows_on_bars_that_are_not_there_are_refused():
    moved = Forecasts(BARS.open_time[TEST] + 60_000, probabilities(TEST))
    with pytest.raises(InvalidForecastsError, match="are for bars that are missing, first"):
        judge_forecasts(moved, MARKET, RULES)


def test_rows_whose_outcome_is_not_known_are_counted_and_left_out():
    rows = np.append(TEST, [len(BARS) - 2, len(BARS) - 1])
    judged = judge_forecasts(forecasts_of(rows, np.full((len(rows), 3), 1 / 3)), MARKET, RULES)
    assert f"2 of {len(rows)} forecasts are not judged" in judged.notes[1]


def test_forecasts_from_the_first_bars_on_leave_nothing_to_learn_from():
    rows = MARKET.rows[10:]
    with pytest.raises(NotEnoughBarsError, match="no validation rows are left") as caught:
        judge_forecasts(forecasts_of(rows, np.full((len(rows), 3), 1 / 3)), MARKET, RULES)
    assert "10 usable rows lie before the first forecast" in caught.value.found
    assert caught.value.action.startswith("leave out early forecasts")
    with pytest.raises(NotEnoughBarsError, match="0 of them cannot be cut in two"):
        judge_forecasts(
            forecasts_of(MARKET.rows, np.full((len(MARKET.rows), 3), 1 / 3)), MARKET, RULES
        )


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        (np.arange(3), "give newer forecasts, or older bars"),
        (len(BARS) - 1 - np.arange(3)[::-1], "give older forecasts, or newer bars"),
    ],
)
def test_forecasts_of_which_none_can_be_judged_say_which_way_helps(rows, advice):
    with pytest.raises(InvalidForecastsError, match=f"none of the 3 forecasts .*; {advice}"):
        judge_forecasts(forecasts_of(rows, np.full((3, 3), 1 / 3)), MARKET, RULES)


TIMES = pd.date_range("2025-01-01", periods=4, freq="15min", tz="UTC")
GOOD = pd.DataFrame({"open_time": TIMES, "p_short": 0.2, "p_no_trade": 0.5, "p_long": 0.3})


def written(tmp_path, table: pd.DataFrame):
    path = tmp_path / "forecasts.csv"
    table.to_csv(path, index=False)
    return path


def test_rows_may_come_in_any_order_and_as_parquet(tmp_path):
    path = tmp_path / "forecasts.parquet"
    GOOD.assign(p_short=[0.1, 0.2, 0.3, 0.4], p_no_trade=[0.6, 0.5, 0.4, 0.3]).iloc[
        ::-1
    ].to_parquet(path)
    read = read_forecasts(path, "BTCUSDT", Timeframe.M15)
    assert read.probabilities[:, 0].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert (np.diff(read.open_time) == 900_000).all()


@pytest.mark.parametrize("said", [["SHORT", "no_trade", "Long", "LONG"], [0, 1, 2, 2]])
def test_signals_by_name_or_number(tmp_path, said):
    table = GOOD[["open_time"]].assign(signal=said)
    read = read_forecasts(written(tmp_path, table), "BTCUSDT", Timeframe.M15)
    assert read.signal.tolist() == [0, 1, 2, 2]
    assert read.confidence is None


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (GOOD.assign(p_long=0.4), "the probabilities of 4 rows do not sum to 1"),
        (GOOD.assign(p_long=[0.3, -0.3, 0.3, 0.3]), "p_long of 1 rows is no probability"),
        (GOOD.assign(p_long=["x", 0.3, 0.3, 0.3]), "p_long of 1 rows is no probability"),
        (GOOD.iloc[[0, 1, 1, 2]], "1 bars have more than one row, first 2025-01-01 00:15 UTC;"),
        (GOOD.drop(columns="p_long"), "has the columns"),
        (GOOD[["open_time"]].assign(signal=["BUY", 1, 2, 2]), "signal of 1 rows is no signal"),
        (GOOD.iloc[:0], "holds no row"),
        (GOOD.drop(columns="open_time"), "has no column open_time; the columns are p_short"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path, table, found):
    with pytest.raises(InvalidForecastsError, match=found) as caught:
        read_forecasts(written(tmp_path, table), "BTCUSDT", Timeframe.M15)
    assert str(caught.value).startswith("BTCUSDT 15m: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "unused"),
    [
        (("p_short", "p_no_trade", "p_long", "signal"), ("signal",)),
        (("p_short", "p_hold", "p_long", "signal"), ("p_short", "p_long")),
        (("signal", "confidence"), ()),
    ],
)
def test_columns_that_say_a_forecast_and_are_not_used_are_told(tmp_path, columns, unused):
    table = GOOD.assign(p_hold=0.5, signal="LONG", confidence=0.5)[["open_time", *columns]]
    assert read_forecasts(written(tmp_path, table), "BTCUSDT", Timeframe.M15).unused == unused
    given = replace(forecasts_of(TEST, probabilities(TEST)), unused=unused)
    notes = judge_forecasts(given, MARKET, RULES).notes
    told = [f"columns of the file that are not used: {', '.join(unused)}"] if unused else []
    assert [note for note in notes if "not used" in note] == told


def test_a_number_of_hundreds_of_digits_is_no_probability(tmp_path):
    row = {"open_time": "2025-01-01", "p_short": 10**400, "p_no_trade": 0.5, "p_long": 0.5}
    (tmp_path / "forecasts.json").write_text(json.dumps([row]))
    with pytest.raises(InvalidForecastsError, match="p_short holds a number of hundreds of digits"):
        read_forecasts(tmp_path / "forecasts.json", "BTCUSDT", Timeframe.M15)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (Path.mkdir, "it is a folder; name a file"),
        (os.mkfifo, "it is a pipe or a device; name a file"),
        (lambda path: None, "there is no such file; name the file of forecasts"),
    ],
)
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path, make, found):
    make(tmp_path / "forecasts.csv")
    with pytest.raises(InvalidForecastsError, match=found):
        read_forecasts(tmp_path / "forecasts.csv", "BTCUSDT", Timeframe.M15)


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "\u202eevil", "a\nb", "x" * 61])
def test_a_name_that_does_not_fit_into_tables_is_refused(tmp_path, capsys, name):
    assert main([f"forecasts={tmp_path}", "symbol=BTCUSDT", f'name="{name}"']) == 2
    told = capsys.readouterr().err
    assert "does not fit into tables" in told
    assert told.rstrip("\n").isprintable()


def test_a_refused_row_is_named_by_its_minute(tmp_path):
    with pytest.raises(InvalidForecastsError, match=r"first 2025-01-01 00:15 UTC: -0\.3"):
        read_forecasts(
            written(tmp_path, GOOD.assign(p_long=[0.3, -0.3, 0.3, 0.3])), "BTCUSDT", Timeframe.M15
        )


def test_a_file_that_is_not_there_is_told_as_such(tmp_path):
    with pytest.raises(InvalidForecastsError, match="there is no such file; name the file"):
        read_forecasts(tmp_path / "none.csv", "BTCUSDT", Timeframe.M15)


@pytest.mark.parametrize(
    ("trained_until", "end"),
    [
        ("2025-05-01", "2025-05-02"),
        ("20250501", "2025-05-02"),
        ("2025-05-01 00:00", "2025-05-01"),
        ("2025-05-01T12:30+02:00", "2025-05-01 10:30"),
    ],
)
def test_trained_until_is_a_whole_day_or_a_time(trained_until, end):
    words = ["symbol=BTCUSDT", "forecasts=f.csv", f"trained_until='{trained_until}'"]
    until = typed(compose_config("judge", words), JudgeConfig).trained_until_ms
    assert pd.Timestamp(until, unit="ms") == pd.Timestamp(end)


def test_the_command_prints_the_judgement_and_writes_the_report(tmp_path, capsys):
    bars = make_bars(1200, timeframe=Timeframe.H1)
    bars.frame.rename_axis("open_time").to_parquet(tmp_path / "BTCUSDT-1h.parquet")
    rows = bars.frame.index[-300:-10]
    # Of the day before, whole: a forecaster that learnt from the first row's day has seen it.
    learnt = (rows[0] - pd.Timedelta(days=1)).date()
    table = pd.DataFrame({"open_time": rows, "p_short": 0.3, "p_no_trade": 0.3, "p_long": 0.4})
    table.loc[::2, ["p_short", "p_long"]] = [0.4, 0.3]
    arguments = [
        f"forecasts={written(tmp_path, table)}",
        *("symbol=BTCUSDT", "tf=1h", "source=files", f"source.path={tmp_path}", "name=mine"),
        *(
            "repetitions=100",
            f"report_dir={tmp_path / 'report'}",
            f"trained_until={learnt}",
        ),
    ]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "REJECTED mine: no skill shown" in text
    page = (tmp_path / "report" / "index.html").read_text()
    assert "mine" in page
    assert "volatility_clock" in page
    assert f"trained until {learnt}, as its owner says." in page

    assert main([*arguments, "output=json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["evaluation"]["verdict"]["outcome"] == "rejected"
    assert document["exit"] == "horizon"
    assert f"within 3 bars {document['levels']['n_signals']} judged signals reached" in text
    assert main([*arguments, "output=json", "backtest.exit=levels"]) == 0
    by_levels = json.loads(capsys.readouterr().out)
    assert (by_levels["exit"], by_levels["levels"]) == ("levels", document["levels"])
    assert by_levels["evaluation"]["money"] != document["evaluation"]["money"]
    (tmp_path / "taken").write_text("")
    assert main([*arguments, f"report_dir={tmp_path / 'taken'}"]) == 2
    told = capsys.readouterr()
    assert "cannot be written (File exists)" in told.err
    assert "REJECTED mine" in told.out
    for day in (rows[0].date(), "9999-12-31"):
        assert main([*arguments, f"trained_until={day}"]) == 1
        told = capsys.readouterr().err
        assert f"bars up to trained_until={day}: the forecaster has learnt from them" in told
    for name in ("volatility", "buy_and_hold"):
        assert main([*arguments, f"name={name}"]) == 2
        assert f"name={name} is the name of a baseline" in capsys.readouterr().err
    assert main([*arguments, "trained_until=May"]) == 2
    assert "trained_until=May is not a day" in capsys.readouterr().err
