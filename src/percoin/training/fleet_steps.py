"""The training steps of many models: which models take part in each, and how to replay them."""

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

# Each kind of step runs this many times before it is recorded: the first runs do set-up work.
_STEPS_BEFORE_RECORDING = 3


class Batches(NamedTuple):
    """One batch for each of k models.

    Attributes:
        positions: Positions of the windows, shape (k, B).
        is_active: Which batches count, shape (k,); the results of the others are thrown away.
    """

    positions: Tensor
    is_active: Tensor


@dataclass(frozen=True)
class StepRun:
    """Consecutive steps for the same models.

    Attributes:
        rows: The models.
        batches: The batches of each step.
    """

    rows: tuple[int, ...]
    batches: tuple[Batches, ...]


def step_runs(batches: Sequence[Tensor], most_idle: float) -> list[StepRun]:
    """Group the batches of models into steps; models may have different numbers of batches.

    Args:
        batches: Batches of each model, shape (n_batches, B); both sizes may differ by model.
        most_idle: Largest share of models in a step whose results are thrown away. With 0 a
            step computes only models that have a batch. A larger value gives fewer kinds of
            steps.

    Returns:
        Runs that contain each batch of each model once, in order.
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
            # After this step more than the allowed share of models would be idle.
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
        # Models without a batch left are padded with any windows.
        positions.append(torch.cat([own, own[:1].expand(n_steps - len(own), -1)]))
    all_positions = torch.stack(positions, dim=1)  # (n_steps, k, B)
    device = all_positions.device
    is_active = torch.arange(n_steps).unsqueeze(1) < torch.tensor(lengths)
    steps = zip(all_positions, is_active.to(device), strict=True)
    return StepRun(tuple(rows), tuple(Batches(*step) for step in steps))


class FleetSteps:
    """Runs the training steps of a stack of models and sums their losses.

    On a GPU each kind of step (which models, which batch size) can be recorded as a CUDA graph
    and then replayed. Without this, Python takes several times as long to launch the kernels of
    a step as the GPU takes to run them. A replay computes the same as the step.

    Args:
        network: The models, in training mode.
        adamw: Optimizer of their weights.
        windows: Gives the windows of all models.
        precision: Gives the autocast context.
        lr: Learning rate of each model, shape (K,).
        records: Whether to record steps; needs a GPU.
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
        """Run one step per iteration."""
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
        """Update some of the models; None means all."""
        windows, labels = self._windows(batches.positions)
        with self._precision():
            logits = self._network(windows, models, batches.is_active)
            losses = log_losses(logits, labels)
        # The sum gives each model its own gradient: no loss depends on another model's weights.
        torch.autograd.backward(losses.mean(dim=1).sum())
        self._adamw.step(self._lr, models, batches.is_active)
        counts = batches.is_active.unsqueeze(1).expand_as(labels)
        self.sums.add(losses.detach(), logits.detach(), labels, models, counts)


class _Kind:
    """One kind of step, for batches of one shape; it can be recorded and replayed."""

    def __init__(self, step: Callable[[Batches], None]) -> None:
        self.step = step
        self._n_taken = 0
        self._batches: Batches | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def take(self, batches: Batches) -> None:
        """Run the step, or replay it once it is recorded."""
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
        # A replay reads its inputs from the same memory as the recording.
        self._batches = Batches(*(part.clone() for part in batches))
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.step(self._batches)


class Sums:
    """Sums of loss, correct answers and rows for K models; adding does not wait for the GPU."""

    def __init__(self, n_models: int, device: torch.device) -> None:
        self._sums = torch.zeros(n_models, 3, dtype=torch.float64, device=device)

    def reset(self) -> None:
        """Set all sums to zero."""
        self._sums.zero_()

    def add(
        self,
        losses: Tensor,
        logits: Tensor,
        labels: Tensor,
        models: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> None:
        """Add rows of shape (K, B); ``counts`` selects rows, ``models`` selects models."""
        counts = torch.ones_like(labels, dtype=torch.bool) if counts is None else counts
        is_right = logits.argmax(dim=-1) == labels
        # ``where`` and no product: a loss that is left out may be infinite.
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
