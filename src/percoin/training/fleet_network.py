"""Many networks of one shape side by side, as one that takes a fraction of the launches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from percoin.network import CnnLstm

# Input and forget gate, new content, output gate: the order of ``nn.LSTM``.
_N_GATES = 4


class StackedCnnLstm(nn.Module):
    """K networks with weights of their own that answer together; none knows of another.

    The layers and their settings are read off a ``CnnLstm``, so there is one description of
    the network. Every tensor has a leading axis of models, and all that a model learns is
    one row: clipping, updating and copying a model each take one operation.

    Args:
        template: A network of the shape of all; its weights are not used.
        weights: Everything learnt, shape (K, n_weights).
        statistics: Means and variances of batch normalisation, shape (K, n_statistics).
        n_batches: How many batches these have seen, layer by layer, shape (K, n_layers).
    """

    weights: nn.Parameter
    statistics: Tensor
    n_batches: Tensor

    def __init__(
        self, template: CnnLstm, weights: Tensor, statistics: Tensor, n_batches: Tensor
    ) -> None:
        super().__init__()
        # In a tuple, or its empty weights would be among those of this module.
        self._template = (copy.deepcopy(template).to("meta"),)
        self.weights = nn.Parameter(weights)
        self.register_buffer("statistics", statistics)
        self.register_buffer("n_batches", n_batches)

    @classmethod
    def from_networks(cls, networks: Sequence[CnnLstm]) -> StackedCnnLstm:
        """Copies of networks of one shape, at least one."""

        def rows(names: Sequence[str]) -> Tensor:
            states = [network.state_dict() for network in networks]
            return torch.stack([torch.cat([own[n].flatten() for n in names]) for own in states])

        template = networks[0]
        return cls(template, *(rows(list(shapes)) for shapes in _shapes(template)))

    @property
    def n_models(self) -> int:
        """K."""
        return len(self.weights)

    def unstack(self, model: int) -> dict[str, Tensor]:
        """State of one model on the CPU, as ``CnnLstm`` loads it."""
        template = self._template[0]
        rows = (self.weights.detach(), self.statistics, self.n_batches)
        found: dict[str, Tensor] = {}
        for shapes, row in zip(_shapes(template), rows, strict=True):
            pieces = torch.split(row[model], [shape.numel() for shape in shapes.values()])
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True):
                found[name] = piece.reshape(shape).cpu().clone()
        return {name: found[name] for name in template.state_dict()}

    def take(self, models: Tensor) -> StackedCnnLstm:
        """A stack of copies of some of the models, shape (n_taken,)."""
        rows = self.weights.detach()[models], self.statistics[models], self.n_batches[models]
        return StackedCnnLstm(self._template[0], *rows)

    @torch.no_grad()
    def put(self, models: Tensor, others: StackedCnnLstm) -> None:
        """Replace some of the models by all of another stack, in its order."""
        self.weights[models] = others.weights
        self.statistics[models] = others.statistics
        self.n_batches[models] = others.n_batches

    def forward(self, windows: Tensor, models: Tensor | None = None) -> Tensor:
        """Score each model's own windows.

        Args:
            windows: Scaled features, oldest bar first, shape (K, B, L, F).
            models: Which models the windows are for, shape (K,); None is all, in order.

        Returns:
            Logits in the order of ``Signal``, shape (K, B, C).
        """
        pass_ = _Pass(self._template[0], *self._rows(models), is_training=self.training)
        logits = pass_.logits(windows)
        if self.training:
            self._remember(pass_.statistics, models)
        return logits

    def _rows(self, models: Tensor | None) -> tuple[Tensor, Tensor]:
        if models is None:
            return self.weights, self.statistics
        return self.weights[models], self.statistics[models]

    @torch.no_grad()
    def _remember(self, statistics: Tensor, models: Tensor | None) -> None:
        if models is None:
            self.n_batches += 1
            return
        self.statistics[models] = statistics
        self.n_batches[models] += 1


class _Pass:
    """One pass of windows (K, B, L, F) through K networks.

    Args:
        template: What the layers are.
        weights: Shape (K, n_weights).
        statistics: Shape (K, n_statistics); brought up to date in place while training.
        is_training: Whether values are dropped and batches normalised by themselves.
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
        """Shape (K, B, C)."""
        local = self._convolve(windows)  # (K, B, channels[-1])
        newest = self._attend(self._recur(windows))  # (K, B, 2 * hidden_size)
        values = torch.cat([local, newest], dim=-1)
        for index, layer in enumerate(self._template.head):
            place = f"head.{index}"
            if isinstance(layer, nn.Linear):
                values = _linear(values, self._weights[f"{place}.weight"], self._bias(place))
            elif isinstance(layer, nn.BatchNorm1d):
                # The batch first, for normalisation
                side_by_side = values.transpose(0, 1).flatten(1)
                normalised = self._normalise(place, layer, side_by_side)
                values = torch.unflatten(normalised, 1, (self._n_models, -1)).transpose(0, 1)
            else:
                values = self._unweighted(layer, values)
        return values

    def _convolve(self, windows: Tensor) -> Tensor:
        """Every model's channels side by side, (B, K * channels, L), in groups of one model."""
        values = windows.permute(1, 0, 3, 2).flatten(1, 2)
        for index, layer in enumerate(self._template.convolution):
            place = f"convolution.{index}"
            if isinstance(layer, nn.Conv1d):
                weight = self._weights[f"{place}.weight"].flatten(0, 1)
                values = functional.conv1d(
                    values,
                    weight,
                    self._bias(place).flatten(),
                    stride=layer.stride,
                    padding=layer.padding,
                    groups=self._n_models,
                )
            elif isinstance(layer, nn.BatchNorm1d):
                values = self._normalise(place, layer, values)
            else:
                values = self._unweighted(layer, values)
        return torch.unflatten(values.mean(dim=2), 1, (self._n_models, -1)).transpose(0, 1)

    def _recur(self, windows: Tensor) -> Tensor:
        """The LSTM's outputs, shape (K, B, L, 2 * hidden_size)."""
        lstm, outputs = self._template.lstm, windows
        for layer in range(lstm.num_layers):
            if layer:
                outputs = functional.dropout(outputs, lstm.dropout, self._is_training)
            from_input, from_state, *biases = (
                self._both_directions(f"{kind}_l{layer}")
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            outputs = _bidirectional(outputs, from_input, from_state, biases[0] + biases[1])
        return outputs

    def _attend(self, outputs: Tensor) -> Tensor:
        """What the newest bar's query finds, shape (K, B, 2 * hidden_size)."""
        n_heads, width = self._template.attention.num_heads, outputs.shape[-1]

        def heads(values: Tensor) -> Tensor:
            """(K, B, bars, width) to (K, B, heads, bars, width of a head)."""
            return torch.unflatten(values, -1, (n_heads, -1)).transpose(2, 3)

        sizes = [width, 2 * width]
        weight = torch.split(self._weights["attention.in_proj_weight"], sizes, dim=1)
        bias = torch.split(self._weights["attention.in_proj_bias"], sizes, dim=1)
        query = _linear(outputs[:, :, -1], weight[0], bias[0]).unsqueeze(2)
        both = _linear(outputs.flatten(1, 2), weight[1], bias[1])
        key, value = torch.unflatten(both, 1, outputs.shape[1:3]).chunk(2, dim=-1)
        newest = functional.scaled_dot_product_attention(heads(query), heads(key), heads(value))
        place = "attention.out_proj"
        weight_out = self._weights[f"{place}.weight"]
        return _linear(newest.flatten(2), weight_out, self._bias(place))

    def _normalise(self, place: str, layer: nn.BatchNorm1d, values: Tensor) -> Tensor:
        """Batch normalisation of (B, K * channels, ...): each channel of each model alone."""
        kept = [self._statistics[f"{place}.running_{name}"] for name in ("mean", "var")]
        # Rows of several models do not lie side by side, and backward keeps what it was given.
        mean, variance = flat = [statistic.flatten().clone() for statistic in kept]
        normalised = functional.batch_norm(
            values,
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
        return normalised

    def _unweighted(self, layer: nn.Module, values: Tensor) -> Tensor:
        """A layer that learns nothing, which takes all models for one."""
        if isinstance(layer, nn.Dropout):
            return functional.dropout(values, layer.p, self._is_training)
        result: Tensor = layer(values)
        return result

    def _bias(self, place: str) -> Tensor:
        return self._weights[f"{place}.bias"]

    def _both_directions(self, name: str) -> Tensor:
        """Forward and backward weights, shape (K, 2, ...)."""
        ends = (f"lstm.{name}", f"lstm.{name}_reverse")
        return torch.stack([self._weights[end] for end in ends], dim=1)


def _shapes(
    network: CnnLstm,
) -> tuple[dict[str, torch.Size], dict[str, torch.Size], dict[str, torch.Size]]:
    """Of what is learnt, of the statistics and of the counters of batches, by name."""
    learnt = {name: parameter.shape for name, parameter in network.named_parameters()}
    buffers = dict(network.named_buffers())
    seen = {name: own.shape for name, own in buffers.items() if own.is_floating_point()}
    return learnt, seen, {name: buffers[name].shape for name in buffers if name not in seen}


def _named(rows: Tensor, shapes: Mapping[str, torch.Size]) -> Iterator[tuple[str, Tensor]]:
    """Views of rows (K, n), each of shape (K, ...)."""
    # One split and not many slices, whose gradients would each be as large as all together.
    pieces = torch.split(rows, [shape.numel() for shape in shapes.values()], dim=1)
    for (name, shape), piece in zip(shapes.items(), pieces, strict=True):
        yield name, torch.unflatten(piece, 1, shape)


def _linear(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Values (K, B, n_in) by weights (K, n_out, n_in), plus a bias (K, n_out)."""
    return torch.baddbmm(bias.unsqueeze(1), values, weight.transpose(1, 2))


def _bidirectional(values: Tensor, from_input: Tensor, from_state: Tensor, bias: Tensor) -> Tensor:
    """One layer of an LSTM in both directions, models and directions in one matrix product.

    The equations are those of ``nn.LSTM`` (Hochreiter and Schmidhuber, 1997, with the
    forget gate of Gers et al., 2000).

    Args:
        values: Shape (K, B, L, n_in).
        from_input: Weights of the input, shape (K, 2, 4 * H, n_in).
        from_state: Weights of the state before, shape (K, 2, 4 * H, H).
        bias: Shape (K, 2, 4 * H).

    Returns:
        Outputs, the forward ones first, shape (K, B, L, 2 * H).
    """
    n_models, n_rows, n_bars, _ = values.shape
    width = from_state.shape[-1]
    # All that hangs on the input alone, for all bars at once; then time first.
    driven = _linear(values.flatten(1, 2), from_input.flatten(1, 2), bias.flatten(1))
    driven = driven.view(n_models, n_rows, n_bars, 2, _N_GATES * width).permute(2, 0, 3, 1, 4)
    driven = _backward_reversed(driven).flatten(1, 2)  # (L, K * 2, B, 4 * H)
    recurrent = from_state.flatten(0, 1).transpose(1, 2)
    # As exact as the weights, whatever the products are computed in.
    hidden = cell = from_state.new_zeros(2 * n_models, n_rows, width)
    states = []
    for at_bar in driven.unbind():
        gates = torch.baddbmm(at_bar, hidden, recurrent)
        enter, keep, content, leave = gates.chunk(_N_GATES, dim=-1)
        cell = keep.sigmoid() * cell + enter.sigmoid() * content.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        states.append(hidden)
    outputs = torch.unflatten(torch.stack(states), 1, (n_models, 2))
    # (L, K, 2, B, H) to (K, B, L, 2 * H)
    return _backward_reversed(outputs).permute(1, 3, 0, 2, 4).flatten(3)


def _backward_reversed(values: Tensor) -> Tensor:
    """The same with time turned round in the backward direction; shape (L, K, 2, ...)."""
    forward, backward = values.unbind(dim=2)
    return torch.stack([forward, backward.flip(0)], dim=2)
