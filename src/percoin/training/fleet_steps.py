"""The steps of an epoch of many models: who takes part in which, taken one by one or replayed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from percoin.training.fleet_network import StackedCnnLstm
from percoin.training.fleet_optimizer import StackedAdamW

# Windows (K, B, L, F) and labels (K, B) at positions (K, B).
Windows = Callable[[Tensor], tuple[Tensor, Tensor]]

# Before a step is recorded it is taken, for all that the first ones set up.
_STEPS_BEFORE_RECORDING = 3


class Batches(NamedTuple):
    """A batch of each of some models.

    Attributes:
        positions: Of the windows, shape (k, B).
        is_active: Whose batch counts, shape (k,); what the others compute is thrown away.
    """

    positions: Tensor
    is_active: Tensor


@dataclass(frozen=True)
class StepRun:
    """Steps in a row for the same models.

    Attributes:
        rows: The models.
        batches: Of each step.
    """

    rows: tuple[int, ...]
    batches: tuple[Batches, ...]


def step_runs(batches: Sequence[Tensor], most_idle: float) -> list[StepRun]:
    """Sort the batches of models that may have different numbers of them into steps.

    Args:
        batches: Of each model, shape (n_batches, B); both may differ.
        most_idle: The largest share of models that a step may compute for nothing. 0 has
            steps of just those that have a batch; more has fewer kinds of steps.

    Returns:
        Runs in which every batch of every model comes once, in its order.
    """
    of_size: dict[int, list[int]] = defaultdict(list)
    for row, own in enumerate(batches):
        if len(own):
            of_size[own.shape[1]].append(row)
    runs = []
    for rows in of_size.values():
        begin = 0
        while left := [row for row in rows if len(batches[row]) > begin]:
            ends = sorted(len(batches[row]) for row in left)
            # At this end more than the allowed share would have nothing to do.
            end = ends[min(int(most_idle * len(left)), len(left) - 1)]
            runs.append(_run(batches, left, begin, end))
            begin = end
    return runs


def _run(batches: Sequence[Tensor], rows: list[int], begin: int, end: int) -> StepRun:
    n_steps = end - begin
    positions, lengths = [], []
    for row in rows:
        own = batches[row][begin:end]
        lengths.append(len(own))
        # Any windows do where there is no batch any more.
        positions.append(torch.cat([own, own[:1].expand(n_steps - len(own), -1)]))
    all_positions = torch.stack(positions, dim=1)  # (n_steps, k, B)
    device = all_positions.device
    is_active = torch.arange(n_steps).unsqueeze(1) < torch.tensor(lengths)
    steps = zip(all_positions, is_active.to(device), strict=True)
    return StepRun(tuple(rows), tuple(Batches(*step) for step in steps))


class FleetSteps:
    """Takes the training steps of a stack of models and sums up what came of them.

    On a GPU a kind of step (whose batches, of which size) is recorded as a CUDA graph and
    replayed from then on: Python takes several times as long to launch the kernels of a step
    as the GPU takes to run them. A replay computes what the step would have computed.

    Args:
        network: In training mode.
        adamw: Of its weights.
        windows: Of all models.
        precision: What to compute in.
        lr: Learning rate of each model, shape (K,).
        records: Whether to record; a CPU cannot.
    """

    def __init__(
        self,
        network: StackedCnnLstm,
        adamw: StackedAdamW,
        windows: Windows,
        precision: Callable[[], torch.autocast],
        lr: Tensor,
        records: bool = False,
    ) -> None:
        self.sums = Sums(network.n_models, network.weights.device)
        self._network = network
        self._adamw = adamw
        self._windows = windows
        self._precision = precision
        self._lr = lr
        self._records = records
        self._kinds: dict[tuple[tuple[int, ...], int], _Kind] = {}

    def run(self, run: StepRun) -> Iterator[None]:
        """Take the steps one by one, each when the next is asked for."""
        kind = self._kind(run.rows, run.batches[0].positions.shape[1])
        for batches in run.batches:
            if self._records:
                kind.take(batches)
            else:
                kind.step(batches)
            yield

    def _kind(self, rows: tuple[int, ...], batch_size: int) -> _Kind:
        key = rows, batch_size
        if key not in self._kinds:
            models = None
            if len(rows) < self._network.n_models:
                models = torch.tensor(rows, device=self._network.weights.device)
            self._kinds[key] = _Kind(lambda batches: self._step(batches, models))
        return self._kinds[key]

    def _step(self, batches: Batches, models: Tensor | None) -> None:
        """One update of some models, all if None."""
        windows, labels = self._windows(batches.positions)
        with self._precision():
            logits = self._network(windows, models, batches.is_active)
            losses = log_losses(logits, labels)
        # The gradient of a sum: no model's loss depends on another's weights.
        torch.autograd.backward(losses.mean(dim=1).sum())
        self._adamw.step(self._lr, models, batches.is_active)
        counts = batches.is_active.unsqueeze(1).expand_as(labels)
        self.sums.add(losses.detach(), logits.detach(), labels, models, counts)


class _Kind:
    """A step that can be taken with other batches of the same shape, or recorded and replayed."""

    def __init__(self, step: Callable[[Batches], None]) -> None:
        self.step = step
        self._n_taken = 0
        self._batches: Batches | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def take(self, batches: Batches) -> None:
        """The step; by its recording, once there is one."""
        if self._graph is None and self._n_taken >= _STEPS_BEFORE_RECORDING:
            self._record(batches)
        if self._graph is None or self._batches is None:
            self._n_taken += 1
            self.step(batches)
            return
        for kept, now in zip(self._batches, batches, strict=True):
            kept.copy_(now)
        self._graph.replay()

    def _record(self, batches: Batches) -> None:
        # A replay reads where the recording has read.
        self._batches = Batches(*(part.clone() for part in batches))
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.step(self._batches)


class Sums:
    """Losses, right answers and rows of K models, added up without waiting for the device."""

    def __init__(self, n_models: int, device: torch.device) -> None:
        self._sums = torch.zeros(n_models, 3, dtype=torch.float64, device=device)

    def reset(self) -> None:
        """Begin again with nothing."""
        self._sums.zero_()

    def add(
        self,
        losses: Tensor,
        logits: Tensor,
        labels: Tensor,
        models: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> None:
        """Add rows: of each model (K, B), or those that ``counts`` has; of some models, or all."""
        counts = torch.ones_like(labels, dtype=torch.bool) if counts is None else counts
        is_right = logits.argmax(dim=-1) == labels
        # Not by a product: what is left out may be infinite.
        kept = [losses.where(counts, 0.0), is_right & counts, counts]
        added = torch.stack([values.double().sum(dim=1) for values in kept], dim=1)
        self._sums[slice(None) if models is None else models] += added

    def means(self) -> list[tuple[float, float]]:
        """Loss and accuracy of each model."""
        return [(loss / n_rows, right / n_rows) for loss, right, n_rows in self._sums.tolist()]


def log_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-loss of each row, shape (K, B)."""
    losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view_as(labels)
