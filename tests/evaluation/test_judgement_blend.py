"""A network averaged with a regression, and the regression as the model: what is judged."""

from dataclasses import replace

import numpy as np
import pytest
from builders import make_bars
from exported_models import make_dataset

from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec, build_folds
from percoin.evaluation.baselines import BOOSTING, LOGISTIC, default_baselines
from percoin.evaluation.blend import BLEND, NETWORK, PartSkill, blend_probabilities
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.fold_forecasts import (
    FoldForecasts,
    JudgingRules,
    baseline_inputs,
    forecast_fold,
    forecast_last_row,
)
from percoin.evaluation.judgement import judge_folds
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.regression import Regression
from percoin.evaluation.threshold import choose_threshold
from percoin.features.feature_set import FEATURE_NAMES, FeatureSet
from percoin.types import Signal

BARS = make_bars(700)
RULES = JudgingRules(repetitions=50, model_name=BLEND, blend=(LOGISTIC,))
ALONE = JudgingRules(repetitions=50, model_name=LOGISTIC)


def learnable(dataset: MarketDataset) -> MarketDataset:
    """Labels that each bar's RSI tells mostly, and its volatility somewhat."""
    rsi, activity = (
        dataset.features[:, FEATURE_NAMES.index(name)] for name in ("rsi_14", "volume_change")
    )
    noise = np.random.default_rng(1).normal(size=len(rsi))
    label = np.digitize(np.nan_to_num(rsi + 0.7 * activity + noise), [-0.6, 0.6])
    known = np.concatenate([dataset.rows(part) for part in ("train", "validation", "test")])
    kept = np.full(len(label), -1)
    kept[known] = label[known]
    return replace(dataset, label=kept.astype(np.int64))


DATASET = learnable(make_dataset(BARS))


def labels(part: str, dataset: MarketDataset = DATASET) -> np.ndarray:
    return dataset.label[dataset.rows(part)]


def knowing(part: str, certainty: float, dataset: MarketDataset = DATASET) -> np.ndarray:
    """Logits of a network that sees something of the truth which the regression does not."""
    rng = np.random.default_rng(len(part))
    n_rows = len(dataset.rows(part))
    return certainty * np.eye(3)[labels(part, dataset)] + rng.normal(size=(n_rows, 3))


def forecast(
    certainty: float = 1.0, dataset: MarketDataset = DATASET, rules: JudgingRules = RULES
) -> FoldForecasts:
    logits = (knowing(part, certainty, dataset) for part in ("validation", "test"))
    return forecast_fold(dataset, *logits, rules)


FOLD = forecast()


def regression_of(fold: FoldForecasts) -> Regression:
    return fold.parts[LOGISTIC].numbers.numbers


def loss(probabilities: np.ndarray, part: str) -> float:
    return float(row_log_loss(probabilities, labels(part)).mean())


def skill(said: np.ndarray, truth: np.ndarray, prior: np.ndarray) -> float:
    return 1 - row_log_loss(said, truth).mean() / row_log_loss(prior, truth).mean()


def test_the_judged_model_is_the_weighted_mean_of_two_calibrated_parts():
    network, beside = FOLD.parts[NETWORK], FOLD.parts[LOGISTIC]
    logits = knowing("validation", 1.0)
    assert FOLD.calibration == fit_calibration(logits, labels("validation"))
    np.testing.assert_array_equal(network.validation, apply_calibration(logits, FOLD.calibration))
    features = DATASET.features[DATASET.rows("test")]
    np.testing.assert_array_equal(
        beside.test, apply_calibration(regression_of(FOLD).logits(features), beside.calibration)
    )
    assert 0.2 < FOLD.weights[NETWORK] < 0.98
    weights = [FOLD.weights[NETWORK], FOLD.weights[LOGISTIC]]
    for name, said in (("test", FOLD.model.probabilities), ("validation", FOLD.validation)):
        parts = [getattr(network, name), getattr(beside, name)]
        np.testing.assert_array_equal(said, blend_probabilities(parts, weights))
    np.testing.assert_allclose(FOLD.model.probabilities.sum(axis=1), 1, rtol=0, atol=1e-15)


def test_the_regression_of_a_blend_is_the_one_among_the_baselines():
    baseline = next(each for each in default_baselines() if each.name == LOGISTIC)
    train = DATASET.rows("train")
    baseline.fit(baseline_inputs(DATASET).take(train), labels("train"))
    assert regression_of(FOLD) == baseline.plain().numbers
    [shown] = [each for each in FOLD.baselines if each.name == LOGISTIC]
    np.testing.assert_allclose(FOLD.parts[LOGISTIC].test, shown.probabilities, rtol=0, atol=1e-9)


def test_on_validation_rows_the_blend_beats_both_of_its_parts():
    losses = {name: loss(part.validation, "validation") for name, part in FOLD.parts.items()}
    assert loss(FOLD.validation, "validation") < min(losses[NETWORK], losses[LOGISTIC])


def test_nothing_of_a_blend_depends_on_test_rows():
    dataset = replace(DATASET, label=DATASET.label.copy())
    test = dataset.rows("test")
    dataset.label[test] = 2 - dataset.label[test]
    after = forecast_fold(dataset, knowing("validation", 1.0), knowing("test", 5.0), RULES)
    assert (after.weights, after.threshold) == (FOLD.weights, FOLD.threshold)
    assert regression_of(after) == regression_of(FOLD)
    assert after.calibration == FOLD.calibration
    assert after.parts[LOGISTIC].calibration == FOLD.parts[LOGISTIC].calibration


def test_the_confidence_to_trade_is_chosen_for_the_blend_not_for_its_network(monkeypatch):
    asked = []

    def spy(probabilities, *arguments):
        asked.append(probabilities)
        return choose_threshold(probabilities, *arguments)

    monkeypatch.setattr("percoin.evaluation.fold_forecasts.choose_threshold", spy)
    fold = forecast()
    np.testing.assert_array_equal(asked[0], fold.validation)
    assert len(asked) == 1


def test_without_a_blend_the_network_alone_is_judged():
    plain = forecast(rules=replace(RULES, blend=(), model_name="cnn_lstm"))
    np.testing.assert_array_equal(plain.model.probabilities, FOLD.parts[NETWORK].test)
    assert plain.weights == {NETWORK: 1.0}
    judged = judge_folds([plain], RULES)
    assert (judged.blend, judged.numbers) == (None, None)


def test_both_parts_and_the_blend_show_their_skill_on_validation_and_test():
    judged = judge_folds([FOLD], RULES)
    assert judged.blend is not None
    parts = judged.blend.parts
    assert {name: part.weight for name, part in parts.items()} == FOLD.weights
    assert parts[LOGISTIC].calibration == FOLD.parts[LOGISTIC].calibration
    assert parts[LOGISTIC].numbers is FOLD.parts[LOGISTIC].numbers
    assert judged.evaluation.model.name == BLEND
    skills = {name: part.skills for name, part in parts.items()} | {BLEND: judged.blend.skills}
    assert list(skills) == [NETWORK, LOGISTIC, BLEND]
    [prior] = [each.probabilities for each in FOLD.baselines if each.name == "train_prior"]
    for name, part in FOLD.parts.items():
        expected = skill(part.test, labels("test"), prior)
        assert skills[name].test.value == pytest.approx(expected, abs=1e-12)
        # Two days of test rows are too few for an interval.
        assert skills[name].test.lower is None
        reference = np.tile(prior[0], (len(labels("validation")), 1))
        expected = skill(part.validation, labels("validation"), reference)
        assert skills[name].validation.value == pytest.approx(expected, abs=1e-12)
    assert skills[BLEND].test == PartSkill.of(judged.evaluation.model.skill)


def test_what_the_network_adds_is_the_lead_over_the_same_parts_without_it():
    three = replace(RULES, blend=(LOGISTIC, BOOSTING))
    fold = forecast(rules=three)
    judged = judge_folds([fold], three)
    others = [fold.parts[name] for name in (LOGISTIC, BOOSTING)]
    # The best of all weights of two parts, found on a grid.
    grid = [(share, 1 - share) for share in np.linspace(0, 1, 1001)]
    weights = min(
        grid,
        key=lambda pair: loss(
            blend_probabilities([part.validation for part in others], pair), "validation"
        ),
    )
    without = loss(blend_probabilities([part.test for part in others], weights), "test")
    own = loss(fold.model.probabilities, "test")
    assert fold.weights[NETWORK] > 0.2
    adds, daily = judged.blend.network_adds.value, judged.daily
    assert adds == pytest.approx(without - own, abs=1e-5)
    assert adds > 0.01
    by_day = (sum(daily.without_network) - sum(daily.model)) / sum(daily.n_rows)
    assert by_day == pytest.approx(adds)


def test_a_network_without_weight_adds_nothing_at_all():
    rng = np.random.default_rng(0)
    blind = [rng.normal(size=(len(labels(part)), 3)) for part in ("validation", "test")]
    fold = forecast_fold(DATASET, blind[0], blind[1], RULES)
    assert fold.weights[NETWORK] == 0
    assert judge_folds([fold], RULES).blend.network_adds.value == 0


def test_where_there_is_nothing_beside_a_network_it_adds_nothing_that_can_be_told():
    plain = forecast(rules=replace(RULES, blend=(), model_name="cnn_lstm"))
    assert plain.without_network() is None
    assert forecast_last_row(DATASET, LOGISTIC, ALONE).without_network() is None
    assert judge_folds([plain], RULES).daily.without_network is None


def cautions(fold: FoldForecasts) -> list[str]:
    return [
        text for text in judge_folds([fold], RULES).evaluation.verdict.cautions if "alone" in text
    ]


@pytest.mark.parametrize("best", [LOGISTIC, "volatility", "persistence"])
def test_a_baseline_that_is_better_alone_is_named_with_its_command_if_it_has_one(best):
    guessing = forecast(certainty=0.5)
    network = loss(guessing.parts[NETWORK].validation, "validation")
    guessing = replace(guessing, validation_losses={**guessing.validation_losses, best: 0.4321})
    assert network > 0.4321
    assert 0 < guessing.weights[NETWORK] < 0.3
    expected = (
        f"on validation rows the baseline {best} alone is better than the network alone "
        f"(log-loss 0.4321 against {network:.4f})"
    )
    if best != LOGISTIC:
        model = loss(guessing.validation, "validation")
        expected += f", and than the blend ({model:.4f}), of which it is no part"
    command = f": model={best}, for BTCUSDT alone and without settings of a network, trains it"
    assert cautions(guessing) == [expected + (command if best != "persistence" else "")]
    assert cautions(forecast(certainty=4.0)) == []


def test_a_network_without_weight_is_named_so():
    # Wrong more often than right, so that no share of it helps.
    logits = [np.roll(knowing(part, 6.0), 1, axis=1) for part in ("validation", "test")]
    fold = forecast_fold(DATASET, *logits, RULES)
    assert fold.weights == {NETWORK: 0.0, LOGISTIC: 1.0}
    np.testing.assert_array_equal(fold.model.probabilities, fold.parts[LOGISTIC].test)
    [caution] = cautions(fold)
    assert ", and the network has no weight in the blend" in caution


def test_the_regression_as_the_model_is_calibrated_and_no_baseline_of_its_own():
    fold = forecast_last_row(DATASET, LOGISTIC, ALONE)
    logits = regression_of(fold).logits(DATASET.features[DATASET.rows("validation")])
    assert regression_of(fold) == regression_of(FOLD)
    assert fold.calibration == fit_calibration(logits, labels("validation"))
    np.testing.assert_array_equal(fold.model.probabilities, FOLD.parts[LOGISTIC].test)
    judged = judge_folds([fold], ALONE)
    names = [each.name for each in judged.evaluation.baselines]
    assert names == [b.name for b in default_baselines() if b.name != LOGISTIC]
    assert judged.evaluation.model.name == LOGISTIC
    assert judged.numbers is fold.parts[LOGISTIC].numbers
    assert judged.blend is None
    assert judged.calibration == fold.calibration
    assert cautions(fold) == []
    assert [result.name for result in judged.evaluation.money].count(LOGISTIC) == 1


def test_every_fold_of_a_walk_forward_has_its_own_weight_and_test_rows_are_pooled():
    spec = SplitSpec(purge_bars=3, embargo_bars=3)
    rule = DATASET.label_rule
    folds = build_folds(BARS, DatasetSpec(rule, FeatureSet(), 8, spec, 365), 2)
    datasets = [learnable(fold) for fold in folds]
    told = [
        forecast(dataset=dataset, certainty=c)
        for dataset, c in zip(datasets, (0.5, 2.0), strict=True)
    ]
    assert told[0].weights != told[1].weights
    judged = judge_folds(told, RULES)
    assert {name: part.weight for name, part in judged.blend.parts.items()} == told[1].weights
    assert judged.blend.parts[LOGISTIC].numbers is told[1].parts[LOGISTIC].numbers
    truth = np.concatenate([labels("test", dataset) for dataset in datasets])
    for name, part in judged.blend.parts.items():
        said = np.concatenate([fold.parts[name].test for fold in told])
        prior = np.concatenate(
            [b.probabilities for fold in told for b in fold.baselines if b.name == "train_prior"]
        )
        assert part.skills.test.value == pytest.approx(skill(said, truth, prior), abs=1e-12)
    assert set(np.unique(truth)) <= set(Signal)
