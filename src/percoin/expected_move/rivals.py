"""What a volatility forecast is held against: the cascade alone, GARCH, the recent past.

Each gives a variance up to a factor, which is found as the forecast's own is.
"""

from __future__ import annotations

import numpy as np

from percoin.bars.gaps import follows_gap
from percoin.bars.schema import Bars
from percoin.expected_move.fitting import CASCADES, MoveRows, choose_move
from percoin.features.volatility import volatility_columns
from percoin.types import FloatArray

CASCADE, GARCH, RECENT = "cascade", "garch", "last_50_bars"

# In percent: the library's optimizer fails on numbers as small as returns of minutes.
_PERCENT = 100.0


def rival_variances(rows: MoveRows) -> dict[str, FloatArray]:
    """Variance forecasts of every rival, shape (n_bars,) each.

    A rival whose fit failed, as that of GARCH on a price that hardly moves, is left out.
    """
    cascade = choose_move(rows, CASCADES)
    made = {
        # The regression of Corsi (2009) in the form that is best on validation rows.
        **({} if cascade is None else {CASCADE: cascade.deviations(rows.bars) ** 2}),
        GARCH: garch(rows.bars, int(rows.train[-1]) + 1, rows.horizon),
        RECENT: np.exp(2 * volatility_columns(rows.bars)[:, -1]),
    }
    return {
        name: variance * rows.scale(variance)
        for name, variance in made.items()
        if _is_variance(variance[rows.validation[0] :])
    }


def _is_variance(values: FloatArray) -> bool:
    return bool((np.isfinite(values) & (values > 0)).all())


def garch(bars: Bars, n_train_bars: int, horizon: int) -> FloatArray:
    """GARCH(1,1) with normal errors and no mean (Bollerslev, 1986), fitted by ``arch``.

    Args:
        bars: Closed bars of one market.
        n_train_bars: The bars at the beginning whose returns it is fitted on.
        horizon: Bars to add up the variance of.
    """
    from arch import arch_model

    close = np.log(bars.column("close"))
    returns = np.diff(close, prepend=close[:1]) * _PERCENT
    # A gap's return belongs to no single bar.
    returns[follows_gap(bars.open_time, bars.timeframe.milliseconds)] = 0.0
    model = arch_model(returns[1:n_train_bars], mean="Zero", p=1, q=1, rescale=False)
    constant, alpha, beta = fitted = model.fit(disp="off", show_warning=False).params.to_numpy()
    whole = arch_model(returns[1:], mean="Zero", p=1, q=1, rescale=False).fix(fitted)
    now = np.concatenate([[np.nan], whole.conditional_volatility**2])
    ahead = constant + alpha * returns**2 + beta * now
    total = np.zeros(len(bars))
    for _ in range(horizon):
        total += ahead
        ahead = constant + (alpha + beta) * ahead
    return total / _PERCENT**2
