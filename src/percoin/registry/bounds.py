"""How large the parts of a version may be: a hash shows a change, not a size out of bounds.

Whoever can write to a models folder can give any file a correct hash. So every file size, and
every number of the manifest that sizes something, is checked against a bound before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from percoin.registry.layout import (
    MANIFEST_FILE,
    METRICS_FILE,
    ONNX_FILE,
    SCALER_FILE,
    TREE_FILES,
    WEIGHT_FILES,
)
from percoin.types import CLASS_NAMES, is_plain

_MEBIBYTE = 2**20
# A manifest of a pool of 400 markets takes 0.1 MiB, a record of training about as much.
_MOST_BYTES = {
    MANIFEST_FILE: 4 * _MEBIBYTE,
    METRICS_FILE: 16 * _MEBIBYTE,
    SCALER_FILE: 1 * _MEBIBYTE,
    # Percoin's trees take 0.15 MiB.
    **dict.fromkeys(TREE_FILES, 4 * _MEBIBYTE),
}
# Weights, the network as ONNX, and whatever a later percoin adds.
_MOST_BYTES_OF_OTHERS = 512 * _MEBIBYTE
MOST_HISTORY_BYTES = 64 * _MEBIBYTE
MOST_FILES = 16
# What a file holds besides the weights: names, shapes, padding; for ONNX the whole graph.
_FRAME_BYTES = {
    **dict.fromkeys(WEIGHT_FILES, 1 * _MEBIBYTE),
    ONNX_FILE: 16 * _MEBIBYTE,
}
_BYTES_PER_WEIGHT = 8  # float64, the widest that weights may be kept in

MOST_LOOKBACK = 100_000
MOST_LABEL_BARS = 1_000_000
_MOST_WIDTH = 65_536
_MOST_LAYERS = 256
_MOST_WEIGHTS = 100_000_000
_MOST_NUMBER = 1_000_000
# The keys that size a CnnLstm, and their defaults.
_USUAL: Mapping[str, int | tuple[int, ...]] = {
    "channels": (64, 128, 256),
    "hidden_size": 100,
    "n_layers": 2,
    "n_heads": 4,
    "head_sizes": (128, 64),
}


def most_bytes(name: str) -> int:
    """The largest file of that name that is read at all."""
    return _MOST_BYTES.get(name, _MOST_BYTES_OF_OTHERS)


def most_bytes_beside(name: str, n_weights: int) -> int:
    """The same with a manifest, which says how many weights the network has.

    Args:
        name: Of the file.
        n_weights: How many, checked.
    """
    if name not in _FRAME_BYTES:
        return most_bytes(name)
    expected = _FRAME_BYTES[name] + _BYTES_PER_WEIGHT * n_weights
    return min(most_bytes(name), expected)


def check_network(kwargs: Mapping[str, object], n_features: int) -> None:
    """Refuse a network of more layers or weights than anyone trains.

    Raises:
        ValueError: A number that sizes the network is invalid or out of bounds; it names the key.
    """
    for name, usual in _USUAL.items():
        value = kwargs.get(name, usual)
        entries = list(value) if isinstance(value, list | tuple) else [value]
        if isinstance(usual, tuple) and len(entries) != len(usual):
            raise ValueError(f"{name} has {len(entries)} widths, not {len(usual)}")
        most = _MOST_LAYERS if name == "n_layers" else _MOST_WIDTH
        for entry in entries:
            if type(entry) is not int or not 1 <= entry <= most:
                raise ValueError(f"{name} is {entry!r:.60}, not a whole number from 1 to {most}")
    n_weights = count_weights(kwargs, n_features)
    if n_weights > _MOST_WEIGHTS:
        raise ValueError(f"its network has {n_weights} weights, more than {_MOST_WEIGHTS}")


def check_own_network(arguments: Mapping[str, object], n_weights: int) -> None:
    """Refuse a network of the user's own whose manifest asks for more than anyone trains.

    Raises:
        ValueError: An argument is out of bounds, or there are too many weights; it names the key.
    """
    for name, value in arguments.items():
        entries = list(value) if isinstance(value, list | tuple) else [value]
        numbers = [entry for entry in entries if isinstance(entry, int | float)]
        if (
            not all(map(is_plain, entries))
            or len(entries) > _MOST_LAYERS
            or any(abs(n) > _MOST_NUMBER for n in numbers)
        ):
            raise ValueError(
                f"{name} is {value!r:.60}, not a text, a number up to {_MOST_NUMBER}, or at most "
                f"{_MOST_LAYERS} of them"
            )
    if not 1 <= n_weights <= _MOST_WEIGHTS:
        raise ValueError(f"its network has {n_weights} weights, not 1 to {_MOST_WEIGHTS}")


def count_weights(kwargs: Mapping[str, object], n_features: int) -> int:
    """How many weights ``CnnLstm`` has, counted without building it.

    Args:
        kwargs: What the network is built with, checked.
        n_features: Features of a bar.
    """
    given: dict[str, Any] = {name: kwargs.get(name, usual) for name, usual in _USUAL.items()}
    channels, head, hidden = given["channels"], given["head_sizes"], given["hidden_size"]
    convolutions = sum(3 * a * b + b for a, b in pairwise([n_features, *channels]))
    # Weight, bias, running mean and running variance of each batch normalisation.
    norms = sum(4 * width for width in (*channels[:-1], *head))
    first, later = (4 * hidden * (n + hidden + 2) for n in (n_features, 2 * hidden))
    recurrent = 2 * (first + (given["n_layers"] - 1) * later)
    attention = 4 * (4 * hidden * hidden + 2 * hidden)
    dense = [channels[-1] + 2 * hidden, *head, len(CLASS_NAMES)]
    heads = sum(a * b + b for a, b in pairwise(dense))
    n_weights: int = convolutions + norms + recurrent + attention + heads
    return n_weights
