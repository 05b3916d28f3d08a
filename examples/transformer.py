"""A small transformer encoder (Vaswani et al., 2017) over the bars of a window.

python train.py symbol=BTCUSDT plugins=[transformer.py] model._target_=transformer.Transformer
"""

import torch
from torch import Tensor, nn


class Transformer(nn.Module):
    """Bars are tokens with learnt positions; the newest bar's token answers.

    Args:
        n_features: Features of a bar, F.
        lookback: Bars in a window, L.
        width: Numbers of a token; a multiple of ``n_heads``.
        n_heads: Heads of the attention.
        n_layers: Encoder layers.
        dropout: Probability of dropping a value.
    """

    def __init__(
        self,
        n_features: int,
        lookback: int,
        width: int = 32,
        n_heads: int = 4,
        n_layers: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, width)
        self.positions = nn.Parameter(0.02 * torch.randn(lookback, width))
        layer = nn.TransformerEncoderLayer(
            width, n_heads, 2 * width, dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))

    def forward(self, windows: Tensor) -> Tensor:
        """Windows (B, L, F) to logits (B, 3)."""
        tokens = self.encoder(self.embed(windows) + self.positions)
        return self.head(tokens[:, -1])
