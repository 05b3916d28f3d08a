"""Pictures for notebooks, reports and loggers; each function returns a matplotlib ``Figure``.

Nothing is drawn on a screen and pyplot is not used: a figure is shown by the notebook whose cell
it ends, or written by ``figure.savefig``. Importing this package does not import matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from percoin.plot.forecasts import (
        confusion_matrix,
        label_distribution,
        reliability,
        reliability_of,
    )
    from percoin.plot.money import equity
    from percoin.plot.price import candles
    from percoin.plot.skill import skills, skills_of

__all__ = [
    "candles",
    "confusion_matrix",
    "equity",
    "label_distribution",
    "reliability",
    "reliability_of",
    "skills",
    "skills_of",
]

# None has the name of a function: an imported module would take its place here.
_MODULES = {
    "candles": "price",
    "confusion_matrix": "forecasts",
    "equity": "money",
    "label_distribution": "forecasts",
    "reliability": "forecasts",
    "reliability_of": "forecasts",
    "skills": "skill",
    "skills_of": "skill",
}


def __getattr__(name: str) -> object:
    """Import a function on first use, because matplotlib takes a while."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
