"""A market meets the evaluation: what may be known when, and on which bars money is made."""

import math
from dataclasses import replace

import numpy as np
import pytest
from builders import bars_from_closes, drop_bars, make_bars
from hypothesis import given, settings
from hypothesis import strategies as st

from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec, build_dataset, build_folds
from percoin.evaluation import fold_forecasts, judgement
from percoin.evaluation.backtest import Costs, Exit, backtest
from percoin.evaluation.baselines import (
    LOGISTIC,
    MAJORITY,
    ROLLING_PRIOR,
    TRAIN_PRIOR,
    UNCALIBRATED,
    class_shares,
    default_baselines,
)
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.fold_forecasts import (
    JudgingRules,
    baseline_inputs,
    fit_pooled_baselines,
    forecast_fold,
)
from percoin.evaluation.judgement import choose_rival, judge_folds
from percoin.evaluation.level_reach import find_reached
from percoin.evaluation.metrics import log_loss_skill, row_log_loss
from percoin.evaluation.threshold import ThresholdChoice, decide
from percoin.evaluation.trading import bars_per_year
from percoin.features.feature_set import FEATURE_NAMES, FeatureSet
from percoin.features.levels import find_levels, levels_along
from percoin.features.rules import read_momentum, read_rsi_ma
from percoin.features.scaling import Scaling
from percoin.labels import FixedHorizon, LabelRule, TripleBarrier
from percoin.splits import Split
from percoin.types import NO_TRADES, Signal, Timeframe

FIXED = FixedHorizon(horizon=3, threshold=0.0025)
BARRIER = TripleBarrier(horizon=5, barrier_width=1.0, volatility_bars=20)
RULES = JudgingRules(repetitions=50)
both_label_rules = pytest.mark.parametrize("rule", [FIXED, BARRIER], ids=["fixed", "barrier"])


def spec(rule: LabelRule) -> SplitSpec:
    return SplitSpec(purge_bars=rule.horizon, embargo_bars=rule.horizon)


def dataset_of(bars: Bars, rule: LabelRule = FIXED) -> MarketDataset:
    return build_dataset(bars, DatasetSpec(rule, FeatureSet(), 8, spec(rule), 365))


def folds_of(bars: Bars, n_folds: int, rule: LabelRule = FIXED) -> list[MarketDataset]:
    return build_folds(bars, DatasetSpec(rule, FeatureSet(), 8, spec(rule), 365), n_folds)


def change_from(bars: Bars, position: int, factor: float = 1.7) -> Bars:
    """Other prices and volumes from a bar on, still a valid market."""
    frame = bars.frame.copy()
    wave = 1 + 0.02 * np.sin(np.arange(len(frame) - position))
    frame.iloc[position:] = frame.iloc[position:].to_numpy() * factor * wave[:, None]
    return replace(bars, frame=frame)


def logits_of(dataset: MarketDataset, part: str, seed: int = 0) -> np.ndarray:
    rows = dataset.rows(part)
    return np.random.default_rng(seed + len(part)).normal(size=(len(rows), len(Signal)))


def forecast(dataset: MarketDataset, seed: int = 0, rules: JudgingRules = RULES):
    logits = (logits_of(dataset, part, seed) for part in ("validation", "test"))
    return forecast_fold(dataset, *logits, rules)


@pytest.fixture
def quick_baselines(monkeypatch):
    """Those that fit at once; what they say is not these tests' business."""
    quick = (MAJORITY, TRAIN_PRIOR, ROLLING_PRIOR, LOGISTIC)
    few = [baseline for baseline in default_baselines() if baseline.name in quick]
    monkeypatch.setattr(fold_forecasts, "default_baselines", lambda seed: few)


@pytest.fixture
def backtests(monkeypatch):
    """What was handed to every backtest, by name."""
    seen = {}

    def spy(name, prices, signals, exit_rule, costs, **kwargs):
        seen[name] = (prices, signals, exit_rule)
        return backtest(name, prices, signals, exit_rule, costs, **kwargs)

    monkeypatch.setattr(judgement, "backtest", spy)
    return seen


BARS = make_bars(700)
DATASETS = {rule.kind: dataset_of(BARS, rule) for rule in (FIXED, BARRIER)}


@both_label_rules
@settings(max_examples=15)
@given(data=st.data())
def test_what_baselines_know_at_a_close_does_not_change_with_later_bars(rule, data):
    dataset = DATASETS[rule.kind]
    # From the first test row on, so that the scaling, which is train's, stays.
    known_until = data.draw(st.integers(int(dataset.rows("test")[0]), len(BARS) - 2))
    factor = data.draw(st.floats(0.3, 3.0))
    changed = baseline_inputs(dataset_of(change_from(BARS, known_until + 1, factor), rule))
    for name, values in vars(baseline_inputs(dataset)).items():
        same = getattr(changed, name)[: known_until + 1]
        np.testing.assert_array_equal(same, values[: known_until + 1], err_msg=name)


def test_labels_themselves_do_change_with_later_bars():
    # Or the test above would say nothing about the last known label.
    dataset = DATASETS[FIXED.kind]
    row = int(dataset.rows("test")[5])
    changed = dataset_of(change_from(BARS, row + 1))
    assert (changed.label[row - 2 : row + 1] != dataset.label[row - 2 : row + 1]).any()
    np.testing.assert_array_equal(changed.label[: row - 2], dataset.label[: row - 2])


@both_label_rules
def test_the_last_known_label_is_that_of_a_horizon_ago(rule):
    dataset = DATASETS[rule.kind]
    known = baseline_inputs(dataset).last_known_label
    assert (known[: rule.horizon] == -1).all()
    for row in range(rule.horizon, len(BARS)):
        assert known[row] == dataset.label[row - rule.horizon]


@both_label_rules
def test_no_label_is_known_that_needs_bars_across_a_gap(rule):
    gap = 600
    dataset = dataset_of(drop_bars(BARS, range(gap, gap + 4)), rule)
    known = baseline_inputs(dataset).last_known_label
    # Labels of the last bars before the gap never settle.
    assert (known[gap : gap + rule.horizon] == -1).all()
    # After it they do, those of the barriers once their volatility is known again.
    again = gap + (0 if rule is FIXED else rule.past_bars)
    assert known[again + rule.horizon] == dataset.label[again] != -1


def test_the_rules_speak_on_the_models_own_bars():
    inputs = baseline_inputs(DATASETS[FIXED.kind])
    np.testing.assert_array_equal(inputs.rsi_ma, read_rsi_ma(BARS).signal)
    np.testing.assert_array_equal(inputs.momentum, read_momentum(BARS).signal)
    assert {*inputs.momentum} == {*Signal}


@pytest.mark.usefixtures("quick_baselines")
@both_label_rules
def test_calibration_and_threshold_do_not_change_with_test_rows(rule):
    dataset = DATASETS[rule.kind]
    before = forecast(dataset)
    first_test = int(dataset.rows("test")[0])
    # The embargo lies between the last bar that a validation label sees and this one.
    other_bars = dataset_of(change_from(BARS, first_test), rule)
    np.testing.assert_array_equal(other_bars.rows("test"), dataset.rows("test"))
    after = forecast_fold(
        other_bars,
        logits_of(dataset, "validation"),
        10 * logits_of(dataset, "test", seed=9),
        RULES,
    )
    assert after.calibration == before.calibration
    assert after.threshold == before.threshold
    assert not np.array_equal(after.model.probabilities, before.model.probabilities)


@pytest.mark.usefixtures("quick_baselines")
def test_calibration_and_threshold_follow_the_validation_rows():
    dataset = DATASETS[FIXED.kind]
    before = forecast(dataset)
    sure = 4 * np.eye(3)[dataset.label[dataset.rows("validation")]]
    after = forecast_fold(dataset, sure, logits_of(dataset, "test"), RULES)
    assert before.calibration == fit_calibration(
        logits_of(dataset, "validation"), dataset.label[dataset.rows("validation")]
    )
    assert after.calibration["temperature"] < before.calibration["temperature"]
    assert after.threshold != before.threshold


@pytest.mark.usefixtures("quick_baselines")
@both_label_rules
def test_the_threshold_is_chosen_on_validation_bars_alone(rule, monkeypatch):
    dataset = DATASETS[rule.kind]
    seen = {}

    def spy(probabilities, rows, prices, exit_rule, costs):
        seen.update(rows=rows, prices=prices, exit_rule=exit_rule)
        return chosen(probabilities, rows, prices, exit_rule, costs)

    chosen = fold_forecasts.choose_threshold
    monkeypatch.setattr(fold_forecasts, "choose_threshold", spy)
    forecast(dataset)

    rows = dataset.rows("validation")
    span = slice(int(rows[0]), int(rows[-1]) + rule.horizon + 1)
    assert span.stop <= dataset.rows("test")[0]
    np.testing.assert_array_equal(seen["prices"].close, BARS.column("close")[span])
    np.testing.assert_array_equal(seen["rows"] + span.start, rows)
    check_barriers(seen["exit_rule"], rule, span)


def check_barriers(exit_rule, rule, span):
    assert exit_rule.horizon == rule.horizon
    if rule is FIXED:
        assert exit_rule.barrier_width is None
    else:
        expected = rule.barrier_distance(DATASETS[rule.kind].bars)[span]
        np.testing.assert_array_equal(exit_rule.barrier_width, expected)


@pytest.mark.usefixtures("quick_baselines")
@both_label_rules
def test_money_is_made_on_bars_of_the_test_period_alone(rule, backtests):
    dataset = DATASETS[rule.kind]
    fold = forecast(dataset)
    judgement = judge_folds([fold], RULES)

    rows = dataset.rows("test")
    span = slice(int(rows[0]), int(rows[-1]) + rule.horizon + 1)
    prices, signals, exit_rule = backtests["cnn_lstm"]
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(prices, name), BARS.column(name)[span])
    check_barriers(exit_rule, rule, span)
    decided = decide(fold.model.probabilities, fold.threshold)
    np.testing.assert_array_equal(signals[rows - span.start], decided)
    assert {len(result.equity) for result in judgement.evaluation.money} == {len(prices)}


@pytest.mark.usefixtures("quick_baselines")
def test_hand_worked_positions_and_money(backtests):
    # Bars 8 to 11 are the test period: LONG at the close of 8 (100 -> 110), nothing at
    # 9, SHORT at the close of 10 (120 -> 90).
    closes = [100, 101, 99, 99.2, 102, 101, 100, 99, 100, 110, 120, 90]
    bars = bars_from_closes(closes)
    features = np.random.default_rng(0).normal(size=(len(bars), len(FEATURE_NAMES)))
    rule = FixedHorizon(horizon=1, threshold=0.005)
    labels = rule.label(bars)
    dataset = MarketDataset(
        bars=bars,
        spec=DatasetSpec(rule, lookback=1),
        features=features.astype(np.float32),
        scaling=Scaling.fit(features),
        label=labels.label,
        forward_return=labels.forward_return,
        split=Split(np.arange(4), np.array([5, 6]), np.array([8, 9, 10])),
    )
    says = np.array([Signal.LONG, Signal.NO_TRADE, Signal.SHORT])
    rules = replace(RULES, costs=Costs(fee_bps=0, slippage_bps=0))
    fold = forecast_fold(dataset, np.zeros((2, 3)), 5 * np.eye(3)[says], rules)
    evaluation = judge_folds([replace(fold, threshold=0.0)], rules).evaluation

    prices, signals, _ = backtests["cnn_lstm"]
    assert prices.close.tolist() == [100, 110, 120, 90]
    assert signals.tolist() == [Signal.LONG, Signal.NO_TRADE, Signal.SHORT, Signal.NO_TRADE]
    model, hold = evaluation.money[0], evaluation.money[-1]
    assert model.equity.tolist() == pytest.approx([1, 1.1, 1.1, 1.1 * (1 + 30 / 120)])
    assert model.n_trades == 2
    assert hold.net_return == pytest.approx(90 / 100 - 1)
    # The labels are LONG, LONG, SHORT: two of three were named.
    assert evaluation.class_counts == (1, 0, 2)
    assert evaluation.model.scores.accuracy == pytest.approx(2 / 3)


@pytest.mark.usefixtures("quick_baselines")
@both_label_rules
def test_no_position_is_held_over_missing_bars(rule, backtests):
    gap = 640
    dataset = dataset_of(drop_bars(BARS, range(gap, gap + 7)), rule)
    always_long = np.tile([0.0, 0.0, 9.0], (len(dataset.rows("test")), 1))
    fold = forecast_fold(dataset, logits_of(dataset, "validation"), always_long, RULES)
    judge_folds([replace(fold, threshold=0.0)], RULES)

    _, signals, exit_rule = backtests["cnn_lstm"]
    opened = dataset.bars.open_time[int(dataset.rows("test")[0]) :]
    decided = np.flatnonzero(signals != Signal.NO_TRADE)
    held = opened[decided + exit_rule.horizon] - opened[decided]
    assert (held == rule.horizon * Timeframe.M15.milliseconds).all()
    before_gap = gap - int(dataset.rows("test")[0])
    assert decided[decided < before_gap].max() == before_gap - rule.horizon - 1
    assert decided.max() >= before_gap


@pytest.mark.usefixtures("quick_baselines")
@both_label_rules
def test_folds_are_pooled_in_time_order_each_beside_its_own_prior(rule, backtests):
    datasets = folds_of(make_bars(1200), 3, rule)
    folds = [forecast(dataset, seed) for seed, dataset in enumerate(datasets)]
    # Three thresholds of their own, one of which lets nothing through.
    folds = [replace(f, threshold=t) for f, t in zip(folds, (0.0, 0.5, 1.0), strict=True)]
    judgement = judge_folds(folds, RULES)
    evaluation = judgement.evaluation

    rows = [dataset.rows("test") for dataset in datasets]
    assert evaluation.n_rows == sum(map(len, rows)) == len(np.unique(np.concatenate(rows)))
    assert (np.diff(np.concatenate(rows)) > 0).all()
    labels = np.concatenate([d.label[r] for d, r in zip(datasets, rows, strict=True)])
    assert evaluation.class_counts == tuple(np.bincount(labels, minlength=3))
    losses = row_log_loss(np.concatenate([f.model.probabilities for f in folds]), labels)
    priors = np.concatenate(
        [
            np.tile(class_shares(d.label[d.rows("train")]), (len(r), 1))
            for d, r in zip(datasets, rows, strict=True)
        ]
    )
    expected = log_loss_skill(losses, row_log_loss(priors, labels))
    assert evaluation.model.skill.value == pytest.approx(expected)
    assert judgement.calibration == folds[-1].calibration
    assert judgement.threshold == folds[-1].threshold
    daily = judgement.daily
    assert sum(daily.n_rows) == evaluation.n_rows
    assert 1 - sum(daily.model) / sum(daily.train_prior) == pytest.approx(expected)
    lead = (sum(daily.best_baseline) - sum(daily.model)) / evaluation.n_rows
    assert lead == pytest.approx(evaluation.against_best.value)

    _, signals, _ = backtests["cnn_lstm"]
    first = int(rows[0][0])
    assert len(signals) == int(rows[-1][-1]) + rule.horizon + 1 - first
    for fold, fold_rows in zip(folds, rows, strict=True):
        decided = decide(fold.model.probabilities, fold.threshold)
        np.testing.assert_array_equal(signals[fold_rows - first], decided)
    assert (signals[rows[-1] - first] == Signal.NO_TRADE).all()
    between = np.setdiff1d(np.arange(len(signals)), np.concatenate(rows) - first)
    assert (signals[between] == Signal.NO_TRADE).all()


@pytest.mark.usefixtures("quick_baselines")
@pytest.mark.usefixtures("quick_baselines")
def test_the_hit_rate_is_that_of_the_directions_on_all_test_rows():
    folds = [forecast(dataset, seed) for seed, dataset in enumerate(folds_of(make_bars(3000), 3))]
    rate = judge_folds(folds, RULES).hit_rate
    labels = np.concatenate([fold.dataset.label[fold.dataset.rows("test")] for fold in folds])
    said = np.concatenate([fold.model.probabilities.argmax(axis=1) for fold in folds])
    moved = (said != Signal.NO_TRADE) & (labels != Signal.NO_TRADE)
    assert rate.n_moves == moved.sum() > 0
    assert rate.value == pytest.approx((said == labels)[moved].mean())
    assert rate.lower < rate.value < rate.upper


def test_folds_that_overlap_or_are_out_of_order_are_refused():
    folds = [forecast(dataset) for dataset in folds_of(BARS, 2)]
    for wrong in ([folds[1], folds[0]], [folds[0], folds[0]]):
        with pytest.raises(ValueError, match="overlap or are not in time order"):
            judge_folds(wrong, RULES)


@pytest.mark.usefixtures("quick_baselines")
def test_folds_that_share_a_single_test_row_are_refused(quick_baselines):
    first, second = folds_of(BARS, 2)
    shared = int(first.rows("test")[-1])
    again = np.concatenate([[shared], second.rows("test")])
    overlapping = replace(second, split=replace(second.split, test=again))

    with pytest.raises(ValueError, match="overlap"):
        judge_folds([forecast(first), forecast(overlapping)], RULES)


def test_every_trial_is_paid_for_in_the_models_own_sharpe_ratio(quick_baselines):
    dataset = DATASETS[FIXED.kind]
    fold = replace(forecast(dataset), threshold=0.0)
    alone, chosen = (judge_folds([fold], replace(RULES, n_trials=n)).evaluation for n in (1, 40))
    (mine, *others), (deflated, *same) = alone.money, chosen.money

    assert (mine.n_trials, deflated.n_trials) == (1, 40)
    assert deflated.deflated_sharpe < mine.deflated_sharpe
    assert [result.n_trials for result in same] == [1] * len(others)


def test_looks_at_the_test_rows_reach_the_gate(quick_baselines):
    rules = replace(RULES, n_trials=7, n_looks=3)
    verdict = judge_folds([forecast(DATASETS[FIXED.kind])], rules).evaluation.verdict

    assert any(
        "3 chosen models, this one included, were judged on the same test rows" in c
        for c in verdict.cautions
    )
    assert any("chosen from 7 trials" in caution for caution in verdict.cautions)


def test_a_baseline_that_never_trades_has_no_line_of_money(quick_baselines):
    quiet = dataset_of(BARS, FixedHorizon(horizon=3, threshold=0.008))
    money = judge_folds([forecast(quiet)], RULES).evaluation.money

    assert money[0].name == RULES.model_name
    assert money[-1].name == "buy_and_hold"
    assert MAJORITY not in [result.name for result in money]
    assert all(result.n_trades for result in money[1:])


def test_a_newest_fold_without_the_older_bars_is_refused():
    oldest, newest = (forecast(dataset) for dataset in folds_of(make_bars(900), 2))
    cut = int(newest.dataset.rows("train")[0]) + 500
    shorter = forecast(dataset_of(make_bars(900).slice(cut)))
    assert oldest.dataset.rows("test")[0] < cut
    with pytest.raises(ValueError, match="do not hold every test row"):
        judge_folds([oldest, shorter], RULES)


@both_label_rules
def test_every_baseline_is_fitted_on_train_rows_and_asked_about_test_rows(rule):
    dataset = DATASETS[rule.kind]
    fold = forecast(dataset)
    inputs, train, test = baseline_inputs(dataset), dataset.rows("train"), dataset.rows("test")
    assert [f.name for f in fold.baselines] == [b.name for b in default_baselines()]
    for baseline, said in zip(default_baselines(), fold.baselines, strict=True):
        baseline.fit(inputs.take(train), dataset.label[train])
        expected = baseline.predict_proba(inputs.take(test))
        if baseline.name not in UNCALIBRATED:
            # As the model is: on validation rows.
            known = baseline.predict_proba(inputs.take(dataset.rows("validation")))
            calibration = fit_calibration(np.log(known), dataset.label[dataset.rows("validation")])
            expected = apply_calibration(np.log(expected), calibration)
        np.testing.assert_allclose(said.probabilities, expected, rtol=1e-12)
        np.testing.assert_array_equal(said.decisions, baseline.predict(inputs.take(test)))


def test_baselines_do_not_change_with_test_labels():
    dataset = DATASETS[FIXED.kind]
    label = dataset.label.copy()
    later = dataset.rows("test")
    label[later] = np.random.default_rng(3).permutation(label[later])
    # Labels that have settled are an input of two; here only what is learnt is looked at.
    learnt = {b.name for b in default_baselines()} - {"persistence", "rolling_prior"}
    before, after = forecast(dataset), forecast(replace(dataset, label=label))
    for one, other in zip(before.baselines, after.baselines, strict=True):
        if one.name in learnt:
            np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_the_rival_is_the_strongest_baseline_on_validation_rows():
    dataset = DATASETS[FIXED.kind]
    fold = forecast(dataset)
    assert set(fold.validation_losses) == {f.name for f in fold.baselines}
    shares = class_shares(dataset.label[dataset.rows("train")])
    expected = -np.log(shares[dataset.label[dataset.rows("validation")]]).mean()
    assert fold.validation_losses["train_prior"] == pytest.approx(expected)

    named = replace(fold, validation_losses={**fold.validation_losses, "momentum": 0.1})
    judgement = judge_folds([named], RULES)
    evaluation, daily = judgement.evaluation, judgement.daily
    assert evaluation.rival == "momentum"
    lead = evaluation.lead.value
    by_name = {line.name: line.scores.log_loss for line in evaluation.baselines}
    assert lead == pytest.approx(by_name["momentum"] - evaluation.model.scores.log_loss)
    assert (sum(daily.rival) - sum(daily.model)) / sum(daily.n_rows) == pytest.approx(lead)


def test_over_several_folds_the_rival_is_strongest_over_all_validation_rows():
    folds = [forecast(dataset) for dataset in folds_of(make_bars(900), 2)]
    losses = [dict.fromkeys(fold.validation_losses, 1.0) for fold in folds]
    losses[0] |= {"logistic": 0.1, "boosting": 0.4}
    losses[1] |= {"logistic": 0.9, "boosting": 0.4}
    changed = [replace(f, validation_losses=own) for f, own in zip(folds, losses, strict=True)]
    assert choose_rival(changed) == "boosting"
    assert choose_rival(changed[:1]) == "logistic"


def test_intervals_have_blocks_of_a_day_at_least():
    evaluation = judge_folds([forecast(DATASETS[FIXED.kind])], RULES).evaluation
    assert evaluation.bootstrap.day == 96
    assert evaluation.model.skill.block_length >= 96


def test_daily_bars_make_at_most_sixteen_blocks_too():
    bars = make_bars(2000, timeframe=Timeframe.D1)
    daily = build_dataset(bars, DatasetSpec(FIXED, FeatureSet(), 8, spec(FIXED), 3000))
    evaluation = judge_folds([forecast(daily)], RULES).evaluation
    assert evaluation.bootstrap.day == 1
    assert evaluation.model.skill.block_length >= evaluation.n_rows // 16 > 10


def test_where_no_threshold_pays_the_verdict_says_that_nothing_is_traded():
    fold = forecast(DATASETS[FIXED.kind])
    never = judge_folds([replace(fold, threshold=NO_TRADES)], RULES)
    assert any(text.startswith("no trades:") for text in never.evaluation.verdict.cautions)
    assert never.evaluation.money[0].n_trades == 0
    sometimes = judge_folds([replace(fold, threshold=0.0)], RULES)
    assert not any("no trades" in text for text in sometimes.evaluation.verdict.cautions)


def test_baselines_of_a_pool_stand_beside_those_of_the_market():
    dataset = DATASETS[FIXED.kind]
    pooled = fit_pooled_baselines([dataset, dataset])
    logits = (logits_of(dataset, part) for part in ("validation", "test"))
    fold = forecast_fold(dataset, *logits, RULES, pooled)
    names = [f.name for f in fold.baselines]
    assert names[-3:] == [baseline.name for baseline in pooled]
    evaluation = judge_folds([fold], RULES).evaluation
    assert [line.name for line in evaluation.baselines] == names


def test_a_year_has_as_many_bars_as_the_timeframe_says():
    assert bars_per_year(Timeframe.M15) == 35_040
    assert bars_per_year(Timeframe.D1) == 365
    assert math.isclose(bars_per_year(Timeframe.H4), 2190)


@pytest.mark.usefixtures("quick_baselines")
@both_label_rules
def test_positions_close_at_the_levels_that_are_served_if_the_rules_say_so(rule, backtests):
    dataset = DATASETS[rule.kind]
    rules = replace(RULES, exit=Exit.LEVELS)
    judge_folds([replace(forecast(dataset, rules=rules), threshold=0.0)], rules)

    first = int(dataset.rows("test")[0])
    for name in ("cnn_lstm", LOGISTIC):
        prices, _, exit_rule = backtests[name]
        assert (exit_rule.horizon, exit_rule.barrier_width) == (rule.horizon, None)
        for place in (0, 5, len(prices) - 1):
            bars = dataset.bars.slice(0, first + place + 1)
            long, short = (find_levels(bars, signal) for signal in (Signal.LONG, Signal.SHORT))
            ends = exit_rule.brackets.long[place], exit_rule.brackets.short[place]
            np.testing.assert_allclose(ends[0], (long.stop_loss, long.tp1), rtol=1e-9)
            np.testing.assert_allclose(ends[1], (short.tp1, short.stop_loss), rtol=1e-9)


@pytest.mark.usefixtures("quick_baselines")
def test_the_threshold_is_chosen_with_the_exit_that_is_judged(monkeypatch):
    seen = []
    monkeypatch.setattr(
        fold_forecasts,
        "choose_threshold",
        lambda probabilities, rows, prices, exit_rule, costs: (
            seen.append(exit_rule) or ThresholdChoice(0.5, 0.1, 20)
        ),
    )
    forecast(DATASETS[FIXED.kind], rules=replace(RULES, exit=Exit.LEVELS))
    forecast(DATASETS[FIXED.kind])

    assert [rule.brackets is not None for rule in seen] == [True, False]


@pytest.mark.usefixtures("quick_baselines")
def test_levels_are_counted_on_the_directions_of_the_test_rows_of_all_folds():
    datasets = folds_of(make_bars(3000), 3)
    folds = [forecast(dataset, seed) for seed, dataset in enumerate(datasets)]
    # The threshold of trading changes nothing about them.
    levels = judge_folds([replace(fold, threshold=NO_TRADES) for fold in folds], RULES).levels

    reached = np.zeros(4)
    n_signals = 0
    for fold in folds:
        bars = fold.dataset.bars
        for row, signal in zip(
            fold.dataset.rows("test"), decide(fold.model.probabilities), strict=True
        ):
            if signal == Signal.NO_TRADE:
                continue
            alone = levels_along(bars, np.array([row]), np.array([signal]))
            reached += find_reached(bars, np.array([row]), alone, FIXED.horizon)[0]
            n_signals += 1
    assert levels.n_signals == n_signals > 500
    shares = [levels.stop_loss, levels.tp1, levels.tp2, levels.tp3]
    assert [share.value for share in shares] == pytest.approx(reached / n_signals)
