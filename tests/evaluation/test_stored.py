import copy
import json

import numpy as np
import pytest
from forecast_builders import draw_labels, prior_forecast, random_probabilities, true_probabilities

from percoin import json_codec
from percoin.evaluation.backtest import Costs, ExitRule, Prices, backtest, buy_and_hold
from percoin.evaluation.evaluate import Forecast, evaluate
from percoin.evaluation.stored import evaluation_from_json
from percoin.evaluation.table import format_evaluation
from percoin.evaluation.uncertainty import Bootstrap


def evaluation(n_rows=900, n_bars=1200):
    probabilities = true_probabilities(n_rows, edge=1.0)
    labels = draw_labels(probabilities)
    close = 100 * np.exp(np.random.default_rng(0).normal(0, 0.01, n_bars).cumsum())
    prices = Prices(close, close * 1.01, close * 0.99, close)
    signals = np.random.default_rng(1).integers(0, 3, n_bars)
    return evaluate(
        Forecast("cnn_lstm", probabilities),
        [prior_forecast(labels), Forecast("momentum", random_probabilities(n_rows))],
        labels,
        bootstrap=Bootstrap(3, repetitions=50),
        money=[
            backtest("cnn_lstm", prices, signals, ExitRule(3), Costs(), bars_per_year=8760.0),
            buy_and_hold(prices, Costs(), bars_per_year=8760.0),
        ],
    )


DOCUMENT = json.loads(json.dumps(evaluation().to_json()))


def test_what_was_written_is_read_back_and_written_the_same():
    assert evaluation_from_json(DOCUMENT).to_json() == evaluation().to_json()


def test_what_is_read_back_prints_the_same_tables():
    assert format_evaluation(evaluation_from_json(DOCUMENT)) == format_evaluation(evaluation())


def test_an_evaluation_of_too_few_rows_for_intervals_is_read_back():
    few = evaluation(n_rows=20)
    document = json.loads(json.dumps(few.to_json()))

    assert few.model.skill.lower is None
    assert evaluation_from_json(document).to_json() == few.to_json()


def test_equity_has_one_value_per_bar_again_and_is_exact_where_it_was_kept():
    written = evaluation().money[0].equity
    read = evaluation_from_json(DOCUMENT).money[0].equity
    kept = [bar for bar, _ in DOCUMENT["money"][0]["equity"]]

    assert len(kept) < len(read) == len(written) == 1200
    np.testing.assert_array_equal(read[kept], written[kept])


def test_a_key_of_a_newer_version_is_ignored():
    document = copy.deepcopy(DOCUMENT) | {"from_the_future": {"a": [1]}}
    document["model"]["scores"]["new_score"] = 0.5

    assert evaluation_from_json(document).to_json() == evaluation().to_json()


def test_a_key_with_a_default_may_be_missing():
    document = {key: value for key, value in DOCUMENT.items() if key != "money"}

    assert evaluation_from_json(document).money == ()


def put(*path_and_value):
    *path, name, value = path_and_value

    def change(document):
        for step in path:
            document = document[step]
        document[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("model"), "Object missing required field `model`"),
        (put("model", "scores", "mcc", None), "^model.scores.mcc: Expected `float`, got `null`"),
        (put("model", "scores", "mcc", True), "model.scores.mcc: Expected `float`, got `bool`"),
        (put("model", "scores", "mcc", float("nan")), "NaN is not a number"),
        (put("model", "name", 3), "model.name: Expected `str`, got `int`"),
        (put("model", "skill", "n_rows", 1.5), "n_rows: Expected `int`, got `float`"),
        (put("verdict", "outcome", "splendid"), "verdict.outcome: Invalid enum value 'splendid'"),
        (put("verdict", "reasons", []), "verdict has no reason"),
        (put("verdict", "reasons", "good"), "reasons: Expected `array`, got `str`"),
        (put("verdict", "p_value", 1.5), "a p_value is not between 0 and 1"),
        (put("against_rival", "p_value", -0.5), "a p_value is not between 0 and 1"),
        (put("best_baseline", "oracle"), "best_baseline 'oracle'"),
        (put("class_counts", [1, 2]), "class_counts"),
        (put("class_counts", [0, 0, 0]), "class_counts count no rows"),
        (put("class_counts", [-1, 5, 5]), "class_counts count no rows"),
        (put("reliability", {}), "reliability lacks a class"),
        (put("baselines", 0, "scores", "classes", []), "the scores of 'train_prior'"),
        (put("model", "scores", "confusion_matrix", [[1, 2, 3]]), "the scores of 'cnn_lstm'"),
        (put("money", 0, "equity", []), "equity: no curve"),
        (put("money", 0, "equity", [[0, 1.0], [5]]), "equity: no curve"),
        (put("money", 0, "equity", [[0, 1.0], [1, None]]), "equity: no curve"),
        (put("money", 0, "equity", [[0, 1.0], [1, float("inf")]]), "Infinity is not a number"),
        (put("money", 0, "equity", [[0, 1.0], [float("nan"), 1.0]]), "NaN is not a number"),
        (put("money", 0, "equity", [[0, 1.0], [0, 1.0]]), "equity: out of order"),
        (put("money", 0, "equity", [[0, 1.0], [10**12, 1.0]]), "equity: too long"),
        (put("money", 0, "equity", [[0, 1.0], [5_000_000, 1.0]]), "equity: too long"),
        (put("money", [{}] * 21), "money is too long"),
    ],
)
def test_a_document_that_is_no_evaluation_is_refused_with_the_place(change, message):
    document = copy.deepcopy(DOCUMENT)
    change(document)

    with pytest.raises(ValueError, match=message):
        evaluation_from_json(json_codec.loads(json.dumps(document)))


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_another_kind_of_json_is_refused(document):
    with pytest.raises(ValueError, match="Expected `object`, got"):
        evaluation_from_json(document)
