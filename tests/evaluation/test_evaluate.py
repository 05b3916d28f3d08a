import json

import numpy as np
import pytest
from forecast_builders import draw_labels, prior_forecast, true_probabilities

from percoin.evaluation.backtest import Costs, ExitRule, Prices, backtest, buy_and_hold
from percoin.evaluation.evaluate import Forecast, assess, evaluate, pool
from percoin.evaluation.gate import Outcome, Search
from percoin.evaluation.metrics import log_loss_skill, row_log_loss
from percoin.evaluation.table import (
    class_rows,
    format_evaluation,
    headline,
    score_rows,
    skill_rows,
)
from percoin.evaluation.uncertainty import Bootstrap
from percoin.types import Signal

BOOTSTRAP = Bootstrap(horizon=3, seed=0, repetitions=200)
TRUTH = true_probabilities(1500, edge=0.8, seed=0)
LABELS = draw_labels(TRUTH, seed=1)
PRIOR = prior_forecast(LABELS)
BLURRED = Forecast("blurred", (TRUTH + PRIOR.probabilities) / 2)


def money(n_bars=1500):
    rng = np.random.default_rng(0)
    close = 100 * np.exp(rng.normal(scale=0.01, size=n_bars).cumsum())
    prices = Prices(close, close * 1.001, close * 0.999, close)
    signals = rng.integers(0, 3, n_bars)
    return (
        backtest("model", prices, signals, ExitRule(3), Costs(), bars_per_year=365, n_trials=4),
        buy_and_hold(prices, Costs(), bars_per_year=365),
    )


def evaluated(model=None, labels=LABELS, baselines=(PRIOR, BLURRED), **options):
    model = model or Forecast("model", TRUTH)
    return evaluate(model, baselines, labels, bootstrap=BOOTSTRAP, **options)


def test_skill_is_measured_from_the_train_prior():
    evaluation = evaluated()
    expected = log_loss_skill(
        row_log_loss(TRUTH, LABELS), row_log_loss(PRIOR.probabilities, LABELS)
    )
    assert evaluation.model.skill.value == pytest.approx(expected)
    assert evaluation.baselines[0].skill.value == pytest.approx(0)
    assert evaluation.baselines[0].skill.upper == pytest.approx(0)


def test_the_best_baseline_is_compared_row_by_row():
    evaluation = evaluated()
    assert evaluation.best_baseline == "blurred"
    gains = row_log_loss(BLURRED.probabilities, LABELS) - row_log_loss(TRUTH, LABELS)
    assert evaluation.against_best.value == pytest.approx(gains.mean())


def test_the_rival_is_the_one_named_whatever_is_best_on_these_rows():
    evaluation = evaluated(rival="train_prior")
    assert (evaluation.rival, evaluation.best_baseline) == ("train_prior", "blurred")
    gains = row_log_loss(PRIOR.probabilities, LABELS) - row_log_loss(TRUTH, LABELS)
    assert evaluation.lead.value == pytest.approx(gains.mean())
    assert evaluation.verdict.reasons[-1].startswith("ahead of train_prior: train_prior minus")
    with pytest.raises(ValueError, match="the rival 'nobody' is none of the baselines"):
        evaluated(rival="nobody")


def test_a_rival_that_only_rounding_tells_from_the_model_is_level():
    rounded = Forecast("twin", TRUTH * (1 + 1e-9) / (TRUTH * (1 + 1e-9)).sum(axis=1, keepdims=True))
    noisy = Forecast("twin", np.clip(rounded.probabilities + 1e-10, 0, 1))
    evaluation = evaluated(baselines=(PRIOR, noisy), rival="twin")
    assert (evaluation.lead.lower, evaluation.lead.upper) == (0, 0)
    assert evaluation.shown() == "skill shown, level with twin"


def test_skill_is_told_over_the_rolling_prior_too():
    recent = Forecast("rolling_prior", BLURRED.probabilities)
    evaluation = evaluated(baselines=(PRIOR, recent))
    expected = log_loss_skill(
        row_log_loss(TRUTH, LABELS), row_log_loss(recent.probabilities, LABELS)
    )
    assert evaluation.model.recent_skill.value == pytest.approx(expected)
    assert evaluation.baselines[1].recent_skill.value == pytest.approx(0)
    assert evaluated().model.recent_skill is None


def test_who_knows_no_more_than_the_mood_of_the_day_is_not_accepted():
    # As good as the truth where that is all the rolling prior needs to know as well.
    recent = Forecast("rolling_prior", TRUTH)
    evaluation = evaluated(model=BLURRED, baselines=(PRIOR, recent), rival="train_prior")
    assert evaluation.model.skill.lower > 0
    assert evaluation.verdict.outcome is Outcome.REJECTED
    assert evaluation.verdict.reasons[0].startswith("worse than the rolling prior")
    assert evaluation.shown() == "no skill shown"


def test_words_for_people_say_what_was_shown():
    evaluation = evaluated(rival="blurred")
    assert evaluation.shown() == "skill shown, ahead of blurred"
    assert evaluation.shown(Outcome.REJECTED) == "no skill shown among all that was tried"
    among = "not significant among the 9 models tried: p=0.02, false discovery rate 0.05"
    gone = "its live skill is gone: live -0.04 [-0.05, -0.03], at most -0.02"
    assert evaluation.shown(Outcome.REJECTED, among) == "no skill shown among all that was tried"
    assert evaluation.shown(Outcome.REJECTED, gone) == "its live skill is gone"
    looks = evaluated(rival="blurred", search=Search(n_looks=9999))
    assert looks.shown() == "no skill shown among all that was tried"
    level = evaluated(baselines=(PRIOR, Forecast("twin", TRUTH)), rival="twin")
    assert level.shown() == "skill shown, level with twin"
    behind = evaluated(model=BLURRED, baselines=(PRIOR, Forecast("truth", TRUTH)), rival="truth")
    assert behind.shown() == "skill shown, behind truth"
    assert behind.verdict.outcome is Outcome.REJECTED


def test_a_constant_model_is_rejected_by_name():
    evaluation = evaluated(model=Forecast("constant", np.tile([0.1, 0.8, 0.1], (1500, 1))))
    assert evaluation.verdict.outcome is Outcome.REJECTED
    assert headline(evaluation).startswith("REJECTED constant: no skill shown")
    assert evaluation.verdict.reasons[0].startswith("collapsed (constant)")


def test_a_model_of_a_quiet_market_may_always_find_no_trade_likeliest():
    truth = 0.45 * TRUTH + 0.55 * np.array([0.0, 1.0, 0.0])
    assert set(truth.argmax(axis=1)) == {Signal.NO_TRADE}
    labels = draw_labels(truth, seed=1)
    evaluation = evaluated(Forecast("model", truth), labels, (prior_forecast(labels),))
    assert evaluation.collapse is None
    assert evaluation.verdict.outcome is Outcome.ACCEPTED
    assert "decides NO_TRADE on 100.0% of the rows" in evaluation.verdict.cautions
    # Of who gives signals alone that is all there is.
    always = Forecast("model", truth, np.full(len(truth), Signal.NO_TRADE))
    rejected = evaluated(always, labels, (prior_forecast(labels),))
    assert rejected.verdict.reasons[0].startswith("collapsed (one_answer)")


def test_a_month_of_daily_bars_is_untestable_not_bad():
    few = slice(0, 40)
    evaluation = evaluate(
        Forecast("model", TRUTH[few]),
        [prior_forecast(LABELS[few])],
        LABELS[few],
        bootstrap=BOOTSTRAP,
    )
    assert evaluation.verdict.outcome is Outcome.UNTESTABLE


def test_the_same_seed_gives_the_same_evaluation():
    assert evaluated().to_json() == evaluated().to_json()


def test_json_is_plain_finite_and_complete():
    document = evaluated(money=money()).to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["n_rows"] == 1500
    assert document["verdict"]["outcome"] == "accepted"
    assert document["bootstrap"]["horizon"] == 3
    curve = document["money"][0]["equity"]
    assert len(curve) <= 400
    assert curve[-1][0] == 1499
    assert curve[-1][1] - 1 == pytest.approx(document["money"][0]["net_return"])


def test_a_test_period_without_moves_has_no_direction():
    quiet = np.ones(1500, dtype=np.int64)
    evaluation = evaluated(labels=quiet)
    assert evaluation.model.direction.auc is None
    assert evaluation.model.direction.log_loss_skill is None
    assert "-" in format_evaluation(evaluation)
    json.dumps(evaluation.to_json(), allow_nan=False)


def test_classes_that_no_test_row_has_are_named_and_not_shown_as_zero():
    labels = np.where(LABELS == Signal.LONG, Signal.NO_TRADE, LABELS)
    evaluation = evaluated(labels=labels)
    text = format_evaluation(evaluation)

    assert any("no test row is LONG: macro-F1" in line for line in evaluation.verdict.cautions)
    assert "caution: no test row is LONG" in text
    assert class_rows(evaluation.model)[Signal.LONG] == ("LONG", "0", "-", "-", "-", "-")
    assert "-" not in class_rows(evaluation.model)[Signal.SHORT]
    assert not any("no test row" in line for line in evaluated().verdict.cautions)


def test_a_forecast_without_direction_has_an_auc_that_is_no_evidence():
    """Tested against one half, not against nothing."""
    line = assess(Forecast("coin", TRUTH), LABELS, PRIOR.probabilities, BOOTSTRAP)
    auc = line.direction.auc

    assert auc.value == pytest.approx(0.5, abs=0.05)
    assert auc.p_value > 0.05
    assert line.activity.auc.value > 0.6
    assert line.activity.auc.p_value < 0.01


def test_without_a_train_prior_there_is_no_skill_to_measure():
    with pytest.raises(ValueError, match="train_prior"):
        evaluated(baselines=(BLURRED,))


def test_nan_probabilities_are_refused():
    broken = TRUTH.copy()
    broken[3] = np.nan
    with pytest.raises(ValueError, match="1 of 1500 rows"):
        evaluated(model=Forecast("model", broken))


def test_folds_pool_in_order_with_their_own_priors():
    parts = [
        Forecast("model", TRUTH[:500], LABELS[:500]),
        Forecast("model", TRUTH[500:], LABELS[500:]),
    ]
    pooled = pool("model", parts)
    assert np.array_equal(pooled.probabilities, TRUTH)
    assert np.array_equal(pooled.decisions, LABELS)
    assert pool("prior", [PRIOR, PRIOR]).decisions is None


def test_folds_with_and_without_decisions_do_not_mix():
    with pytest.raises(ValueError, match="1 of 2 folds"):
        pool("rule", [Forecast("rule", TRUTH, LABELS), Forecast("rule", TRUTH)])


def test_the_table_has_a_row_for_the_model_and_each_baseline():
    evaluation = evaluated()
    names = ["model", "train_prior", "blurred"]
    assert [row[0] for row in skill_rows(evaluation)] == names
    assert [row[0] for row in score_rows(evaluation)] == names
    assert skill_rows(evaluation)[0][1] == f"{evaluation.model.scores.log_loss:.4f}"


def test_the_text_says_verdict_costs_and_what_to_compare_accuracy_with():
    text = format_evaluation(evaluated(money=money()))
    lines = text.splitlines()
    assert lines[0] == "ACCEPTED model: skill shown, ahead of blurred"
    assert lines[1].startswith("  skill over the train prior +")
    assert "5 bps fee and 2 bps slippage a side; deflated Sharpe ratio for 4 tried" in lines[-1]
    assert "with those of majority" in text
    assert "buy_and_hold" in text
    assert max(len(line) for line in lines) < 200
