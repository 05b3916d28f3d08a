"""Chains of elementwise operations as one GPU kernel each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def fused(function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """The function itself; on a GPU, where torch can compile one, as few kernels.

    Such a chain takes a GPU as long as reading and writing its tensors does, each time; a
    CPU's caches make it less of a matter, and compiling would take longer than it saves.
    """
    return _compiled(function) if device.type == "cuda" and _can_compile() else function


@cache
def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    # Of any size: models leave a fleet, and each size anew would take seconds to compile.
    compiled: Callable[P, R] = torch.compile(function, dynamic=True)
    return compiled


@cache
def _can_compile() -> bool:
    return importlib.util.find_spec("triton") is not None
