"""Training with Lightning; no other package imports Lightning.

Notebooks can import the main classes from here, such as ``SignalClassifier``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from percoin.training.callbacks import ExportToRegistry
    from percoin.training.datamodule import MarketDataModule
    from percoin.training.export import ModelExporter
    from percoin.training.lit_module import SignalClassifier

__all__ = ["ExportToRegistry", "MarketDataModule", "ModelExporter", "SignalClassifier"]

_MODULES = {
    "ExportToRegistry": "callbacks",
    "MarketDataModule": "datamodule",
    "ModelExporter": "export",
    "SignalClassifier": "lit_module",
}


def __getattr__(name: str) -> object:
    """Import a re-exported name on first use, because not every training needs Lightning."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
