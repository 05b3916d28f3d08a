"""From bars to verdict on many simulated markets: little luck gets through, gold does.

On hourly bars, of which few make the eight days that an interval takes.

Two kinds of market know no direction. In a random walk of even pace there is nothing
to know at all, so the gate may accept no more than its error rate. Where volatility
comes in clusters, activity can be foreseen and acceptance is right: there it is the
direction that must stay unknown.
"""

import numpy as np
import pytest
from builders import make_bars
from market_judgements import dataset_of, judge_market, logistic, network, shuffled_labels
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from percoin.bars.sources.simulated import SimulatedSource
from percoin.evaluation import fold_forecasts
from percoin.evaluation.baselines import (
    LOGISTIC,
    LastRowClassifier,
    RollingPrior,
    TrainPrior,
    default_baselines,
)
from percoin.evaluation.gate import Outcome, apply_false_discovery_control
from percoin.types import Signal, Timeframe

pytestmark = pytest.mark.slow

# A two-sided 95 % interval lies above the truth in one case of 40.
ERROR_RATE = 0.025


def luck_bound(n_markets: int) -> int:
    """Acceptances that 99 of 100 sweeps of ``n_markets`` stay within."""
    return int(binom.ppf(0.99, n_markets, ERROR_RATE))


def simulated(seed: int, edge: float, n_bars: int = 4000):
    return SimulatedSource(seed, n_bars, edge).load("BTCUSDT", Timeframe.H1)


def silenced() -> LastRowClassifier:
    """The regression that a judgement needs, kept from saying anything but the prior."""
    return LastRowClassifier(LOGISTIC, lambda: LogisticRegression(C=1e-9))


@pytest.fixture(autouse=True)
def one_baseline(monkeypatch):
    """The priors decide; the others would take most of the time."""
    few = [TrainPrior(), RollingPrior(), silenced()]
    monkeypatch.setattr(fold_forecasts, "default_baselines", lambda seed: few)


def test_128_markets_without_edge_are_accepted_no_more_often_than_the_error_rate_allows():
    verdicts = {}
    for seed in range(128):
        dataset = dataset_of(make_bars(1500, timeframe=Timeframe.H1, seed=seed))
        verdicts[str(seed)] = judge_market(dataset, logistic, seed=seed).verdict
    accepted = sum(verdict.is_accepted for verdict in verdicts.values())
    assert accepted <= luck_bound(128)
    standing = apply_false_discovery_control(verdicts)
    assert sum(verdict.is_accepted for verdict in standing.values()) <= 1


def test_clustered_volatility_gives_activity_away_and_no_direction():
    evaluations = [judge_market(dataset_of(simulated(seed, edge=0.0))) for seed in range(16)]
    knows_direction = [e.model.direction.auc.lower > 0.5 for e in evaluations]
    assert sum(knows_direction) <= luck_bound(16)
    assert np.mean([e.model.direction.auc.value for e in evaluations]) == pytest.approx(
        0.5, abs=0.03
    )
    assert np.mean([e.model.activity.auc.value for e in evaluations]) > 0.53


def test_shuffled_labels_leave_a_skill_that_cannot_be_told_from_zero():
    # The same markets, models and judge that find the planted edge below.
    evaluations = [
        judge_market(shuffled_labels(dataset_of(simulated(seed, edge=0.5)), seed))
        for seed in range(16)
    ]
    assert sum(e.verdict.is_accepted for e in evaluations) <= luck_bound(16)
    assert np.mean([e.model.skill.value for e in evaluations]) < 0.005
    assert np.mean([e.model.direction.auc.value for e in evaluations]) == pytest.approx(
        0.5, abs=0.03
    )
    assert np.mean([e.model.activity.auc.value for e in evaluations]) == pytest.approx(
        0.5, abs=0.03
    )


@pytest.mark.parametrize("model", [logistic, network])
def test_a_planted_edge_is_accepted(model):
    for seed in range(3):
        # Long enough that a small network does not merely learn its few rows by heart.
        market = simulated(seed, edge=0.5, n_bars=12_000)
        evaluation = judge_market(dataset_of(market), model, seed=seed)
        assert evaluation.verdict.outcome is Outcome.ACCEPTED
        assert evaluation.model.direction.auc.lower > 0.55
        assert evaluation.model.direction.log_loss_skill.value > 0.05


def test_an_oracle_feature_is_near_perfect_and_called_a_leak():
    dataset = dataset_of(simulated(0, edge=0.0))
    answer = np.eye(len(Signal) + 1)[dataset.label][:, : len(Signal)]
    evaluation = judge_market(dataset, logistic, extra=answer)
    assert evaluation.model.skill.value > 0.95
    assert evaluation.model.scores.mcc > 0.99
    assert evaluation.model.direction.auc.value > 0.999
    assert any("leak until proved otherwise" in caution for caution in evaluation.verdict.cautions)


def test_with_every_baseline_the_model_must_also_keep_up_with_them(monkeypatch):
    monkeypatch.setattr(fold_forecasts, "default_baselines", default_baselines)
    evaluation = judge_market(dataset_of(simulated(1, edge=0.5, n_bars=12_000)))
    assert evaluation.rival in {"logistic", "boosting"}
    assert evaluation.verdict.outcome is Outcome.ACCEPTED
    assert evaluation.verdict.reasons[-1].startswith(f"level with {evaluation.rival}")
