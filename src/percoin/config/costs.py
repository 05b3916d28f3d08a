"""What a trade costs in the backtest: ``costs``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.config.fields import Effect, number


@dataclass
class CostsConfig:
    """What each side of a trade costs, in basis points of its value."""

    fee_bps: float = number("", 0, 10_000, affects=Effect.JUDGEMENT)
    slippage_bps: float = number("", 0, 10_000, affects=Effect.JUDGEMENT)
