"""Many networks of one shape stacked into one module, which launches far fewer GPU kernels."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from percoin.network import CnnLstm
from percoin.training.fleet_lstm import recur


class StackedCnnLstm(nn.Module):
    """K independent networks, computed together.

    The layers and their settings are read from a ``CnnLstm``, so the network is described in
    one place only. Every tensor has a leading axis of models. All weights of a model are one
    row, so clipping, updating or copying a model takes one operation.

    Args:
        template: A network of the common shape; its weights are not used.
        weights: All trainable weights, shape (K, n_weights).
        statistics: Means and variances of batch normalisation, shape (K, n_statistics).
        n_batches: Number of batches in these statistics, per layer, shape (K, n_layers).
    """

    weights: nn.Parameter
    statistics: Tensor
    n_batches: Tensor

    def __init__(
        self, template: CnnLstm, weights: Tensor, statistics: Tensor, n_batches: Tensor
    ) -> None:
        super().__init__()
        # In a tuple, so that torch does not register its empty weights as part of this module.
        self._template = (copy.deepcopy(template).to("meta"),)
        self.weights = nn.Parameter(weights)
        self.register_buffer("statistics", statistics)
        self.register_buffer("n_batches", n_batches)

    @classmethod
    def from_networks(cls, networks: Sequence[CnnLstm]) -> StackedCnnLstm:
        """Stack copies of at least one network; all have one shape."""

        def rows(names: Sequence[str]) -> Tensor:
            states = [network.state_dict() for network in networks]
            return torch.stack([torch.cat([own[n].flatten() for n in names]) for own in states])

        template = networks[0]
        return cls(template, *(rows(list(shapes)) for shapes in _shapes(template)))

    @property
    def n_models(self) -> int:
        """Number of models, K."""
        return len(self.weights)

    def unstack(self, model: int) -> dict[str, Tensor]:
        """State dict of one model on the CPU, in the form that ``CnnLstm`` loads."""
        template = self._template[0]
        rows = (self.weights.detach(), self.statistics, self.n_batches)
        found: dict[str, Tensor] = {}
        for shapes, row in zip(_shapes(template), rows, strict=True):
            pieces = torch.split(row[model], [shape.numel() for shape in shapes.values()])
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True):
                found[name] = piece.reshape(shape).cpu().clone()
        return {name: found[name] for name in template.state_dict()}

    def take(self, models: Tensor) -> StackedCnnLstm:
        """Copy some of the models into a new stack; ``models`` has shape (n_taken,)."""
        rows = self.weights.detach()[models], self.statistics[models], self.n_batches[models]
        return StackedCnnLstm(self._template[0], *rows)

    @torch.no_grad()
    def put(self, models: Tensor, others: StackedCnnLstm) -> None:
        """Replace some of the models with all models of another stack, in its order."""
        self.weights[models] = others.weights
        self.statistics[models] = others.statistics
        self.n_batches[models] = others.n_batches

    def forward(
        self, windows: Tensor, models: Tensor | None = None, is_active: Tensor | None = None
    ) -> Tensor:
        """Compute the logits of each model for its own windows.

        Args:
            windows: Scaled features, oldest bar first, shape (K, B, L, F).
            models: Index of the model for each batch of windows, shape (K,); None means all
                models, in order.
            is_active: Which models update their batch normalisation statistics in training,
                shape (K,); None means all.

        Returns:
            Logits in the order of ``Signal``, shape (K, B, C).
        """
        weights, before = self._rows(models)
        statistics = before.clone() if self.training else before
        pass_ = _Pass(self._template[0], weights, statistics, is_training=self.training)
        logits = pass_.logits(windows)
        if self.training:
            if is_active is None:
                is_active = torch.ones(len(before), dtype=torch.bool, device=before.device)
            self._remember(statistics, models, is_active)
        return logits

    def _rows(self, models: Tensor | None) -> tuple[Tensor, Tensor]:
        if models is None:
            return self.weights, self.statistics
        return self.weights[models], self.statistics[models]

    @torch.no_grad()
    def _remember(self, statistics: Tensor, models: Tensor | None, is_active: Tensor) -> None:
        at = slice(None) if models is None else models
        kept = torch.where(is_active.unsqueeze(1), statistics, self.statistics[at])
        self.statistics[at] = kept
        self.n_batches[at] += is_active.unsqueeze(1)


class _Pass:
    """One forward pass of windows (K, B, L, F) through K networks.

    Args:
        template: Gives the layers.
        weights: Shape (K, n_weights).
        statistics: Shape (K, n_statistics); updated in place in training.
        is_training: Whether dropout is on and normalisation uses the batch's own statistics.
    """

    def __init__(
        self, template: CnnLstm, weights: Tensor, statistics: Tensor, is_training: bool
    ) -> None:
        self.statistics = statistics
        self._template = template
        self._is_training = is_training
        self._n_models = len(weights)
        learnt, seen, _ = _shapes(template)
        self._weights = dict(_named(weights, learnt))
        self._statistics = dict(_named(statistics, seen))

    def logits(self, windows: Tensor) -> Tensor:
        """Logits, shape (K, B, C)."""
        local = self._convolve(windows.permute(0, 3, 1, 2))  # (K, channels[-1], B)
        newest = self._attend(self._recur(windows.transpose(1, 2)))  # (K, 2 * hidden_size, B)
        values = torch.cat([local, newest], dim=1)
        for index, layer in enumerate(self._template.head):
            place = f"head.{index}"
            if isinstance(layer, nn.Linear):
                values = self._linear(place, values)
            elif isinstance(layer, nn.BatchNorm1d):
                values = self._normalise(place, layer, values)
            else:
                values = self._unweighted(layer, values)
        return values.transpose(1, 2)

    def _convolve(self, values: Tensor) -> Tensor:
        """Apply the convolutions to (K, F, B, L) and take the mean over time: (K, channels, B)."""
        for index, layer in enumerate(self._template.convolution):
            place = f"convolution.{index}"
            if isinstance(layer, nn.Conv1d):
                values = self._convolution(place, layer, values)
            elif isinstance(layer, nn.BatchNorm1d):
                values = self._normalise(place, layer, values)
            elif isinstance(layer, nn.MaxPool1d):
                pooled = self._unweighted(layer, values.flatten(0, 1))
                values = torch.unflatten(pooled, 0, (self._n_models, -1))
            else:
                values = self._unweighted(layer, values)
        return values.mean(dim=3)

    def _convolution(self, place: str, layer: nn.Conv1d, values: Tensor) -> Tensor:
        """A convolution over the last axis of (K, channels, B, L), as one matrix product."""
        (width,), padding = layer.kernel_size, int(layer.padding[0])
        padded = functional.pad(values, (padding, padding))
        n_bars = padded.shape[-1] - width + 1
        # Each bar with its neighbours, in the order of the weights: channel, then position.
        shifted = [padded[..., first : first + n_bars] for first in range(width)]
        around = torch.stack(shifted, dim=2).flatten(1, 2)
        weight = self._weights[f"{place}.weight"].flatten(2)  # (K, n_out, n_in * width)
        bias = self._bias(place).unsqueeze(2)
        product = torch.baddbmm(bias, weight, around.flatten(2))
        return torch.unflatten(product, 2, around.shape[2:])

    def _recur(self, bars: Tensor) -> Tensor:
        """The LSTM's outputs (K, L, B, 2 * hidden_size) for windows (K, L, B, F)."""
        lstm = self._template.lstm
        for layer in range(lstm.num_layers):
            if layer:
                bars = functional.dropout(bars, lstm.dropout, self._is_training)
            from_input, from_state, *biases = (
                self._both_directions(f"{kind}_l{layer}")
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            # Each direction in its own time order, (K * 2, L, B, n_in).
            both = torch.stack([bars, bars.flip(1)], dim=1).flatten(0, 1)
            states = recur(both, from_input, from_state, biases[0] + biases[1])
            forward, backward = torch.unflatten(states, 0, (self._n_models, 2)).unbind(1)
            bars = torch.cat([forward, backward.flip(1)], dim=-1)
        return bars

    def _attend(self, bars: Tensor) -> Tensor:
        """Attention output for the newest bar, (K, 2 * hidden_size, B), as ``attend_newest``."""
        n_heads = self._template.attention.num_heads
        n_rows = bars.shape[2]
        weights = self._weights["attention.in_proj_weight"].chunk(3, dim=1)
        # One matrix per head and model, (K * heads, width of a head, width).
        of_query, of_key, of_value = (
            torch.unflatten(weight, 1, (n_heads, -1)).flatten(0, 1) for weight in weights
        )
        bias = self._weights["attention.in_proj_bias"].chunk(3, dim=1)
        bias_query, bias_value = (
            torch.unflatten(own, 1, (n_heads, -1)).flatten(0, 1).unsqueeze(1)
            for own in (bias[0], bias[2])
        )
        newest = bars[:, -1].repeat_interleave(n_heads, dim=0)  # (K * heads, B, width)
        query = torch.baddbmm(bias_query, newest, of_query.transpose(1, 2))
        asked = torch.bmm(query / math.sqrt(query.shape[-1]), of_key)

        def by_window(values: Tensor) -> Tensor:
            """(K * heads, B, width) to (K * B, heads, width)."""
            return torch.unflatten(values, 0, (-1, n_heads)).transpose(1, 2).flatten(0, 1)

        of_window = bars.transpose(1, 2).flatten(0, 1)  # (K * B, L, width)
        shares = torch.bmm(by_window(asked), of_window.transpose(1, 2)).softmax(dim=-1)
        found = torch.bmm(shares.to(of_window.dtype), of_window)  # (K * B, heads, width)
        by_head = torch.unflatten(found, 0, (-1, n_rows)).transpose(1, 2).flatten(0, 1)
        value = torch.baddbmm(bias_value, by_head, of_value.transpose(1, 2))
        # (K * heads, B, width of a head) to (K, width, B)
        values = torch.unflatten(value.transpose(1, 2), 0, (-1, n_heads)).flatten(1, 2)
        return self._linear("attention.out_proj", values)

    def _linear(self, place: str, values: Tensor) -> Tensor:
        """Values (K, n_in, B) to (K, n_out, B)."""
        bias = self._bias(place).unsqueeze(2)
        return torch.baddbmm(bias, self._weights[f"{place}.weight"], values)

    def _normalise(self, place: str, layer: nn.BatchNorm1d, values: Tensor) -> Tensor:
        """Batch normalisation of (K, channels, ...), separate for each channel of each model."""
        kept = [self._statistics[f"{place}.running_{name}"] for name in ("mean", "var")]
        # Copies: the models' rows are not contiguous, and the backward pass keeps its inputs.
        mean, variance = flat = [statistic.flatten().clone() for statistic in kept]
        normalised = functional.batch_norm(
            # Shape (1, K * channels, n): one "batch row" with the channels of all models.
            values.reshape(1, len(mean), -1),
            mean,
            variance,
            self._weights[f"{place}.weight"].flatten(),
            self._bias(place).flatten(),
            self._is_training,
            layer.momentum or 0.0,
            layer.eps,
        )
        if self._is_training:
            for statistic, now in zip(kept, flat, strict=True):
                statistic.copy_(now.view_as(statistic))
        return normalised.view_as(values)

    def _unweighted(self, layer: nn.Module, values: Tensor) -> Tensor:
        """A layer without weights, applied to all models at once."""
        if isinstance(layer, nn.Dropout):
            return functional.dropout(values, layer.p, self._is_training)
        result: Tensor = layer(values)
        return result

    def _bias(self, place: str) -> Tensor:
        return self._weights[f"{place}.bias"]

    def _both_directions(self, name: str) -> Tensor:
        """Forward and backward weights of each model, shape (K * 2, ...)."""
        ends = (f"lstm.{name}", f"lstm.{name}_reverse")
        return torch.stack([self._weights[end] for end in ends], dim=1).flatten(0, 1)


def _shapes(
    network: CnnLstm,
) -> tuple[dict[str, torch.Size], dict[str, torch.Size], dict[str, torch.Size]]:
    """Shapes by name of the weights, of the statistics and of the batch counters."""
    learnt = {name: parameter.shape for name, parameter in network.named_parameters()}
    buffers = dict(network.named_buffers())
    seen = {name: own.shape for name, own in buffers.items() if own.is_floating_point()}
    return learnt, seen, {name: buffers[name].shape for name in buffers if name not in seen}


def _named(rows: Tensor, shapes: Mapping[str, torch.Size]) -> Iterator[tuple[str, Tensor]]:
    """Split rows (K, n) into named views of shape (K, ...)."""
    # One split: each of many slices would have a gradient as large as the whole tensor.
    pieces = torch.split(rows, [shape.numel() for shape in shapes.values()], dim=1)
    for (name, shape), piece in zip(shapes.items(), pieces, strict=True):
        yield name, torch.unflatten(piece, 1, shape)
