"""Where a market's saved model lies; names and paths only.

::

    models/per_coin/BTCUSDT/
    |-- 15m -> .versions/15m/20250901T000312482911Z-3fa9c14e07b2   the served version
    `-- .versions/15m/
        |-- .lock                                  held while a version is written
        |-- history.jsonl                          what was exported, promoted, rolled back
        |-- .tmp-20250902T...                      an export that is running, or was killed
        |-- 20250825T...-91c06b7d55ee/             earlier versions, for rollback
        `-- 20250901T000312482911Z-3fa9c14e07b2/   five files; three without a network; trees
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from percoin.types import Timeframe, check_symbol, check_timeframe

BEST_WEIGHTS_FILE = "cnn_lstm_best.pth"
SERVED_WEIGHTS_FILE = "cnn_lstm_v1.pth"
SCALER_FILE = "scaler.pkl"
METRICS_FILE = "metrics.json"
# The section of that file with the forecast of the expected move and its test.
EXPECTED_MOVE = "expected_move"
MANIFEST_FILE = "meta.json"
# Only in versions exported with export.onnx=true.
ONNX_FILE = "cnn_lstm_v1.onnx"
# Boosted trees, each under the name of the baseline that they are; only of models that use them.
TREE_FILES = (
    "boosting.json",
    "pooled_boosting.json",
    "pooled_volatility_clock_boosting.json",
    "moves.json",
    "pooled_moves.json",
)
WEIGHT_FILES = (BEST_WEIGHTS_FILE, SERVED_WEIGHTS_FILE)
# Of every version, whatever kind of model it is.
COMMON_FILES = (SCALER_FILE, METRICS_FILE)
HASHED_FILES = (*WEIGHT_FILES, *COMMON_FILES)

TEMPORARY_PREFIX = ".tmp-"
# Of folders that exist for a moment, to test whether links can be made.
PROBE_PREFIX = ".probe-"
VERSION_ID_PATTERN = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{12}")

_VERSIONS = ".versions"


def trees_file(name: str) -> str:
    """The file of the boosted trees that are the baseline of this name."""
    return f"{name}.json"


@dataclass(frozen=True)
class MarketFolder:
    """The paths of one market and timeframe below the models folder.

    Args:
        root: The models folder.
        symbol: Market, for example ``BTCUSDT``.
        timeframe: Bar length.

    Raises:
        ConfigError: An invalid symbol or timeframe, such as ``..``; so no path built
            here leaves ``root``.
    """

    root: Path
    symbol: str
    timeframe: Timeframe

    def __post_init__(self) -> None:
        check_symbol(self.symbol)
        object.__setattr__(self, "timeframe", check_timeframe(self.timeframe))
        object.__setattr__(self, "root", Path(self.root))

    @property
    def folder(self) -> Path:
        """Folder of the market, all timeframes."""
        return self.root / "per_coin" / self.symbol

    @property
    def link(self) -> Path:
        """What readers open: a link to the served version."""
        return self.folder / self.timeframe.value

    @property
    def versions(self) -> Path:
        """Folder of all versions of this timeframe."""
        return self.folder / _VERSIONS / self.timeframe.value

    @property
    def lock(self) -> Path:
        """File that is locked while a version is written."""
        return self.versions / ".lock"

    @property
    def history(self) -> Path:
        """File with one line for each change of the versions."""
        return self.versions / "history.jsonl"

    def version(self, version_id: str) -> Path:
        """Folder of one version."""
        return self.versions / version_id

    def temporary(self, name: str) -> Path:
        """A path that no reader looks at and that the next export removes."""
        return self.versions / f"{TEMPORARY_PREFIX}{name}"

    def link_target(self, version_id: str) -> str:
        """What the link says to serve ``version_id``: relative, so that models/ can move."""
        return f"{_VERSIONS}/{self.timeframe.value}/{version_id}"
