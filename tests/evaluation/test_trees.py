"""Boosted trees as plain numbers: the answers of scikit-learn, and nothing a file can break."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from percoin import json_codec
from percoin.evaluation.baselines import make_boosting
from percoin.evaluation.trees import TreeNumbers, Trees

RNG = np.random.default_rng(0)
N_COLUMNS = 6
ROWS = RNG.normal(size=(3000, N_COLUMNS))
ROWS[:, 3] = np.round(ROWS[:, 3])
LABELS = np.digitize(ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 3] + RNG.normal(size=3000), [-0.6, 0.6])


@pytest.fixture(scope="module")
def fitted() -> HistGradientBoostingClassifier:
    return make_boosting(0).fit(ROWS, LABELS)


@pytest.fixture(scope="module")
def trees(fitted) -> Trees:
    return Trees.of(fitted)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def strange_rows(n_rows: int) -> np.ndarray:
    """Rows far out, on the thresholds themselves, and with values that are no numbers."""
    rows = RNG.normal(size=(n_rows, N_COLUMNS)) * 4
    rows[: n_rows // 4] = ROWS[: n_rows // 4]
    for value in (np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e308):
        rows[RNG.random(rows.shape) < 0.03] = value
    return rows


def on_thresholds(trees: Trees) -> np.ndarray:
    numbers = trees.numbers
    rows = np.zeros((len(numbers.column), N_COLUMNS))
    for row, (column, number) in enumerate(zip(numbers.column, numbers.number, strict=True)):
        rows[row, max(column, 0)] = number
    return rows


def test_they_say_what_scikit_learn_says_on_any_rows(fitted, trees):
    # Several batches, and one row more.
    rows = np.concatenate([strange_rows(5001), on_thresholds(trees)])
    said = softmax(trees.logits(rows))
    np.testing.assert_allclose(said, fitted.predict_proba(rows), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(trees.logits(rows), fitted._raw_predict(rows))


def test_trees_that_have_seen_missing_values_send_them_where_training_did():
    rows = ROWS.copy()
    # Missing where it says the label, so that it matters where they go; too few for a leaf alone.
    rows[np.flatnonzero(LABELS == 2)[:40], 0] = np.nan
    rows[np.flatnonzero(LABELS == 0)[:40], 1] = np.nan
    model = make_boosting(0).fit(rows, LABELS)
    found = Trees.of(model)
    assert 0 < sum(found.numbers.missing_left) < len(found.numbers.missing_left)
    asked = strange_rows(2000)
    said = softmax(found.logits(asked))
    np.testing.assert_allclose(said, model.predict_proba(asked), rtol=0, atol=1e-9)


def test_splits_that_separate_the_missing_values_alone_are_refused():
    # Percoin fits on complete rows, which make no such split.
    rows = ROWS.copy()
    rows[(LABELS == 2) & (np.random.default_rng(1).random(3000) < 0.5), 0] = np.nan
    with pytest.raises(ValueError, match="a number of the trees is not finite"):
        Trees.of(make_boosting(0).fit(rows, LABELS))


def test_a_row_gets_the_same_bits_whatever_rows_come_along(trees):
    rows = strange_rows(1500)
    together = trees.logits(rows)
    for size in (1, 2, 3, 64, 1025):
        np.testing.assert_array_equal(trees.logits(rows[-size:]), together[-size:])
    assert trees.logits(rows[:0]).shape == (0, 3)


def test_their_file_gives_the_same_numbers_back(trees):
    again = Trees.from_json(trees.to_json().encode())
    assert again.numbers == trees.numbers
    assert again.n_columns == N_COLUMNS


def test_only_trees_of_all_three_classes_are_taken():
    two = make_boosting(0).fit(ROWS, np.minimum(LABELS, 1))
    with pytest.raises(ValueError, match=r"know the classes \[.*0.*1.*\], not all three"):
        Trees.of(two)


# Three trees: a stump, a leaf, and a root whose left child is an inner node.
SMALL = TreeNumbers(
    n_columns=2,
    baseline=(0.1, 0.2, 0.3),
    n_nodes=(3, 1, 5),
    column=(0, -1, -1, -1, 1, 0, -1, -1, -1),
    number=(0.5, 1.0, 2.0, 3.0, 0.0, -1.0, 4.0, 5.0, 6.0),
    right=(2, 0, 0, 0, 4, 3, 0, 0, 0),
    missing_left=(1, 0, 0, 0, 0, 0, 0, 0, 0),
)


def test_a_worked_case_by_hand():
    rows = np.array([[0.5, 0.0], [0.6, 0.1], [np.nan, np.nan], [-1.0, 0.0], [np.inf, -np.inf]])
    expected = [
        [0.1 + 1.0, 0.2 + 3.0, 0.3 + 5.0],
        [0.1 + 2.0, 0.2 + 3.0, 0.3 + 6.0],
        [0.1 + 1.0, 0.2 + 3.0, 0.3 + 6.0],
        [0.1 + 1.0, 0.2 + 3.0, 0.3 + 4.0],
        [0.1 + 2.0, 0.2 + 3.0, 0.3 + 5.0],
    ]
    np.testing.assert_allclose(Trees(SMALL).logits(rows), expected, rtol=0, atol=1e-15)


def changed(name: str, position: int, value: object) -> dict[str, object]:
    entries = list(getattr(SMALL, name))
    entries[position] = value
    return {name: tuple(entries)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_columns": 0}, "take 0 columns"),
        ({"n_columns": 10**9}, "take 1000000000 columns"),
        ({"baseline": (0.0, 0.0)}, "2 baselines, not 3"),
        ({"n_nodes": ()}, "there are 0 trees"),
        ({"n_nodes": (3, 6)}, "there are 2 trees"),
        ({"n_nodes": (3, 1, 4)}, "does not share out the nodes"),
        ({"n_nodes": (3, 1, 10**18)}, "does not share out the nodes"),
        ({"n_nodes": (9, 0, 0)}, "does not share out the nodes"),
        ({"n_nodes": (-1, 5, 5)}, "does not share out the nodes"),
        ({"right": SMALL.right[:-1]}, "in columns of other lengths"),
        (changed("column", 0, 2), "a column that is not there"),
        (changed("column", 0, -2), "a column that is not there"),
        (changed("column", 0, 10**30), "a column that is not there"),
        # A node that leads to itself, back to its root, to its left child, out of its tree.
        (changed("right", 4, 0), "leads back, or out of its tree"),
        (changed("right", 5, 1), "leads back, or out of its tree"),
        (changed("right", 5, -3), "leads back, or out of its tree"),
        (changed("right", 4, 1), "leads back, or out of its tree"),
        (changed("right", 0, 3), "leads back, or out of its tree"),
        (changed("right", 0, 10**30), "leads back, or out of its tree"),
        (changed("right", 3, 1), "leads back, or out of its tree"),
        # The last node of a tree has no place for a left child.
        (changed("column", 3, 0) | changed("right", 3, 2), "leads back, or out of its tree"),
        (changed("missing_left", 0, 2), "missing_left is not 0 or 1"),
        (changed("number", 0, float("nan")), "not finite"),
        (changed("number", 1, float("inf")), "not finite"),
        ({"baseline": (0.0, 0.0, float("inf"))}, "not finite"),
    ],
)
def test_numbers_that_are_no_trees_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        Trees(replace(SMALL, **changes))


def one_tree_of(n_inner: int) -> TreeNumbers:
    """Beside two leaves a tree whose inner nodes all lie on one path."""
    n_nodes = 2 * n_inner + 1
    inner, leaves = range(n_inner), n_inner + 3
    return TreeNumbers(
        n_columns=1,
        baseline=(0.0, 0.0, 0.0),
        n_nodes=(n_nodes, 1, 1),
        column=(0,) * n_inner + (-1,) * leaves,
        number=(0.0,) * (n_nodes + 2),
        right=tuple(n_nodes - 1 - here for here in inner) + (0,) * leaves,
        missing_left=(0,) * (n_nodes + 2),
    )


def test_a_tree_so_deep_that_an_answer_would_take_minutes_is_refused():
    np.testing.assert_array_equal(Trees(one_tree_of(100)).logits(np.zeros((1, 1))), 0)
    with pytest.raises(ValueError, match="more than 100 steps deep"):
        Trees(one_tree_of(101))


def test_a_sum_beyond_all_numbers_is_left_to_the_calibration():
    huge = replace(SMALL, baseline=(1e308,) * 3, number=(1e308,) * 9)
    assert np.isinf(Trees(huge).logits(np.zeros((1, 2)))).all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"n_columns": 2}',
        json.dumps(json_codec.loads(json_codec.dumps(SMALL)) | {"right": "a"}),
        json.dumps(json_codec.loads(json_codec.dumps(SMALL)) | {"column": [0.5] * 9}),
        json.dumps(json_codec.loads(json_codec.dumps(SMALL)) | {"n_nodes": [True, 4, 4]}),
        json_codec.dumps(SMALL).replace("0.5", "NaN"),
    ],
)
def test_a_file_of_anything_else_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the reader of JSON has its own tests
        Trees.from_json(text.encode())
