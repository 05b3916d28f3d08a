"""A temporal convolutional network (Bai, Kolter and Koltun, 2018).

python train.py symbol=BTCUSDT tf=15m plugins=[tcn.py] model._target_=tcn.Tcn model.width=24
"""

from torch import Tensor, nn
from torch.nn import functional


class Tcn(nn.Module):
    """Causal convolutions, each layer looking twice as far back as the one before.

    Args:
        n_features: Features of a bar, F.
        width: Channels of every layer.
        n_layers: Layers; with a kernel of 3, five look back over 63 bars.
        dropout: Probability of dropping a value.
    """

    def __init__(
        self, n_features: int, width: int = 32, n_layers: int = 5, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.embed = nn.Conv1d(n_features, width, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 3, dilation=2**depth) for depth in range(n_layers)
        )
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, 3)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows (B, L, F) to logits (B, 3)."""
        hidden = self.embed(windows.transpose(1, 2))  # (B, width, L)
        for depth, layer in enumerate(self.layers):
            # Zeros on the left alone: no bar sees a later one.
            seen = functional.pad(hidden, (2 * 2**depth, 0))
            hidden = hidden + self.drop(functional.relu(layer(seen)))
        return self.head(hidden[:, :, -1])
