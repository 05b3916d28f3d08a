"""Fitted boosted trees as plain numbers; applying them needs only numpy.

``percoin.evaluation.baselines`` fits them with scikit-learn. A prediction does not load
scikit-learn, and unpickles nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from percoin import json_codec
from percoin.types import CLASS_NAMES, BoolArray, Float32Array, FloatArray, IntArray

_N_CLASSES = len(CLASS_NAMES)
# What trees add up to: one number, or log-odds of each class.
_N_SUMS = (1, _N_CLASSES)
_LEAF = -1
# What a file may describe at most; percoin fits 300 trees of at most 15 nodes, so 7 steps deep.
_MOST_TREES = 10_000
_MOST_NODES = 200_000
_MOST_COLUMNS = 10_000
_MOST_STEPS = 100
# Rows at a time, so that memory does not grow with them.
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class TreeNumbers:
    """The numbers of the trees, one entry a node; what ``trees.json`` holds.

    The nodes of a tree follow each other, its root first. The left child of an inner node is
    the next node. ``right`` counts from the tree's root, and a child always comes after its
    parent, so no path is longer than the tree.

    Attributes:
        n_columns: Number of input columns.
        baseline: What the sums start from: one of each class, or one alone.
        n_nodes: Number of nodes of each tree; tree ``k`` of three sums adds to ``k % 3``.
        column: The input column that an inner node looks at; -1 of a leaf.
        number: The threshold of an inner node: a value up to it goes left. The value of a leaf.
        right: The right child of an inner node; 0 of a leaf.
        missing_left: 1 if NaN goes left, else 0.
    """

    n_columns: int
    baseline: tuple[float, ...]
    n_nodes: tuple[int, ...]
    column: tuple[int, ...]
    number: tuple[float, ...]
    right: tuple[int, ...]
    missing_left: tuple[int, ...]


class Trees:
    """Boosted trees for the three classes, or for one number.

    Args:
        numbers: Their numbers.

    Raises:
        ValueError: They describe no trees, or more than anyone fits.
    """

    def __init__(self, numbers: TreeNumbers) -> None:
        self.numbers = numbers
        _check_sizes(numbers)
        counts = np.array(numbers.n_nodes)
        self._roots: IntArray = np.cumsum(counts) - counts
        column, right = np.array(numbers.column), np.array(numbers.right)
        missing_left = np.array(numbers.missing_left)
        number = np.array(numbers.number, dtype=np.float64)
        root = np.repeat(self._roots, counts)
        here = np.arange(len(column)) - root
        is_leaf = column == _LEAF
        _check_nodes(numbers, is_leaf, here, np.repeat(counts, counts))
        if not (np.isfinite(number).all() and np.isfinite(numbers.baseline).all()):
            raise ValueError("a number of the trees is not finite")
        own = root + here
        # A leaf leads to itself, so that all trees take the same number of steps.
        self._children: IntArray = np.stack(
            [np.where(is_leaf, own, own + 1), np.where(is_leaf, own, root + right)], axis=1
        ).ravel()
        self._column: IntArray = np.where(is_leaf, 0, column)
        self._threshold: FloatArray = np.where(is_leaf, np.inf, number)
        self._value: FloatArray = np.where(is_leaf, number, 0.0)
        self._missing_left: BoolArray = missing_left.astype(bool)
        self._depth = _depth(self._children, self._roots)

    @property
    def n_columns(self) -> int:
        """Number of input columns."""
        return self.numbers.n_columns

    @property
    def n_sums(self) -> int:
        """3 for log-odds of the classes, 1 for a number."""
        return len(self.numbers.baseline)

    def logits(self, rows: FloatArray | Float32Array) -> FloatArray:
        """The sums of the trees: log-odds up to a constant, shape (n, C), or a number, (n, 1).

        Args:
            rows: Shape (n, ``n_columns``); NaN goes the way that it went in training.
        """
        values = np.ascontiguousarray(rows, dtype=np.float64)
        batches = [values[k : k + _BATCH_ROWS] for k in range(0, len(values), _BATCH_ROWS)]
        return np.concatenate(
            [self._sums(batch) for batch in batches] or [np.empty((0, self.n_sums))]
        )

    def _sums(self, values: FloatArray) -> FloatArray:
        flat, begins = values.ravel(), np.arange(len(values))[:, None] * self.n_columns
        has_missing = bool(np.isnan(flat).any())
        node = np.broadcast_to(self._roots, (len(values), len(self._roots)))
        for _ in range(self._depth):
            known = flat[begins + self._column[node]]
            goes_right = ~(known <= self._threshold[node])
            if has_missing:
                goes_right &= ~(np.isnan(known) & self._missing_left[node])
            node = self._children[2 * node + goes_right]
        n_sums = self.n_sums
        added = np.empty((len(values), 1 + len(self._roots) // n_sums, n_sums))
        added[:, 0] = self.numbers.baseline
        added[:, 1:] = self._value[node].reshape(len(values), -1, n_sums)
        # One tree after another as in training, so that a row gets the same sum whatever rows
        # come along. The calibration reports an overflow, because it accepts only finite logits.
        with np.errstate(over="ignore", invalid="ignore"):
            sums: FloatArray = np.add.accumulate(added, axis=1)[:, -1]
        return sums

    def to_json(self) -> str:
        """The text of their file."""
        return json_codec.dumps(self.numbers, indent=None)

    @staticmethod
    def from_json(content: bytes) -> Trees:
        """Read the text of their file.

        Raises:
            ValueError: It describes no trees, or more than anyone fits.
        """
        return _read(content)

    @classmethod
    def of(cls, fitted: Any) -> Trees:
        """Take over a fitted scikit-learn boosting of trees, of three classes or of a number.

        Raises:
            ValueError: It has other classes, or nodes that these numbers cannot describe.
        """
        n_columns = int(fitted.n_features_in_)
        classes = list(getattr(fitted, "classes_", range(_N_CLASSES)))
        if classes != list(range(_N_CLASSES)):
            raise ValueError(f"the trees know the classes {classes}, not all three")
        trees = [predictor.nodes for step in fitted._predictors for predictor in step]
        nodes = np.concatenate(trees)
        if nodes["is_categorical"].any():
            raise ValueError("a tree splits by category")
        leaf = nodes["is_leaf"].astype(bool)
        lefts = np.concatenate([np.arange(len(tree)) + 1 for tree in trees])
        if (nodes["left"][~leaf] != lefts[~leaf]).any():
            raise ValueError("a tree's nodes are not in the order of a walk, left first")
        return cls(
            TreeNumbers(
                n_columns,
                tuple(np.ravel(fitted._baseline_prediction).tolist()),
                tuple(len(tree) for tree in trees),
                tuple(np.where(leaf, _LEAF, nodes["feature_idx"]).tolist()),
                tuple(np.where(leaf, nodes["value"], nodes["num_threshold"]).tolist()),
                tuple(np.where(leaf, 0, nodes["right"]).tolist()),
                tuple(np.where(leaf, 0, nodes["missing_go_to_left"]).tolist()),
            )
        )


# Markets that were trained as a pool have the same trees; they never change.
@lru_cache(maxsize=8)
def _read(content: bytes) -> Trees:
    # The other check would compare thousands of numbers with what would be written.
    return Trees(json_codec.decode(TreeNumbers, json_codec.loads(content), is_exact=False))


def _check_sizes(numbers: TreeNumbers) -> None:
    columns = (numbers.column, numbers.number, numbers.right, numbers.missing_left)
    n_trees, total = len(numbers.n_nodes), len(numbers.column)
    if not 1 <= numbers.n_columns <= _MOST_COLUMNS:
        raise ValueError(f"the trees take {numbers.n_columns} columns")
    n_sums = len(numbers.baseline)
    if n_sums not in _N_SUMS:
        raise ValueError(f"the trees have {n_sums} baselines, not {_N_CLASSES} or 1")
    if not 1 <= n_trees <= _MOST_TREES or n_trees % n_sums:
        raise ValueError(f"there are {n_trees} trees, not up to {_MOST_TREES} of each class alike")
    if {len(column) for column in columns} != {total} or total > _MOST_NODES:
        raise ValueError(f"the trees have {total} nodes in columns of other lengths, or too many")
    if min(numbers.n_nodes) < 1 or max(numbers.n_nodes) > total or sum(numbers.n_nodes) != total:
        raise ValueError("n_nodes does not share out the nodes among the trees")


def _check_nodes(
    numbers: TreeNumbers, is_leaf: BoolArray, here: IntArray, n_nodes: IntArray
) -> None:
    """Refuse a node that looks at no column, or that leads back or out of its tree.

    Args:
        numbers: The numbers.
        is_leaf: Of each node.
        here: Position of each node in its tree.
        n_nodes: Number of nodes of each node's tree.
    """
    column, right = (np.array(entry, dtype=object) for entry in (numbers.column, numbers.right))
    inner = ~is_leaf
    if ((column < _LEAF) | (column >= numbers.n_columns)).any():
        raise ValueError("a node looks at a column that is not there")
    if ((right <= here + 1) | (right >= n_nodes))[inner].any() or (right[is_leaf] != 0).any():
        raise ValueError("a node leads back, or out of its tree")
    if not set(numbers.missing_left) <= {0, 1}:
        raise ValueError("missing_left is not 0 or 1")


def _depth(children: IntArray, roots: IntArray) -> int:
    """Number of steps after which every path has reached a leaf.

    Raises:
        ValueError: More than anyone fits: each prediction would take as many.
    """
    pairs = children.reshape(-1, 2)
    seen = np.unique(roots)
    for depth in range(_MOST_STEPS + 1):
        seen = np.unique(pairs[seen][pairs[seen] != seen[:, None]])
        if len(seen) == 0:
            return depth
    raise ValueError(f"a tree is more than {_MOST_STEPS} steps deep")
