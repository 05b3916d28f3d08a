"""Says what machine the other benchmarks ran on, as a line of Markdown.

python benchmarks/machine.py
"""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import torch

LIBRARIES = ("torch", "lightning", "numpy", "pandas")


def main() -> None:
    n_cores = len(os.sched_getaffinity(0))
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    print(
        f"Machine: {processor()}, {n_cores} cores, {memory()}, {gpu}; "
        f"{torch.backends.cpu.get_cpu_capability()}, {bf16()}; Python {platform.python_version()}, "
        f"{libraries}; load {os.getloadavg()[0]:.1f}"
    )


def processor() -> str:
    found = re.search(r"model name\s*: (.*)", read("/proc/cpuinfo"))
    return found[1] if found else platform.processor() or platform.machine()


def bf16() -> str:
    found = torch.cpu.get_capabilities()
    units = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    named = [name for key, name in units.items() if found.get(key)]
    return f"bf16 by {' and '.join(named)}" if named else "no bf16"


def memory() -> str:
    found = re.search(r"MemTotal:\s*(\d+) kB", read("/proc/meminfo"))
    return f"{int(found[1]) / 2**20:.0f} GiB" if found else "memory unknown"


def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""


if __name__ == "__main__":
    main()
