"""A model in two stages: how far first, then which class."""

import math
from dataclasses import replace

import numpy as np
import pytest
from builders import drop_bars, make_bars
from exported_models import bars_to_learn_from, make_dataset
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from percoin.dataset import SplitSpec
from percoin.evaluation import fold_forecasts, moves_fitting
from percoin.evaluation.baselines import MOVES, POOLED_MOVES, TrainPrior
from percoin.evaluation.fold_forecasts import (
    JudgingRules,
    baseline_inputs,
    fit_pooled_baselines,
    forecast_fold,
)
from percoin.evaluation.moves import RangeRegression, log_range_ahead
from percoin.evaluation.moves_fitting import RangeBoosting, RangeRows, fit_moves
from percoin.evaluation.regression import fit_ridge
from percoin.evaluation.trees import Trees

DAY = 86_400_000
HOUR = 3_600_000
RNG = np.random.default_rng(0)
BARS = bars_to_learn_from(1600)
DATASET = make_dataset(BARS)
INPUTS = baseline_inputs(DATASET)


@pytest.fixture(autouse=True, scope="module")
def _as_many_trees_as_usual():
    few, moves_fitting.N_TREES = moves_fitting.N_TREES, 150
    yield
    moves_fitting.N_TREES = few


@pytest.fixture(scope="module")
def moves():
    return fit_moves(DATASET, INPUTS, 0)


def test_the_range_ahead_is_that_of_a_slow_loop_and_unknown_across_a_gap():
    bars = drop_bars(make_bars(60), [30])
    high, low = bars.column("high"), bars.column("low")
    found = log_range_ahead(bars, 3)
    for row in range(len(bars)):
        if row in (27, 28, 29) or row >= len(bars) - 3:
            assert math.isnan(found[row])
        else:
            ahead = slice(row + 1, row + 4)
            expected = math.log(math.log(high[ahead].max() / low[ahead].min()))
            assert found[row] == pytest.approx(expected, rel=1e-12)
    assert np.isnan(log_range_ahead(bars.slice(0, 3), 3)).all()


def test_the_line_is_the_ridge_of_scikit_learn_also_with_a_column_that_never_changes():
    columns, target = RNG.normal(size=(300, 4)) * (1, 5, 0, 0.1) + 2, RNG.normal(size=300)
    expected = make_pipeline(StandardScaler(), Ridge(10.0)).fit(columns, target)
    coefficients, intercept = fit_ridge(columns, target, 10.0)
    line = RangeRegression(tuple(coefficients.tolist()), intercept)
    asked = RNG.normal(size=(50, 4))
    np.testing.assert_allclose(line.log_range(asked), expected.predict(asked), rtol=1e-9)


def test_trees_of_one_number_say_what_scikit_learn_says():
    rows = RNG.normal(size=(1500, 5))
    rows[RNG.random(rows.shape) < 0.02] = np.nan
    target = np.nan_to_num(rows[:, 0] * rows[:, 1]) + RNG.normal(size=1500)
    fitted = HistGradientBoostingRegressor(max_iter=30, early_stopping=False).fit(rows, target)
    trees = Trees.from_json(Trees.of(fitted).to_json().encode())
    assert trees.n_sums == 1
    np.testing.assert_array_equal(trees.logits(rows)[:, 0], fitted.predict(rows))


class Recorded:
    """In the place of the trees: refuses to be asked for a row that is near a fitted one."""

    apart = DAY

    def fit(self, columns, log_range):
        self.fitted = columns[:, -1]
        return self

    def predict(self, columns):
        nearest = np.abs(columns[:, -1, None] - self.fitted).min(axis=1)
        assert (nearest > self.apart).all()
        asked.extend(columns[:, -1])
        return np.zeros(len(columns))


asked: list[float] = []


def test_rows_before_and_after_those_of_the_pool_are_of_its_first_and_last_block(monkeypatch):
    """The line of a market that the pool has not seen learns from none of its own rows either."""
    opened = np.arange(1200) * HOUR + 7
    columns = np.column_stack([RNG.normal(size=(1200, 3)), opened.astype(float)])
    label = RNG.integers(0, 3, 1200)
    rows = RangeRows(columns, 4, 1, columns[:, 0], opened, label, np.ones(3) / 3, DAY)
    seen = slice(400, 900)
    pool = replace(
        rows, **{key: getattr(rows, key)[seen] for key in ("columns", "log_range", "opened")}
    )
    asked_of_line = []

    class Line(Recorded):
        coefficients, intercept = (0.0,) * 4, 0.0

        def log_range(self, columns):
            asked_of_line.extend(columns[:, -1])
            return super().predict(columns)

    monkeypatch.setattr(moves_fitting, "_make_boosting", lambda seed: Recorded())
    monkeypatch.setattr(moves_fitting, "_fit_line", lambda *rows: Line().fit(*rows))
    monkeypatch.setattr(moves_fitting, "Moves", lambda *parts: parts)
    monkeypatch.setattr(Trees, "of", lambda fitted: fitted)
    RangeBoosting.fit([pool], 0).moves_of(rows)
    assert sorted(asked_of_line) == opened.tolist()


@pytest.mark.parametrize("apart", [DAY, 3 * DAY])
def test_a_logit_learns_from_forecasts_of_rows_that_were_not_fitted_nor_near(monkeypatch, apart):
    """The line too: its own rows are its target, so that it would be right on them alone."""
    opened = np.arange(1200) * HOUR + 7
    columns = np.column_stack([RNG.normal(size=(1200, 3)), opened.astype(float)])
    label = RNG.integers(0, 3, 1200)
    rows = RangeRows(columns, 2, 1, columns[:, 0], opened, label, np.ones(3) / 3, apart)
    lines = []

    def line(fitted, target):
        lines.append(len(fitted))
        return RangeRegression((0.0, 0.0), 0.0)

    monkeypatch.setattr(moves_fitting, "_make_boosting", lambda seed: Recorded())
    monkeypatch.setattr(moves_fitting, "_fit_line", line)
    monkeypatch.setattr(Trees, "of", lambda fitted: fitted)
    monkeypatch.setattr(Recorded, "apart", apart)
    asked.clear()
    RangeBoosting.fit([rows], 0).moves_of(rows)
    assert sorted(asked) == opened.tolist()
    n_apart = apart // HOUR
    # The first and the last block have neighbours on one side alone; at last the whole.
    ends, middle = 1200 - 240 - n_apart, 1200 - 240 - 2 * n_apart
    assert np.abs(np.array(lines) - [ends, *[middle] * 3, ends, 1200]).max() <= 2


def test_rows_to_fit_on_are_apart_by_the_purge_where_a_day_is_shorter():
    rows = RangeRows.of(DATASET, INPUTS)
    assert rows.apart == DAY
    wide = replace(DATASET.spec, split=SplitSpec(purge_bars=200, embargo_bars=3))
    made = RangeRows.of(replace(DATASET, spec=wide), INPUTS)
    assert made.apart == 200 * BARS.timeframe.milliseconds


def test_nothing_of_it_depends_on_what_came_after_the_train_rows(moves):
    newest = int(DATASET.rows("train")[-1]) + DATASET.label_rule.horizon
    label = DATASET.label.copy()
    label[DATASET.rows("validation")] = 0
    label[DATASET.rows("test")] = 2
    frame = BARS.frame.copy()
    frame.iloc[newest + 1 :] *= 1.5
    changed = replace(DATASET, label=label, bars=replace(BARS, frame=frame))
    other = fit_moves(changed, INPUTS, 0).plain().numbers
    own = moves.plain().numbers
    assert (other.ridge, other.classes) == (own.ridge, own.classes)
    assert other.trees.numbers == own.trees.numbers


def test_it_answers_as_its_numbers_and_with_the_shares_where_an_input_is_unknown(moves):
    said = moves.predict_proba(INPUTS)
    logits = moves.plain().logits(INPUTS.columns(moves.columns)[-200:])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(said[-200:], expected, rtol=1e-12)
    # Of the first rows the week of volatility is unknown.
    assert len(np.unique(said[:671], axis=0)) == 1
    assert (moves.predict(INPUTS) == said.argmax(axis=1)).all()


def test_with_too_few_train_rows_it_gives_the_shares_and_has_no_numbers():
    few = make_dataset(BARS.slice(0, 1100))
    made = fit_moves(few, baseline_inputs(few), 0)
    with pytest.raises(ValueError, match=r"moves needs 5 blocks .* 100 rows a day or more from it"):
        made.plain()
    assert len(np.unique(made.predict_proba(baseline_inputs(few)), axis=0)) == 1


@pytest.fixture
def few(monkeypatch):
    """No other baselines than the reference, which would take their time."""
    monkeypatch.setattr(fold_forecasts, "default_baselines", lambda seed: [TrainPrior()])
    monkeypatch.setattr(fold_forecasts, "pooled_baselines", lambda seed: [])


def test_a_pool_shares_its_trees_and_each_market_has_its_own_line_and_logit(few):
    other = make_dataset(bars_to_learn_from(1600, seed=5))
    unseen = make_dataset(bars_to_learn_from(1600, seed=6))
    assert fit_pooled_baselines([DATASET, other]) == []
    [boosting] = fit_pooled_baselines([DATASET, other], has_moves=True)
    made = []
    for market in (DATASET, other, unseen):
        rules = JudgingRules(model_name="blend", blend=(POOLED_MOVES,))
        logits = [np.zeros((len(market.rows(part)), 3)) for part in ("validation", "test")]
        fold = forecast_fold(market, *logits, rules, [boosting])
        # A part of the model is a baseline, and may be the rival.
        assert fold.baselines[-1].name == POOLED_MOVES
        assert POOLED_MOVES in fold.validation_losses
        made.append(fold.parts[POOLED_MOVES].numbers.numbers)
    assert len({each.ridge for each in made}) == len({each.classes for each in made}) == 3
    first, *others = (each.trees.numbers for each in made)
    assert all(each == first for each in others)


def test_it_is_fitted_where_it_is_a_part_and_not_otherwise(monkeypatch, few):
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("percoin.evaluation.fold_forecasts.fit_moves", never)
    logits = [np.zeros((len(DATASET.rows(part)), 3)) for part in ("validation", "test")]
    fold = forecast_fold(DATASET, *logits, JudgingRules())
    assert MOVES not in fold.validation_losses
    with pytest.raises(AssertionError):
        forecast_fold(DATASET, *logits, JudgingRules(blend=(MOVES,)))


def test_where_the_range_says_more_than_the_classes_it_is_ahead_of_the_logit():
    """Volatility of the bars ahead is known from a feature, in a way that a line does not see."""
    rows = RangeRows.of(DATASET, INPUTS)
    wild = np.abs(rows.columns[:, -1])
    log_range = wild + 0.1 * RNG.normal(size=len(wild))
    label = np.where(wild > np.median(wild), 2 * RNG.integers(0, 2, len(wild)), 1)
    known = replace(rows, log_range=log_range, label=label)
    numbers = RangeBoosting.fit([known], 0, MOVES).moves_of(known).plain()
    said = numbers.logits(known.columns).argmax(axis=1) == 1
    # Half of the rows have either label, and a line on the feature would tell no more.
    assert (said == (label == 1)).mean() > 0.75
