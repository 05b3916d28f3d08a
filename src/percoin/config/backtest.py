"""How signals are traded in the backtest: ``backtest``."""

from __future__ import annotations

from dataclasses import dataclass

from percoin.config.fields import Effect, choice
from percoin.evaluation.backtest import Exit


@dataclass
class BacktestConfig:
    """How signals are traded in the backtest."""

    exit: str = choice(
        "horizon: where the label ends, or levels: at the stop or the first target (tp1), at the "
        "horizon at the latest",
        Exit,
        affects=Effect.JUDGEMENT,
    )
