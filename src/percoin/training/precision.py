"""Choose the precision of a training: bf16 where the processor computes a step faster in it.

Products in bf16 are over so soon that waiting for each other may cost several threads more than
they gain. So one thread is timed beside all of them.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from percoin import json_codec
from percoin.config import OwnNetworkConfig, TrainConfig
from percoin.config.trainer import FULL_PRECISION, MIXED_PRECISION
from percoin.errors import ResumeError
from percoin.run_record import SETTINGS_FILE
from percoin.training.machine import lacking
from percoin.training.recipes.network import seeded_network
from percoin.types import CLASS_NAMES

log = logging.getLogger(__name__)

_PROBE_SECS = 1.0
# bf16 rounds each product and one thread leaves cores idle, so each must be clearly faster.
_MOST_SHARE = 0.9
# The ratios hardly change with more of either.
_MOST_BATCH, _MOST_LOOKBACK = 256, 120


@dataclass(frozen=True)
class StepTime:
    """How long a training step took in a precision, with a number of threads.

    Attributes:
        secs: Median.
    """

    precision: str
    threads: int
    secs: float


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of a training and why it was chosen.

    Attributes:
        precision: Lightning's name, ``32-true`` or ``bf16-mixed``.
        why: For people.
        threads: Threads to train with; None leaves the number as it is.
        steps: The steps that were timed.
    """

    precision: str
    why: str
    threads: int | None = None
    steps: tuple[StepTime, ...] = ()

    def applied(self, settings: TrainConfig) -> TrainConfig:
        """The settings with this precision in place of ``auto``."""
        return with_precision(settings, self.precision)

    @contextmanager
    def threads_set(self) -> Iterator[None]:
        """Compute with the chosen number of threads, also what is judged afterwards."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def with_precision(settings: TrainConfig, precision: str) -> TrainConfig:
    """The settings with another ``trainer.precision``.

    Raises:
        ConfigError: There is no such precision.
    """
    return replace(settings, trainer=replace(settings.trainer, precision=precision))


def precision_of_run(settings: TrainConfig, folder: Path) -> PrecisionChoice:
    """The precision that an interrupted run began with, or a new choice for a new run.

    Args:
        settings: Settings of the run, which leave the precision open.
        folder: Folder of the run.

    Raises:
        ResumeError: The interrupted run began on a machine that can more than this one.
    """
    if not settings.resume:
        return choose_precision(settings)
    try:
        facts = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        choice = json_codec.decode(PrecisionChoice, facts["precision"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        # The check of what may be resumed says what is wrong with the file.
        return PrecisionChoice(FULL_PRECISION, "the interrupted run does not say")
    if lacks := lacking(choice.applied(settings).trainer):
        raise ResumeError(
            settings.title,
            settings.tf.name,
            f"{folder} trains with trainer.precision={choice.precision}, and {lacks}",
            "go on with it where it began, or start afresh without resume=true",
        )
    return choice


def choose_precision(settings: TrainConfig) -> PrecisionChoice:
    """Choose between bf16 and 32 bits for a training on this machine.

    On a CPU that multiplies bf16 itself (AVX512-BF16 or AMX) some training steps are timed in
    both, on random windows. That takes about a second. On a GPU it is bf16 where the GPU has it.
    """
    if settings.trainer.accelerator == "gpu":
        has_bf16 = torch.cuda.is_bf16_supported()
        return PrecisionChoice(MIXED_PRECISION if has_bf16 else FULL_PRECISION, "of this GPU")
    if isinstance(settings.model, OwnNetworkConfig):
        return PrecisionChoice(FULL_PRECISION, "a network of your own may not bear bf16")
    if settings.fleet:
        return PrecisionChoice(FULL_PRECISION, "a fleet on a CPU")
    if not multiplies_bf16():
        return PrecisionChoice(FULL_PRECISION, "this CPU has no bf16")
    most = torch.get_num_threads()
    counts = (most,) if settings.workers is not None or most == 1 else (most, 1)
    with torch.random.fork_rng(devices=()):
        steps = time_steps(
            seeded_network(settings),
            min(settings.batch_size, _MOST_BATCH),
            min(settings.lookback, _MOST_LOOKBACK),
            counts,
        )
    full, mixed = (
        _better([step for step in steps if step.precision == precision])
        for precision in (FULL_PRECISION, MIXED_PRECISION)
    )
    chosen = _better([full, mixed])
    log.info(
        "a training step takes %.0f ms in bf16 and %.0f ms in 32 bits: training in %s with %d of "
        "%d threads",
        1000 * mixed.secs,
        1000 * full.secs,
        "bf16" if chosen is mixed else "32 bits",
        chosen.threads,
        most,
    )
    return PrecisionChoice(chosen.precision, "timed on this CPU", chosen.threads, steps)


def _better(steps: Sequence[StepTime]) -> StepTime:
    """The first, unless another is clearly faster."""
    usual, *others = steps
    fastest = min(others, key=lambda step: step.secs, default=usual)
    return fastest if fastest.secs < _MOST_SHARE * usual.secs else usual


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products in bf16."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def time_steps(
    network: nn.Module, batch_size: int, lookback: int, thread_counts: Sequence[int]
) -> tuple[StepTime, ...]:
    """Time training steps in both precisions, in turn, for about a second.

    Args:
        network: Has ``n_features``; gradients are left on its weights.
        batch_size: Windows in a step, at least 2.
        lookback: Bars in a window.
        thread_counts: Numbers of threads to time.
    """
    windows = torch.randn(batch_size, lookback, int(network.n_features))  # type: ignore[arg-type]
    labels = torch.randint(len(CLASS_NAMES), (batch_size,))
    ways = list(product((FULL_PRECISION, MIXED_PRECISION), thread_counts))
    taken: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    before, began = torch.get_num_threads(), time.perf_counter()
    # The first step of each prepares its kernels and does not count.
    while len(taken[ways[-1]]) < 2 or time.perf_counter() - began < _PROBE_SECS:
        for (precision, threads), secs in taken.items():
            torch.set_num_threads(threads)
            started = time.perf_counter()
            is_mixed = precision == MIXED_PRECISION
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                loss = functional.cross_entropy(network(windows), labels)
            torch.autograd.backward(loss)
            secs.append(time.perf_counter() - started)
    torch.set_num_threads(before)
    return tuple(StepTime(*way, statistics.median(secs[1:])) for way, secs in taken.items())
