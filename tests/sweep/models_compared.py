"""Whether two sweeps left the same models, wherever their jobs ran."""

from pathlib import Path
from typing import Any

from sweep_runs import Sweep

# What differs from run to run of the same training.
_OF_THE_RUN = ("secs", "version")


def check_same_models(one: Sweep, other: Sweep, *symbols: str) -> None:
    for symbol in symbols:
        assert weights(one.folder, symbol) == weights(other.folder, symbol)
        assert figures(one, symbol) == figures(other, symbol)


def weights(folder: Path, symbol: str) -> dict[str, bytes]:
    market = folder / "models" / "per_coin" / symbol / "1h"
    names = ("cnn_lstm_v1.pth", "cnn_lstm_best.pth")
    return {name: (market / name).read_bytes() for name in names}


def figures(sweep: Sweep, symbol: str) -> dict[str, Any]:
    result = sweep.record(symbol)["result"]
    assert len(result) > len(_OF_THE_RUN)
    return {name: value for name, value in result.items() if name not in _OF_THE_RUN}
