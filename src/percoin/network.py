"""The classifier: a window of features in, one logit per class out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from percoin.types import Signal

_KERNEL_SIZE = 3


class CnnLstm(nn.Module):
    """Convolutions and a bidirectional LSTM side by side over the same window.

    The convolution branch averages over time; the recurrent branch answers with
    the attention output of the newest bar. Both feed one small dense head. With
    15 features and the default widths the network has 689,923 parameters.

    Args:
        n_features: Features per bar, F.
        channels: Widths of the three convolutions.
        hidden_size: LSTM width per direction.
        n_layers: LSTM layers.
        n_heads: Attention heads over the ``2 * hidden_size`` LSTM outputs.
        head_sizes: Widths of the two hidden layers of the head.
        dropout: Probability of dropping a value, wherever dropout is applied.

    Attributes:
        kwargs: The arguments after ``n_features``: what builds the same network again.
    """

    def __init__(
        self,
        n_features: int,
        channels: tuple[int, int, int] = (64, 128, 256),
        hidden_size: int = 100,
        n_layers: int = 2,
        n_heads: int = 4,
        head_sizes: tuple[int, int] = (128, 64),
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.n_features = n_features
        self.kwargs: dict[str, object] = {
            "channels": channels,
            "hidden_size": hidden_size,
            "n_layers": n_layers,
            "n_heads": n_heads,
            "head_sizes": head_sizes,
            "dropout": dropout,
        }
        self.convolution = _convolution_branch(n_features, channels, dropout)
        self.lstm = nn.LSTM(
            n_features,
            hidden_size,
            num_layers=n_layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if n_layers > 1 else 0.0,
        )
        self.attention = nn.MultiheadAttention(2 * hidden_size, n_heads, batch_first=True)
        self.head = _head(channels[-1] + 2 * hidden_size, head_sizes, dropout)

    def forward(self, windows: Tensor) -> Tensor:
        """Score each window.

        Args:
            windows: Scaled features, oldest bar first, shape (B, L, F).

        Returns:
            Logits in the order of ``Signal``, shape (B, C).
        """
        local = self.convolution(windows.transpose(1, 2)).mean(dim=2)  # (B, channels[-1])
        outputs, _ = self.lstm(windows)  # (B, L, 2 * hidden_size)
        newest = attend_newest(self.attention, outputs)
        logits: Tensor = self.head(torch.cat([local, newest], dim=1))
        return logits


def attend_newest(attention: nn.MultiheadAttention, outputs: Tensor) -> Tensor:
    """The attention output of the newest bar alone.

    The same value as ``attention(outputs, outputs, outputs)`` has for the newest bar
    (Vaswani et al., 2017), without computing keys and values. The score of bar ``x`` for the
    query ``q`` is ``q . (K x) = (q K) . x``, and the mean of values ``V x`` is ``V`` times the
    mean of ``x``. The bias of the keys adds the same to every score, so softmax removes it.

    Args:
        attention: Its weights; batch first, without dropout.
        outputs: Of the LSTM, oldest bar first, shape (B, L, E).

    Returns:
        Shape (B, E).
    """
    n_heads, width = attention.num_heads, outputs.shape[2]
    of_query, of_key, of_value = attention.in_proj_weight.chunk(3)
    bias_query, _, bias_value = attention.in_proj_bias.chunk(3)
    query = functional.linear(outputs[:, -1], of_query, bias_query)
    query = torch.unflatten(query, 1, (n_heads, -1)) / math.sqrt(width // n_heads)
    # Each head's own matrix product: (heads, B, E / heads) by (heads, E / heads, E).
    asked = query.transpose(0, 1) @ torch.unflatten(of_key, 0, (n_heads, -1))
    shares = (asked.transpose(0, 1) @ outputs.transpose(1, 2)).softmax(dim=2)  # (B, heads, L)
    found = (shares.to(outputs.dtype) @ outputs).transpose(0, 1)  # (heads, B, E)
    value = found @ torch.unflatten(of_value, 0, (n_heads, -1)).transpose(1, 2)
    newest: Tensor = attention.out_proj(value.transpose(0, 1).flatten(1) + bias_value)
    return newest


def _convolution_branch(
    n_features: int, channels: tuple[int, int, int], dropout: float
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(zip((n_features, *channels), channels, strict=False)):
        layers += [nn.Conv1d(n_in, n_out, _KERNEL_SIZE, padding=1), nn.LeakyReLU(0.1)]
        if index < len(channels) - 1:
            layers += [nn.BatchNorm1d(n_out), nn.MaxPool1d(2), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def _head(n_inputs: int, sizes: tuple[int, int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in zip((n_inputs, *sizes), sizes, strict=False):
        layers += [
            nn.Linear(n_in, n_out),
            nn.ReLU(),
            nn.BatchNorm1d(n_out),
            nn.Dropout(dropout),
        ]
    layers.append(nn.Linear(sizes[-1], len(Signal)))
    return nn.Sequential(*layers)
