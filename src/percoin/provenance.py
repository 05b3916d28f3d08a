"""Which code and which libraries made a model."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

import percoin

# What a model's numbers depend on.
_LIBRARIES = ("torch", "lightning", "numpy", "pandas", "scikit-learn", "torchmetrics")


@cache
def code_version() -> str:
    """Package version and a hash over its sources, for example ``0.1.0+1f2e3d4c5b6a``.

    Two checkouts with the same sources agree, whatever their history.
    """
    package = Path(percoin.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return f"{percoin.__version__}+{digest.hexdigest()[:12]}"


def library_versions() -> dict[str, str]:
    """Version of each library that a model's numbers depend on, by name."""
    return {name: version(name) for name in _LIBRARIES}
