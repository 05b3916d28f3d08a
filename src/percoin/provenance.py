"""Which code, which libraries and what kind of machine made a model."""

from __future__ import annotations

import hashlib
import platform
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


def machine_facts() -> dict[str, str]:
    """What decides the last bits of a training, beside code, libraries and data.

    Other vector instructions round differently, and another number of threads sums in
    another order.
    """
    # Imported here because a prediction needs this module, but not torch.
    import torch

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")
