from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import bars_from_closes, drop_bars, make_bars
from hypothesis import given, settings
from hypothesis import strategies as st

from percoin.bars.resample import resample
from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.bars.sources.simulated import SimulatedSource
from percoin.features.rules import read_momentum, read_rsi_ma
from percoin.signals.market import SourcedBars, close_times
from percoin.signals.momentum import MomentumRule
from percoin.signals.professional import MIN_SCORE, PARTS, TIMEFRAMES, ProfessionalRule
from percoin.signals.rsi_ma import RsiMaRule
from percoin.signals.rule import Rule, RuleSource, rule_history
from percoin.types import Passed, Prediction, Signal, Source, Timeframe

M15, H1, H4, D1 = Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1
RULES = {rule.source.option: rule for rule in (ProfessionalRule(), RsiMaRule(), MomentumRule())}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
# 42 days: 252 bars of 4h, of which the professional analyzer needs 200.
WALK = make_bars(4032, seed=2)


def answer(rule: Rule, bars: Bars) -> Prediction | Passed:
    return RuleSource(rule).answer(SourcedBars(bars))


def passed(rule: Rule, bars: Bars) -> Passed:
    found = answer(rule, bars)
    assert isinstance(found, Passed), found
    assert found.source is rule.source
    assert found.detail
    return found


def climb(n_bars: int = 4000, step: float = 0.0004) -> Bars:
    """A market on its way up: three bars on, one bar back, with volume where it rises."""
    moves = np.where(np.arange(n_bars) % 4 == 3, -step, step * (1 + np.arange(n_bars) / n_bars))
    bars = bars_from_closes(100 * np.exp(np.cumsum(moves)))
    frame = bars.frame.assign(volume=np.where(moves > 0, 2.0, 1.0))
    return Bars(bars.symbol, bars.timeframe, frame, bars.origin)


def quarters_of(hours: list[float]) -> Bars:
    """Bars of 15m whose hours have these closes."""
    return bars_from_closes(np.repeat(hours, 4))


CRASH = [100.0] * 100 + [50 + 0.05 * hour for hour in range(26)]
SPIKE = [100.0] * 100 + [150 - 0.05 * hour for hour in range(26)]


@pytest.mark.parametrize(("hours", "signal"), [(CRASH, Signal.LONG), (SPIKE, Signal.SHORT)])
def test_rsi_ma_answers_from_hours(hours, signal):
    found = answer(RULES["rsi_ma"], quarters_of(hours))
    assert isinstance(found, Prediction)
    assert (found.source, found.signal) == (Source.RSI_MA, signal)
    assert (found.timeframe, found.probabilities, found.model_version) == (M15, None, None)
    assert 0 < found.confidence < 1
    assert found.detail.startswith("1h: RSI(14) ")
    assert found.levels is not None
    assert found.levels.entry_price == hours[-1]


@pytest.mark.parametrize(("change", "signal"), [(0.03, Signal.LONG), (-0.03, Signal.SHORT)])
def test_momentum_answers_from_quarter_hours(change, signal):
    found = answer(RULES["momentum"], bars_from_closes([100.0] * 20 + [100 * (1 + change)]))
    assert isinstance(found, Prediction)
    assert (found.source, found.signal) == (Source.MOMENTUM, signal)
    assert found.confidence == pytest.approx(1 - 0.025 / 0.03)
    assert found.detail == f"15m: {change:+.2%} over 14 bars, 2.5% up or down is needed"


def test_the_professional_answers_where_everything_points_one_way():
    bars = climb()
    found = answer(RULES["pro"], bars)
    assert isinstance(found, Prediction), found
    assert (found.source, found.signal) == (Source.PRO, Signal.LONG)
    assert MIN_SCORE <= found.confidence <= 1
    assert found.detail.startswith(f"score +{found.confidence:.2f} (15m +")
    assert all(name in found.detail for name in PARTS)
    levels = found.levels
    assert levels is not None
    close = bars.column("close")[-1]
    assert levels.stop_loss < levels.entry_price == close < levels.tp1 < levels.tp2 < levels.tp3


def test_the_unit_of_the_professional_levels_is_the_atr_of_an_hour():
    bars = climb()
    hourly = SourcedBars(bars).of(H1, 1)
    found = answer(RULES["pro"], bars)
    assert isinstance(found, Prediction)
    hourly_range = (hourly.column("high") - hourly.column("low"))[-14:].mean()
    assert found.levels.tp1 - found.levels.entry_price == pytest.approx(hourly_range, rel=0.2)
    assert found.levels.entry_price - found.levels.stop_loss == pytest.approx(
        1.5 * (found.levels.tp1 - found.levels.entry_price)
    )


def test_the_entry_is_the_asked_close_where_the_hour_has_not_ended():
    bars = climb()
    late = bars.slice(0, len(bars) - 2)
    found = answer(RULES["pro"], late)
    assert isinstance(found, Prediction)
    assert len(late) % 4 == 2
    assert found.levels.entry_price == late.column("close")[-1]


def test_a_market_upside_down_gives_the_opposite_answer():
    frame = climb().frame
    highest = 2 * float(frame["close"].max())
    down = frame.assign(
        open=highest - frame["open"],
        high=highest - frame["low"],
        low=highest - frame["high"],
        close=highest - frame["close"],
    )
    found = answer(RULES["pro"], Bars("BTCUSDT", M15, down, "test: upside down"))
    assert isinstance(found, Prediction)
    assert found.signal is Signal.SHORT
    assert found.levels.tp3 < found.levels.entry_price < found.levels.stop_loss


def test_the_professional_abstains_when_its_timeframes_disagree():
    # Up for weeks, down for the last day.
    up = climb().column("close")
    turned = np.concatenate([up, up[-1] * np.exp(-0.0008 * np.arange(1, 97))])
    found = passed(RULES["pro"], bars_from_closes(turned))
    assert found.reason == "no_confluence"
    for name in ("score", *(tf.value for tf in TIMEFRAMES), *PARTS):
        assert name in found.detail


@pytest.mark.parametrize("name", ["rsi_ma", "momentum"])
def test_a_rule_without_a_signal_passes(name):
    assert passed(RULES[name], bars_from_closes([100.0, 100.1] * 300)).reason == "no_signal"


def test_a_switched_off_source_passes_without_looking():
    class Nothing:
        @property
        def asked(self) -> Bars:
            return pytest.fail("looked at the bars")

        def of(self, timeframe: Timeframe, n_bars: int) -> Bars:
            return pytest.fail("looked at the bars")

    found = RuleSource(RULES["pro"], enabled=False).answer(Nothing())
    assert found == Passed(Source.PRO, "pro_disabled", "switched off: use_pro=false")


@every_rule
def test_too_few_bars_are_insufficient(rule):
    found = passed(rule, WALK.slice(0, 14))
    assert found.reason == "insufficient_data"


@every_rule
def test_a_missing_timeframe_is_insufficient_and_says_so(rule):
    found = passed(rule, resample(WALK, D1))
    assert found.reason == "insufficient_data"
    assert f"1d bars do not make up {rule.timeframes[0]}" in found.detail


def test_33_days_of_15m_are_enough_for_the_professional_and_one_bar_less_is_not():
    enough = 200 * 16
    assert passed(RULES["pro"], WALK.slice(0, enough - 1)).detail.startswith("199 bars of 4h")
    found = answer(RULES["pro"], WALK.slice(0, enough))
    assert not (isinstance(found, Passed) and found.reason == "insufficient_data")


def test_an_hour_that_has_closed_but_lacks_a_quarter_makes_the_rest_stale():
    # The last bar closes the hour of which one quarter is missing.
    found = passed(RULES["rsi_ma"], drop_bars(WALK, [4030]))
    assert found.reason == "stale_data"
    assert "the newest of the 1h bars closed" in found.detail


def test_loaded_bars_that_end_too_early_are_stale():
    source = FixedBars(WALK.slice(0, 3000))
    market = SourcedBars(resample(WALK, H1), source)
    found = RuleSource(RULES["momentum"]).answer(market)
    assert isinstance(found, Passed)
    assert found.reason == "stale_data"


def test_a_market_without_volume_is_insufficient_for_the_professional():
    frame = WALK.frame.assign(volume=0.0)
    found = passed(RULES["pro"], Bars("BTCUSDT", M15, frame, "test: silent"))
    assert found.reason == "insufficient_data"
    assert "volume +nan" in found.detail


class FixedBars:
    """A source with bars of one timeframe, and of longer ones that they make."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        return resample(self.bars, timeframe)


@pytest.mark.parametrize("asked", [H1, H4, D1])
@every_rule
def test_the_asked_timeframe_does_not_change_what_a_rule_says(rule, asked):
    """On bars that close together: the rule looks at its own timeframes."""
    longer = resample(WALK, asked)
    there = rule_history(rule, SourcedBars(longer, FixedBars(WALK)))
    moments = close_times(longer)
    rows = np.searchsorted(close_times(WALK), moments)
    here = rule_history(rule, SourcedBars(WALK)).take(rows)
    np.testing.assert_array_equal(there.signal, here.signal)
    np.testing.assert_array_equal(there.is_known, here.is_known)


def check_parity(rule: Rule, bars: Bars, rows: list[int], source: FixedBars | None = None) -> int:
    """Ask the source at the close of each row, as if nothing later existed yet."""
    history = rule_history(rule, SourcedBars(bars, source))
    n_answers = 0
    for row in rows:
        found = RuleSource(rule).answer(SourcedBars(bars.slice(0, row + 1), source))
        if isinstance(found, Prediction):
            n_answers += 1
            assert found.signal == history.signal[row] != Signal.NO_TRADE, row
            assert found.confidence == pytest.approx(abs(history.score[row]), abs=1e-9)
            assert found.detail == rule.describe(history, row)
        elif found.reason in {"insufficient_data", "stale_data"}:
            assert not history.is_known[row], (row, found)
        else:
            assert history.is_known[row], row
            assert history.signal[row] == Signal.NO_TRADE, row
            assert found.detail == rule.describe(history, row)
    return n_answers


@every_rule
def test_live_equals_history_bar_by_bar_on_simulated_bars(rule):
    simulated = SimulatedSource(seed=3, n_bars=20_000).load("BTCUSDT", M15)
    start = 18_000
    # A gap of five bars, and one of a single bar.
    bars = drop_bars(simulated, [*range(start + 20, start + 25), start + 60])
    answered = np.flatnonzero(rule_history(rule, SourcedBars(bars)).signal != Signal.NO_TRADE)
    n_answers = check_parity(rule, bars, [*range(start, start + 80), *answered[-20:].tolist()])
    # RSI+MA has nothing to say on a market like this.
    assert n_answers >= 20 or rule.source is Source.RSI_MA


@every_rule
def test_live_equals_history_from_the_first_bar_on(rule):
    n_first = rule.min_bars * rule.timeframes[-1].milliseconds // M15.milliseconds
    check_parity(rule, WALK, list(range(max(0, n_first - 20), n_first + 20)))


@pytest.mark.parametrize("asked", [H1, H4])
@every_rule
def test_live_equals_history_where_shorter_bars_are_loaded(rule, asked):
    longer = resample(WALK, asked)
    check_parity(rule, longer, list(range(len(longer) - 40, len(longer))), FixedBars(WALK))


@pytest.mark.parametrize("symbol", ["BTCUSDT", "SOLUSDT"])
@every_rule
def test_live_equals_history_bar_by_bar_on_real_bars(rule, symbol, klines: Path):
    bars = FilesSource(klines).load(symbol, M15)
    bars = bars.slice(len(bars) - 20_000)
    rows = range(len(bars) - 40, len(bars))
    answered = np.flatnonzero(rule_history(rule, SourcedBars(bars)).signal != Signal.NO_TRADE)
    check_parity(rule, bars, sorted({*rows, *answered[-40:].tolist()}))


@every_rule
@settings(max_examples=12)
@given(data=st.data())
def test_what_comes_later_changes_no_answer(rule, data):
    """Neither later bars of the asked timeframe nor what the source has by then."""
    asked = data.draw(st.sampled_from([M15, H1, H4]))
    bars = resample(WALK, asked)
    row = data.draw(st.integers(len(bars) // 2, len(bars) - 2))
    factor = data.draw(st.floats(0.5, 2.0))
    moment = int(close_times(bars)[row])
    changed = WALK.frame.copy()
    changed.loc[close_times(WALK) > moment, ["open", "high", "low", "close"]] *= factor
    future = replace(WALK, frame=changed)
    known = FixedBars(WALK.slice(0, int((close_times(WALK) <= moment).sum())))
    now = bars.slice(0, row + 1)
    first = RuleSource(rule).answer(SourcedBars(now, known))
    assert RuleSource(rule).answer(SourcedBars(now, FixedBars(future))) == first
    whole = rule_history(rule, SourcedBars(resample(future, asked), FixedBars(future)))
    expected = rule_history(rule, SourcedBars(bars, FixedBars(WALK)))
    np.testing.assert_array_equal(whole.signal[: row + 1], expected.signal[: row + 1])


@pytest.mark.parametrize(
    ("rule", "read"), [(RsiMaRule(), read_rsi_ma), (MomentumRule(), read_momentum)]
)
def test_on_its_own_timeframe_a_source_says_what_the_baseline_says(
    rule, read: Callable[[Bars], object]
):
    bars = resample(WALK, rule.timeframes[0])
    history = rule_history(rule, SourcedBars(bars))
    np.testing.assert_array_equal(
        history.signal[rule.min_bars :], read(bars).signal[rule.min_bars :]
    )


def test_the_score_is_the_weighted_mean_of_what_it_names():
    history = rule_history(RULES["pro"], SourcedBars(WALK))
    values, known = history.values, history.is_known
    by_timeframe = sum(weight * values[tf.value] for tf, weight in TIMEFRAMES.items())
    by_part = sum(weight * values[name] for name, (weight, _) in PARTS.items())
    np.testing.assert_allclose(values["score"][known], by_timeframe[known], atol=1e-12)
    np.testing.assert_allclose(values["score"][known], by_part[known], atol=1e-12)
    assert sum(TIMEFRAMES.values()) == pytest.approx(1)
    assert sum(weight for weight, _ in PARTS.values()) == pytest.approx(1)


def test_the_professional_answers_exactly_where_there_is_confluence():
    history = rule_history(RULES["pro"], SourcedBars(WALK))
    seen = {Signal.NO_TRADE}
    for row in np.flatnonzero(history.is_known):
        values = {name: float(column[row]) for name, column in history.values.items()}
        score = values.pop("score")
        side = np.sign(score)
        agrees = abs(score) >= MIN_SCORE
        agrees &= all(np.sign(values[tf.value]) == side for tf in TIMEFRAMES)
        agrees &= sum(np.sign(values[name]) == side for name in PARTS) >= 4
        expected = Signal.NO_TRADE
        if agrees:
            expected = Signal.LONG if side > 0 else Signal.SHORT
        assert history.signal[row] == expected
        seen.add(expected)
    assert len(seen) > 1


@pytest.mark.parametrize("size", [1e200, 5e-324])
@pytest.mark.parametrize("columns", [[4], [0, 1, 2, 3]], ids=["volume", "prices"])
@pytest.mark.parametrize("first", [0, 3990])
def test_sizes_that_no_market_has_are_answered_with_numbers_or_passed(size, columns, first):
    bars = make_bars(4000)
    bars.frame.iloc[first:, columns] = size
    for rule in RULES.values():
        answer = RuleSource(rule).answer(SourcedBars(bars))
        if isinstance(answer, Prediction):
            prices = [] if answer.levels is None else vars(answer.levels).values()
            assert np.isfinite([answer.confidence, *prices]).all()
