"""Compile a chain of elementwise operations into few GPU kernels."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def fused(function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """Return the function, compiled if the device is a GPU and torch can compile for it.

    On a GPU, each operation of a chain takes as long as reading and writing its tensors, so
    fewer kernels are faster. On a CPU the caches reduce this cost, and compiling would take
    longer than it saves.
    """
    return _compiled(function) if device.type == "cuda" and _can_compile() else function


@cache
def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    # dynamic=True: the number of models falls during a training, and to compile again for each
    # size would take seconds.
    compiled: Callable[P, R] = torch.compile(function, dynamic=True)
    return compiled


@cache
def _can_compile() -> bool:
    return importlib.util.find_spec("triton") is not None
