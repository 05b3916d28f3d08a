"""percoin: one small, honestly judged signal classifier per market and timeframe."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from percoin.inference import Predictor

__all__ = ["Predictor"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import a re-exported name when it is first asked for; ``import percoin`` stays cheap."""
    if name in __all__:
        return getattr(import_module("percoin.inference"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
