import math

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from percoin.evaluation.metrics import score
from percoin.training.metrics import build_metrics, confusion_matrix, metric_values
from percoin.types import CLASS_NAMES

CLASSES = [0, 1, 2]


def make_forecast(
    n_rows: int = 400, seed: int = 0, classes: list[int] = CLASSES
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities with some skill, and labels drawn from ``classes``."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n_rows)
    logits = rng.normal(size=(n_rows, 3)) + 0.8 * np.eye(3)[labels]
    probabilities = torch.tensor(logits, dtype=torch.float32).softmax(dim=1)
    return probabilities, torch.tensor(labels)


def measure(probabilities: torch.Tensor, labels: torch.Tensor, n_batches: int = 3):
    metrics = build_metrics()
    for part, truth in zip(probabilities.chunk(n_batches), labels.chunk(n_batches), strict=True):
        metrics.update(part, truth)
    return metrics


def slow_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of the top answer over 15 bins of equal width (Guo, 2017)."""
    error = 0.0
    for lower in range(15):
        members = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if lower / 15 < row.max() <= (lower + 1) / 15
        ]
        if members:
            confidence = sum(member[0] for member in members) / len(members)
            accuracy = sum(member[1] for member in members) / len(members)
            error += len(members) / len(labels) * abs(confidence - accuracy)
    return error


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 1], [1, 2], [1]])
def test_scores_equal_scikit_learns_even_where_a_class_is_absent(classes):
    probabilities, labels = make_forecast(classes=classes)
    metrics = measure(probabilities, labels)
    values = metric_values(metrics)
    predicted = probabilities.argmax(dim=1)
    assert values["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    for average in ("macro", "weighted", None):
        counted = np.unique(labels) if average == "macro" else CLASSES
        scores = reference.precision_recall_fscore_support(
            labels, predicted, labels=counted, average=average, zero_division=0
        )
        for name, expected in zip(("precision", "recall", "f1"), scores, strict=False):
            names = [f"{name}_{label}" for label in CLASS_NAMES]
            found = (
                [values[each] for each in names] if average is None else values[f"{name}_{average}"]
            )
            assert found == pytest.approx(np.asarray(expected), abs=1e-6), (name, average)
    assert (
        confusion_matrix(metrics)
        == reference.confusion_matrix(labels, predicted, labels=CLASSES).tolist()
    )
    assert values["mcc"] == pytest.approx(reference.matthews_corrcoef(labels, predicted), abs=1e-6)


@pytest.mark.parametrize("absent", CLASSES)
def test_macro_f1_is_that_of_the_evaluation_and_of_scikit_learn_over_the_classes_present(absent):
    probabilities, labels = make_forecast(classes=[each for each in CLASSES if each != absent])
    predicted = probabilities.argmax(dim=1)
    assert (predicted == absent).any()
    expected = reference.f1_score(
        labels, predicted, labels=np.unique(labels), average="macro", zero_division=0
    )
    found = metric_values(measure(probabilities, labels))["f1_macro"]
    assert found == pytest.approx(expected, abs=1e-6)
    assert found == pytest.approx(score(probabilities.numpy(), labels.numpy()).macro_f1, abs=1e-6)


def test_auroc_is_the_mean_of_one_against_rest():
    probabilities, labels = make_forecast()
    expected = [
        reference.roc_auc_score(labels == index, probabilities[:, index]) for index in CLASSES
    ]
    found = metric_values(measure(probabilities, labels))["auroc"]
    assert found == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("classes", [[0, 1], [2]])
def test_auroc_is_absent_where_a_class_has_no_rows(classes):
    values = metric_values(measure(*make_forecast(classes=classes)))
    assert "auroc" not in values
    assert all(math.isfinite(value) for value in values.values())


def test_the_calibration_error_equals_a_slow_loop():
    for seed in range(3):
        probabilities, labels = make_forecast(seed=seed)
        found = metric_values(measure(probabilities, labels))["calibration_error"]
        expected = slow_calibration_error(probabilities.numpy(), labels.numpy())
        assert found == pytest.approx(expected, abs=1e-5)


def test_batches_make_no_difference():
    forecast = make_forecast()
    whole = metric_values(measure(*forecast, n_batches=1))
    assert metric_values(measure(*forecast, n_batches=40)) == pytest.approx(whole, abs=1e-6)
