"""A template for a network of your own: copy it, change what is between the two marks.

python train.py symbol=BTCUSDT tf=15m plugins=[template_net.py] model._target_=template_net.MyNet
"""

from torch import Tensor, nn


class MyNet(nn.Module):
    """Windows (B, L, F) to logits (B, 3) in the order SHORT, NO_TRADE, LONG.

    Args:
        n_features: Features of a bar, F; percoin gives it, as it gives ``lookback`` where asked.
        width: An argument of your own: ``model.width=64`` on the command line.
        dropout: Likewise.
    """

    def __init__(self, n_features: int, width: int = 32, dropout: float = 0.1) -> None:
        super().__init__()
        # from here
        self.recurrent = nn.GRU(n_features, width, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, 3)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows (B, L, F) to logits (B, 3)."""
        outputs, _ = self.recurrent(windows)  # (B, L, width), oldest bar first
        return self.head(self.drop(outputs[:, -1]))
        # to here
