import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import bars_from_closes, drop_bars, make_bars, make_index

from percoin import json_codec
from percoin.bars.schema import Bars
from percoin.evaluation.uncertainty import Bootstrap
from percoin.expected_move.fitting import (
    CASCADES,
    MoveRows,
    average_with_trees,
    choose_move,
    conformal_quantile,
)
from percoin.expected_move.inputs import MoveInputs, bars_needed, move_columns
from percoin.expected_move.judging import (
    JudgedMove,
    JudgedMoveModel,
    MoveRival,
    fit_and_judge,
    judge_move,
    move_losses,
    sum_up,
)
from percoin.expected_move.model import LEVELS, MoveForm, MoveModel, MoveRegression, RangeForecast
from percoin.expected_move.rivals import CASCADE, GARCH, garch, rival_variances
from percoin.expected_move.scores import qlike
from percoin.expected_move.targets import move_targets
from percoin.intervals import Interval
from percoin.types import Timeframe

HORIZON = 3
TRAIN, VALIDATION, TEST = np.arange(700, 4000), np.arange(4000, 4990), np.arange(5000, 5990)
STEPS = 30


def make_lively_bars(n_bars: int = 6000, seed: int = 1) -> Bars:
    """A market with runs of volatility and a daily rhythm; each bar is 30 small steps."""
    rng = np.random.default_rng(seed)
    runs = np.zeros(n_bars)
    for bar in range(1, n_bars):
        runs[bar] = 0.98 * runs[bar - 1] + 0.12 * rng.normal()
    deviation = 0.002 * np.exp(runs + 0.6 * np.sin(2 * np.pi * np.arange(n_bars) / 96))
    steps = rng.normal(size=(n_bars, STEPS)) * (deviation / math.sqrt(STEPS))[:, None]
    path = np.cumsum(steps.ravel()).reshape(n_bars, STEPS)
    close = path[:, -1]
    opened = np.concatenate([[0.0], close[:-1]])
    logs = {
        "open": opened,
        "high": np.maximum(path.max(axis=1), opened),
        "low": np.minimum(path.min(axis=1), opened),
        "close": close,
    }
    frame = pd.DataFrame(
        {name: 100 * np.exp(values) for name, values in logs.items()} | {"volume": np.ones(n_bars)},
        index=make_index(n_bars, Timeframe.M15),
    )
    return Bars("BTCUSDT", Timeframe.M15, frame, "test: lively")


LIVELY = make_lively_bars()


def fit_move(bars, horizon, train, validation):
    return choose_move(MoveRows.of(bars, horizon, train, validation))


@pytest.fixture(scope="module")
def model():
    return fit_move(LIVELY, HORIZON, TRAIN, VALIDATION)


@pytest.fixture(scope="module")
def rows():
    return MoveRows.of(LIVELY, HORIZON, TRAIN, VALIDATION)


def test_targets_are_those_of_a_slow_loop():
    bars = make_bars(60)
    targets = move_targets(bars, HORIZON)
    high, low, close = (bars.column(name) for name in ("high", "low", "close"))
    for bar in range(57):
        variance = sum(
            math.log(high[k] / low[k]) ** 2 / (4 * math.log(2)) for k in range(bar + 1, bar + 4)
        )
        assert targets.range_variance[bar] == pytest.approx(variance, rel=1e-12)
        assert targets.log_return[bar] == pytest.approx(math.log(close[bar + 3] / close[bar]))
    assert np.isnan(targets.log_return[57:]).all()
    assert np.isnan(targets.range_variance[57:]).all()


def test_a_horizon_across_a_gap_is_unknown():
    targets = move_targets(drop_bars(make_bars(60), [30]), HORIZON)
    assert np.flatnonzero(np.isnan(targets.log_return)).tolist() == [27, 28, 29, 56, 57, 58]


@pytest.mark.parametrize("timeframe", ["5m", "15m", "1h", "4h", "1d"])
def test_columns_are_known_after_as_many_bars_as_are_asked_for(timeframe):
    needed = bars_needed(Timeframe(timeframe))
    bars = make_bars(needed + 5, timeframe=Timeframe(timeframe))
    known = np.isfinite(move_columns(bars)).all(axis=1)
    assert np.flatnonzero(known)[0] == needed - 1
    assert known[needed - 1 :].all()


def test_later_bars_change_no_column_and_a_later_start_none_either():
    whole = move_columns(LIVELY)
    np.testing.assert_array_equal(move_columns(LIVELY.slice(0, 900)), whole[:900])
    late = move_columns(LIVELY.slice(2000, 3000))
    np.testing.assert_allclose(late[671:], whole[2671:3000], rtol=1e-12)


def test_qlike_is_zero_for_a_right_forecast_and_hardest_on_one_too_small():
    realized = np.array([2.0, 2.0, 2.0])
    right, small, large = qlike(realized, np.array([2.0, 1.0, 4.0]))
    assert right == 0
    assert small == pytest.approx(2 - math.log(2) - 1)
    assert small > large > 0


def test_the_conformal_rank_counts_one_row_more_than_there_is():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    assert conformal_quantile(scores, 95) == 96  # rank 95.95 of 101
    assert conformal_quantile(np.sort(scores)[:20], 95) == 20


def test_half_the_validation_rows_lie_within_the_band_of_50(model, rows):
    moved = np.abs(rows.targets.log_return[VALIDATION]) / model.deviations(LIVELY)[VALIDATION]
    for level in LEVELS:
        assert (moved <= model.quantiles[str(level)]).mean() == pytest.approx(level / 100, abs=2e-3)


def test_the_forecast_finds_a_daily_rhythm_that_the_cascade_does_not_know(model, rows):
    assert MoveInputs.CLOCK in model.inputs
    losses = move_losses(model, rows, TEST)
    judged = judge_move(losses, Bootstrap(HORIZON, repetitions=200, day=96))
    assert judged.n_rows == len(TEST)
    for name in (CASCADE, GARCH):
        assert judged.rivals[name].lead.value > 0.015
        assert judged.rivals[name].lead.lower > 0
    for level in LEVELS:
        assert judged.coverage[str(level)].value == pytest.approx(level / 100, abs=0.05)
        assert judged.coverage[str(level)].lower < level / 100


def test_the_forecast_is_of_the_size_of_the_returns_that_came(model, rows):
    ratio = rows.targets.log_return[TEST] ** 2 / model.deviations(LIVELY)[TEST] ** 2
    assert ratio.mean() == pytest.approx(1, abs=0.15)


def test_a_forecast_knows_nothing_of_the_bars_after_its_rows(model):
    early = fit_move(LIVELY.slice(0, 5000), HORIZON, TRAIN, VALIDATION)
    assert early == model


def test_a_row_has_the_same_forecast_alone_as_among_others(model):
    whole = model.deviations(LIVELY)
    alone = model.deviations(LIVELY.slice(5000 - bars_needed(Timeframe.M15), 5000))
    assert alone[-1] == pytest.approx(whole[4999], rel=1e-12)
    assert np.isnan(alone[:-1]).all()


def test_where_validation_rows_prefer_the_cascade_the_forecast_is_not_behind_it():
    steady = make_bars(2500, seed=4)
    rows = MoveRows.of(steady, HORIZON, np.arange(700, 1100), np.arange(1110, 2200))
    chosen = choose_move(rows)
    assert chosen.inputs == (MoveInputs.SPANS,)
    judged = judge_move(move_losses(chosen, rows, np.arange(2210, 2400)), Bootstrap(HORIZON, 50))
    assert judged.rivals[CASCADE].lead.value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("form", MoveForm)
def test_the_cascade_in_each_form_is_least_squares_within_what_train_rows_had(rows, form):
    shaped = {"log": np.log, "root": np.sqrt, "variance": np.asarray}[form]
    back = {"log": np.exp, "root": np.square, "variance": np.asarray}[form]
    model = choose_move(rows, [MoveRegression((MoveInputs.SPANS,), form)])
    spans = shaped(np.exp(move_columns(LIVELY, (MoveInputs.SPANS,))))
    columns = np.column_stack([np.ones(len(spans)), spans])
    target = shaped(rows.realized[rows.train])
    line = columns @ np.linalg.lstsq(columns[rows.train], target, rcond=None)[0]
    if form is not MoveForm.LOG:
        line = np.clip(line, target.min(), target.max())
    variance = back(line)
    known = slice(671, None)
    np.testing.assert_allclose(
        model.deviations(LIVELY)[known] ** 2,
        (variance * rows.scale(variance))[known],
        rtol=2e-2,
    )


def test_a_line_below_zero_is_no_variance(rows):
    model = choose_move(rows, [MoveRegression((MoveInputs.SPANS,), MoveForm.VARIANCE)])
    falling = replace(model, coefficients=tuple(-50 * each for each in model.coefficients))
    deviations = falling.deviations(LIVELY)[671:]
    assert deviations.min() == pytest.approx(math.sqrt(model.bounds[0]))


def test_a_model_from_before_the_forms_is_one_of_logarithms(model):
    content = json.loads(json_codec.dumps(model))
    assert content.pop("form") == "log"
    older = json_codec.decode(MoveModel, content)
    np.testing.assert_array_equal(older.deviations(LIVELY), model.deviations(LIVELY))


def told_of(rows: MoveRows, noise: float) -> MoveRows:
    """Rows with trees that see what will come, more or less."""
    rng = np.random.default_rng(3)
    came = np.log(rows.realized) / 2
    told = np.where(np.isfinite(came), came, -7.0) + noise * rng.normal(size=len(came))
    return replace(rows, log_ranges={"moves": told})


@pytest.mark.parametrize("form", MoveForm)
def test_trees_that_know_something_are_averaged_with_the_regression(rows, form):
    told = told_of(rows, noise=0.2)
    regression = choose_move(rows, [MoveRegression((MoveInputs.SPANS,), form)])
    averaged = average_with_trees(told, regression)
    assert averaged.range_forecast.part == "moves"
    assert (averaged.coefficients, averaged.bounds) == (regression.coefficients, regression.bounds)
    losses = [move_losses(each, told, TEST).model.mean() for each in (averaged, regression)]
    assert losses[0] < 0.8 * losses[1]
    # A geometric mean, of the size of what came on validation rows.
    logs = 0.75 * np.log(regression.deviations(LIVELY)) + 0.25 * told.log_ranges["moves"]
    less = np.log(told.deviations(averaged)) - logs
    np.testing.assert_allclose(less[671:], averaged.range_forecast.log_scale, rtol=1e-9)
    variance = told.deviations(averaged)[VALIDATION] ** 2
    assert (rows.realized[VALIDATION] / variance).mean() == pytest.approx(1, rel=1e-9)
    moved = np.abs(rows.targets.log_return[VALIDATION]) / np.sqrt(variance)
    for level in LEVELS:
        share = (moved <= averaged.quantiles[str(level)]).mean()
        assert share == pytest.approx(level / 100, abs=2e-3)
    assert json_codec.decode(MoveModel, json_codec.loads(json_codec.dumps(averaged))) == averaged


def test_trees_that_know_nothing_are_left_out(rows, model):
    noise = np.random.default_rng(2).normal(size=len(LIVELY))
    nothing = replace(rows, log_ranges={"moves": noise})
    assert average_with_trees(nothing, model) is model
    assert average_with_trees(rows, model) is model
    better = replace(rows, log_ranges={"no": noise, "yes": told_of(rows, 0.2).log_ranges["moves"]})
    assert average_with_trees(better, model).range_forecast.part == "yes"


def test_the_trees_are_judged_with_the_regression(rows):
    told = told_of(rows, noise=0.2)
    parts = (TRAIN, VALIDATION, TEST)
    bootstrap = Bootstrap(HORIZON, repetitions=50, day=96)
    judged = fit_and_judge(LIVELY, HORIZON, parts, bootstrap, told.log_ranges)
    assert judged.model == average_with_trees(told, choose_move(rows))
    assert judged.model.range_forecast is not None
    own = move_losses(judged.model, told, TEST)
    assert judged.judged.qlike == own.model.mean()


def test_the_newest_forecast_with_trees_is_that_of_its_row(rows, model):
    told = told_of(rows, noise=0.2)
    averaged = average_with_trees(told, model)
    log_range = told.log_ranges["moves"][-1]
    expected = 100 * told.deviations(averaged)[-1]
    assert averaged.newest(LIVELY, log_range).percent == pytest.approx(expected, rel=1e-12)
    assert averaged.newest(LIVELY) is None
    with pytest.raises(KeyError, match="moves"):
        averaged.deviations(LIVELY)


@pytest.mark.parametrize(
    "changes", [{"weight": 0.0}, {"weight": 1.5}, {"weight": math.nan}, {"log_scale": math.inf}]
)
def test_numbers_that_make_no_average_are_refused(changes):
    with pytest.raises(ValueError, match="of the forecast of the range"):
        replace(RangeForecast("moves", 0.25, 0.1), **changes)


def test_too_few_rows_or_a_price_that_stands_still_have_no_forecast():
    assert fit_move(LIVELY, HORIZON, np.arange(700, 799), VALIDATION) is None
    assert fit_move(LIVELY, HORIZON, TRAIN, np.arange(4000, 4099)) is None
    still = bars_from_closes([100.0] * 2000)
    assert fit_move(still, HORIZON, np.arange(700, 1200), np.arange(1300, 1900)) is None


def test_a_model_survives_json(model, rows):
    for each in (model, choose_move(rows, CASCADES[1:])):
        assert json_codec.decode(MoveModel, json_codec.loads(json_codec.dumps(each))) == each


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("quantiles", {"50": 1.0, "80": 0.5, "95": 2.0}, "the quantiles do not rise"),
        ("quantiles", {"50": 1.0}, "the quantiles are not of"),
        ("quantiles", {"50": 1.0, "80": 1.5, "95": math.inf}, "is not finite"),
        ("range_factor", 0.0, "range_factor is not positive"),
        ("intercept", math.nan, "is not finite"),
        ("coefficients", [], "no coefficients"),
        ("inputs", [], "no inputs"),
        ("inputs", ["market"], "Invalid enum value 'market'"),
        ("horizon", 0, "no horizon"),
        ("form", "cube", "Invalid enum value 'cube'"),
        ("form", "root", "only a forecast in logarithms has no bounds"),
        ("bounds", [1e-6, 1e-4], "a forecast in logarithms has no bounds"),
    ],
)
def test_numbers_that_make_no_forecast_are_refused(model, key, value, reason):
    content = json.loads(json_codec.dumps(model)) | {key: value}
    with pytest.raises(ValueError, match=reason):
        json_codec.decode(MoveModel, content)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bounds": (0.0, 1.0)}, "not positive, finite and rising"),
        ({"bounds": (1.0, math.inf)}, "not positive, finite and rising"),
        ({"inputs": (MoveInputs.CASCADE,)}, "form root has other inputs than the spans"),
    ],
)
def test_bounds_and_inputs_fit_the_form(rows, changes, reason):
    model = choose_move(rows, [MoveRegression((MoveInputs.SPANS,), MoveForm.ROOT)])
    with pytest.raises(ValueError, match=reason):
        replace(model, **changes)


def test_coefficients_of_another_timeframe_are_refused(model):
    with pytest.raises(ValueError, match="no coefficients for bars of 4h"):
        model.deviations(make_bars(800, timeframe=Timeframe.H4))


def test_garch_over_the_horizon_is_that_of_its_own_forecast():
    from arch import arch_model

    close = np.log(LIVELY.column("close"))
    returns = np.diff(close) * 100
    fitted = arch_model(returns[:3999], mean="Zero", p=1, q=1, rescale=False).fit(disp="off")
    ahead = arch_model(returns[:5000], mean="Zero", p=1, q=1, rescale=False).fix(
        fitted.params.to_numpy()
    )
    said = ahead.forecast(horizon=HORIZON).variance.to_numpy()[-1].sum() / 100**2
    assert garch(LIVELY, 4000, HORIZON)[5000] == pytest.approx(said, rel=1e-6)


def test_every_rival_is_brought_to_the_size_of_what_came(rows):
    for variance in rival_variances(rows).values():
        ratio = rows.realized[VALIDATION] / variance[VALIDATION]
        assert ratio.mean() == pytest.approx(1)


def judged(lead: float, held: float, *rivals: str) -> JudgedMove:
    coverage = {"50": Interval(held, None, None)}
    rival = MoveRival(0.3, Interval(lead, None, None))
    return JudgedMove(10, 0.25, dict.fromkeys((CASCADE, *rivals), rival), coverage)


def test_many_markets_are_summed_up_in_one_line():
    assert sum_up([judged(0.1, 0.5), judged(-0.1, 0.6)]) == (
        "expected move: ahead of cascade on 1 of 2; bands held 50 %: 55.0 % of prices"
    )


def test_a_rival_that_the_first_market_lacks_is_summed_up_too():
    line = sum_up([judged(0.1, 0.5), judged(0.1, 0.5, GARCH)])
    assert "ahead of cascade on 2 of 2, garch on 1 of 1;" in line


def test_a_forecast_that_is_its_rival_is_not_said_to_lead_over_it():
    same = MoveRival(1.5, Interval(0.0, 0.0, 0.0))
    ahead = MoveRival(1.6, Interval(0.1, 0.05, 0.15))
    held = {"50": Interval(0.5, 0.4, 0.6)}

    def first_line(**rivals: MoveRival) -> str:
        return JudgedMoveModel(None, JudgedMove(100, 1.5, rivals, held)).lines()[0]

    assert first_line(cascade=same, garch=ahead) == (
        "QLIKE 1.5000; that of cascade itself; lead +0.1000 [+0.0500, +0.1500] over garch"
    )
    assert first_line(cascade=same) == "QLIKE 1.5000; that of cascade itself"
    assert first_line(garch=ahead) == "QLIKE 1.5000; lead +0.1000 [+0.0500, +0.1500] over garch"
