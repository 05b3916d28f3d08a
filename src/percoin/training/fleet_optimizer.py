"""AdamW and gradient clipping of many models whose weights are rows of one tensor."""

from __future__ import annotations

import torch
from torch import Tensor

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
        self._mean = torch.zeros_like(weights)
        self._square = torch.zeros_like(weights)
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

    @torch.no_grad()
    def step(self, lr: Tensor, models: Tensor | None = None) -> None:
        """Clip and update; the gradient is gone afterwards.

        Args:
            lr: Learning rate of every model, shape (K,).
            models: Which to update; None is all. No number of the others changes.
        """
        gradient = self._weights.grad
        assert gradient is not None
        self._weights.grad = None
        # A slice gives views, and writing a view to itself costs nothing.
        at = slice(None) if models is None else models
        self._n_updates[at] += 1
        n_updates, rate = self._n_updates[at], lr.double()[at].unsqueeze(1)
        gradient, weights = gradient[at], self._weights[at]
        mean, square = self._mean[at], self._square[at]
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        gradient *= (self._clip_norm / (norm + _CLIP_EPSILON)).clamp(max=1.0)
        mean.lerp_(gradient, 1 - _BETAS[0])
        square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        unbiased = (1 - _BETAS[1] ** n_updates).sqrt().to(weights.dtype)
        size = (rate / (1 - _BETAS[0] ** n_updates)).to(weights.dtype)
        weights *= (1 - rate * self._weight_decay).to(weights.dtype)
        weights -= size * mean / (square.sqrt() / unbiased + _EPSILON)
        self._weights[at], self._mean[at], self._square[at] = weights, mean, square
