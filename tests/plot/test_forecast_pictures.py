import warnings
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure

from percoin.plot import confusion_matrix, label_distribution, reliability_of
from percoin.types import CLASS_NAMES


def make_forecast(n_rows: int, classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_rows)
    labels = rng.choice(classes, n_rows)
    probabilities = rng.dirichlet([2, 5, 2], n_rows)
    return probabilities, labels


def png(figure: Figure) -> bytes:
    """The drawn picture; a warning while drawing is an error."""
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(buffer)
    assert buffer.getvalue().startswith(b"\x89PNG")
    return buffer.getvalue()


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_confusion_matrix_shows_counts_and_shares_of_the_true_class():
    figure = confusion_matrix([[30, 10, 0], [5, 1200, 5], [0, 0, 0]], "a title")
    assert words(figure)[:2] == ["30\n75%", "10\n25%"]
    assert words(figure)[4] == "1,200\n99%"
    assert words(figure)[6:] == ["0\n0%"] * 3  # no rows, no share, no warning
    axes = figure.axes[0]
    assert axes.get_title() == "a title"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    # Drawn top down, so that the diagonal is the right answers.
    assert [label.get_text() for label in axes.get_yticklabels()] == list(CLASS_NAMES)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    png(figure)


def test_reliability_bins_hold_equally_many_rows_and_their_means():
    probabilities, labels = make_forecast(1000, [0, 1, 2])
    figure = reliability_of(probabilities, labels, "a title")
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert len(lines) == len(CLASS_NAMES)
    for index, line in enumerate(lines):
        order = probabilities[:, index].argsort(kind="stable").reshape(10, 100)
        predicted, observed = line.get_data()
        np.testing.assert_allclose(predicted, probabilities[order, index].mean(axis=1))
        np.testing.assert_allclose(observed, (labels[order] == index).mean(axis=1))
    png(figure)


def test_reliability_intervals_are_wilsons():
    # 8 of 10 (a textbook example): 0.4902 to 0.9433.
    probabilities = np.repeat([[0.2, 0.3, 0.5]], 100, axis=0)
    labels = np.tile([2] * 8 + [0, 1], 10)
    figure = reliability_of(probabilities, labels, "")
    _, _, (intervals,) = figure.axes[0].containers[2].lines
    for segment in intervals.get_segments():
        np.testing.assert_allclose(segment[:, 1], [0.4902, 0.9433], atol=1e-4)


@pytest.mark.parametrize("n_rows", [1, 2, 7, 10, 11, 2500])
@pytest.mark.parametrize("classes", [[0], [1], [0, 2], [0, 1, 2]])
def test_reliability_is_drawn_for_few_rows_and_absent_classes(n_rows, classes):
    figure = reliability_of(*make_forecast(n_rows, classes), "a title")
    assert all(np.isfinite(figure.axes[0].axis()))
    if n_rows < 11:
        png(figure)


def test_reliability_is_drawn_for_a_model_that_is_sure():
    probabilities = np.tile([[0.0, 1.0, 0.0]], (50, 1))
    figure = reliability_of(probabilities, np.ones(50, dtype=np.int64), "a title")
    lower, upper = figure.axes[0].get_ylim()
    assert lower < 0 < 1 < upper
    png(figure)


def test_the_label_distribution_shows_shares_with_their_counts():
    counts = {
        "train": np.array([200, 700, 100]),
        "validation": np.array([0, 20, 0]),
        "test": np.array([0, 0, 0]),
    }
    figure = label_distribution(counts, "a title")
    heights = [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]
    assert heights == [[0.2, 0, 0], [0.7, 1, 0], [0.1, 0, 0]]
    assert words(figure) == ["200", "0", "0", "700", "20", "0", "100", "0", "0"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list(counts)
    png(figure)
