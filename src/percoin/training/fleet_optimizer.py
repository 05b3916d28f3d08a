"""AdamW and gradient clipping of many models whose weights are rows of one tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from percoin.training.fused import fused

# Of torch.optim.AdamW.
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
# Of torch.nn.utils.clip_grad_norm_.
_CLIP_EPSILON = 1e-6


class StackedAdamW:
    """Updates each row as ``torch.optim.AdamW`` would update a model of its own.

    AdamW (Loshchilov and Hutter, 2019) takes every number alone, so rows only differ in
    their learning rate, in how many updates they have had and in the norm of their gradient.

    Args:
        weights: A leaf of shape (K, n_weights).
        weight_decay: As in torch.
        clip_norm: Largest norm of a row's gradient.
    """

    def __init__(self, weights: Tensor, weight_decay: float, clip_norm: float) -> None:
        self._weights = weights
        self._weight_decay = weight_decay
        self._clip_norm = clip_norm
        self._mean = torch.zeros_like(weights, requires_grad=False)
        self._square = torch.zeros_like(weights, requires_grad=False)
        self._n_updates = weights.new_zeros(len(weights), 1, dtype=torch.float64)

    def narrow(self, weights: Tensor, models: Tensor) -> None:
        """Go on with some of the models alone.

        Args:
            weights: Theirs, a leaf of its own.
            models: Which of those so far they are, shape (n_left,).
        """
        self._weights = weights
        self._mean = self._mean[models]
        self._square = self._square[models]
        self._n_updates = self._n_updates[models]

    def state(self) -> dict[str, Tensor]:
        """All that the next update depends on beside the weights, by name."""
        return {"mean": self._mean, "square": self._square, "n_updates": self._n_updates}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from another optimizer's ``state``."""
        for name, values in self.state().items():
            values.copy_(state[name])

    @torch.no_grad()
    def step(
        self, lr: Tensor, models: Tensor | None = None, is_active: Tensor | None = None
    ) -> None:
        """Clip and update; the gradient is gone afterwards.

        Args:
            lr: Learning rate of every model, shape (K,).
            models: Which to update, shape (k,); None is all. No number of the others changes.
            is_active: Which of those to update after all, shape (k,); None is all. It lets
                one recorded step serve steps in which not every model takes part.
        """
        gradient = self._weights.grad
        if gradient is None:
            return
        self._weights.grad = None
        # A slice gives views, and writing a view to itself costs nothing.
        at = slice(None) if models is None else models
        rate = lr.double()[at].unsqueeze(1)
        gradient, weights = gradient[at], self._weights.detach()[at]
        mean, square, n_updates = self._mean[at], self._square[at], self._n_updates[at]
        active = torch.ones_like(rate, dtype=torch.bool)
        if is_active is not None:
            active = is_active.unsqueeze(1)
        n_updates += active
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        shrink = (self._clip_norm / (norm + _CLIP_EPSILON)).clamp(max=1.0)
        # An update that is not made may be the first: its count is 0, and its size no number.
        counted = n_updates.clamp(min=1)
        size = (rate / (1 - _BETAS[0] ** counted)).to(weights.dtype)
        unbiased = (1 - _BETAS[1] ** counted).sqrt().to(weights.dtype)
        decay = (1 - rate * self._weight_decay).to(weights.dtype)
        update = fused(_update, weights.device)
        update(weights, gradient, mean, square, shrink, size, unbiased, decay, active)
        if models is not None:
            self._weights.detach()[at] = weights
            self._mean[at], self._square[at], self._n_updates[at] = mean, square, n_updates


def _update(
    weights: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    shrink: Tensor,
    size: Tensor,
    unbiased: Tensor,
    decay: Tensor,
    active: Tensor,
) -> None:
    """Change weights, mean and square in place, (k, n_weights) each; the rest is (k, 1).

    Args:
        weights: What is learnt.
        gradient: Of the weights, before clipping.
        mean: Of the gradients so far, exponentially weighted.
        square: Mean of their squares.
        shrink: What clipping multiplies the gradient by.
        size: Learning rate over the bias of the mean.
        unbiased: Root of what the mean of squares is short of.
        decay: What weight decay multiplies the weights by.
        active: Whether the row changes at all.
    """
    clipped = gradient * shrink
    new_mean = mean.lerp(clipped, 1 - _BETAS[0])
    new_square = square * _BETAS[1] + clipped * clipped * (1 - _BETAS[1])
    moved = weights * decay - size * new_mean / (new_square.sqrt() / unbiased + _EPSILON)
    weights.copy_(torch.where(active, moved, weights))
    mean.copy_(torch.where(active, new_mean, mean))
    square.copy_(torch.where(active, new_square, square))
