"""AdamW and gradient clipping for many models; each row of one tensor holds a model's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from percoin.training.fused import fused

# As in torch.optim.AdamW.
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
# As in torch.nn.utils.clip_grad_norm_.
_CLIP_EPSILON = 1e-6


class StackedAdamW:
    """Updates each row as ``torch.optim.AdamW`` updates a separate model.

    AdamW (Loshchilov and Hutter, 2019) works on each number separately. So rows differ only in
    their learning rate, their number of updates and the norm of their gradient.

    Args:
        weights: Leaf tensor, shape (K, n_weights).
        weight_decay: As in torch.
        clip_norm: Largest gradient norm of a row.
    """

    def __init__(self, weights: Tensor, weight_decay: float, clip_norm: float) -> None:
        self._weights = weights
        self._weight_decay = weight_decay
        self._clip_norm = clip_norm
        self._mean = torch.zeros_like(weights, requires_grad=False)
        self._square = torch.zeros_like(weights, requires_grad=False)
        self._n_updates = weights.new_zeros(len(weights), 1, dtype=torch.float64)

    def narrow(self, weights: Tensor, models: Tensor) -> None:
        """Continue with only some of the models.

        Args:
            weights: Their weights, a new leaf tensor.
            models: Their indices among the current models, shape (n_left,).
        """
        self._weights = weights
        self._mean = self._mean[models]
        self._square = self._square[models]
        self._n_updates = self._n_updates[models]

    def state(self) -> dict[str, Tensor]:
        """Everything but the weights that the next update depends on, by name."""
        return {"mean": self._mean, "square": self._square, "n_updates": self._n_updates}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from another optimizer's ``state``."""
        for name, values in self.state().items():
            values.copy_(state[name])

    @torch.no_grad()
    def step(
        self, lr: Tensor, models: Tensor | None = None, is_active: Tensor | None = None
    ) -> None:
        """Clip, update, and remove the gradient.

        Args:
            lr: Learning rate of each model, shape (K,).
            models: Models to compute, shape (k,); None means all. The others stay unchanged.
            is_active: Which of these really change, shape (k,); None means all. So one
                recorded step also serves for steps in which some models have no batch.
        """
        gradient = self._weights.grad
        if gradient is None:
            return
        self._weights.grad = None
        # A full slice gives views, so the in-place update below needs no copy back.
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
        # An inactive model may still have 0 updates, which would make the step size infinite.
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
    """Update weights, mean and square in place.

    The first four have shape (k, n_weights), the others (k, 1).

    Args:
        weights: The weights.
        gradient: Gradient of the weights, before clipping.
        mean: Exponential moving average of the gradients.
        square: Exponential moving average of their squares.
        shrink: Clipping factor of the gradient.
        size: Learning rate divided by the bias correction of the mean.
        unbiased: Square root of the bias correction of the squares.
        decay: Factor of weight decay.
        active: Whether the row changes.
    """
    clipped = gradient * shrink
    new_mean = mean.lerp(clipped, 1 - _BETAS[0])
    new_square = square * _BETAS[1] + clipped * clipped * (1 - _BETAS[1])
    moved = weights * decay - size * new_mean / (new_square.sqrt() / unbiased + _EPSILON)
    weights.copy_(torch.where(active, moved, weights))
    mean.copy_(torch.where(active, new_mean, mean))
    square.copy_(torch.where(active, new_square, square))
