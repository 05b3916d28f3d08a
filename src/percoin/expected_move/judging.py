"""Hold a volatility forecast against its rivals, and its bands against what came, on test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from percoin.bars.schema import Bars
from percoin.evaluation.uncertainty import Bootstrap
from percoin.expected_move.fitting import MoveRows, average_with_trees, choose_move
from percoin.expected_move.model import LEVELS, MoveModel
from percoin.expected_move.rivals import rival_variances
from percoin.expected_move.scores import qlike
from percoin.intervals import Interval, interval_text
from percoin.types import FloatArray, IntArray

_ROUNDING = 1e-12


@dataclass(frozen=True)
class MoveRival:
    """A rival on the same test rows.

    Attributes:
        qlike: Its mean loss.
        lead: Its mean loss minus the forecast's; above 0 where the forecast is better.
    """

    qlike: float
    lead: Interval

    @property
    def is_the_same(self) -> bool:
        """Whether it is the forecast itself."""
        ends = self.lead.ends or (self.lead.value,)
        return all(abs(value) < _ROUNDING for value in (self.lead.value, *ends))


@dataclass(frozen=True)
class JudgedMove:
    """What a volatility forecast was worth on test rows.

    Attributes:
        n_rows: Test rows with a known horizon.
        qlike: Mean loss of the forecast (Patton, 2011).
        rivals: By name.
        coverage: By level in percent, the share of prices within the band.
    """

    n_rows: int
    qlike: float
    rivals: Mapping[str, MoveRival]
    coverage: Mapping[str, Interval]


@dataclass(frozen=True)
class JudgedMoveModel:
    """A forecast and its test, as ``metrics.json`` keeps them.

    Attributes:
        model: The forecast.
        judged: Its test; None without a test row that moved.
    """

    model: MoveModel
    judged: JudgedMove | None = None

    def lines(self) -> list[str]:
        """What the test showed, for people; empty without one."""
        judged = self.judged
        if judged is None:
            return []
        itself = [name for name, rival in judged.rivals.items() if rival.is_the_same]
        rivals = [
            f"{interval_text(rival.lead)} over {name}"
            for name, rival in judged.rivals.items()
            if name not in itself
        ]
        told = [
            f"QLIKE {judged.qlike:.4f}",
            *(f"that of {name} itself" for name in itself),
            *([f"lead {', '.join(rivals)}"] if rivals else []),
        ]
        held = [f"{level} %: {100 * share.value:.1f} %" for level, share in judged.coverage.items()]
        return [
            "; ".join(told),
            f"bands held {', '.join(held)} of {judged.n_rows:,} prices",
        ]


@dataclass(frozen=True, eq=False)
class MoveLosses:
    """Losses and bands of each test row, shape (n_rows,) each.

    Attributes:
        rows: Positions of the test rows with a known horizon that moved.
        model: QLIKE of the forecast.
        rivals: QLIKE of each rival, by name.
        is_within: By level in percent, 1 where the price came to lie within the band.
    """

    rows: IntArray
    model: FloatArray
    rivals: Mapping[str, FloatArray]
    is_within: Mapping[str, FloatArray]


def sum_up(judged: Sequence[JudgedMove]) -> str:
    """Of many markets, one line for people: where the forecast leads, what its bands held.

    Args:
        judged: At least one.
    """
    leads = [
        f"{name} on {sum(each.rivals[name].lead.value > 0 for each in known)} of {len(known)}"
        for name in dict.fromkeys(name for each in judged for name in each.rivals)
        if (known := [each for each in judged if name in each.rivals])
    ]
    held = [
        f"{level} %: {100 * np.mean([each.coverage[level].value for each in judged]):.1f} %"
        for level in judged[0].coverage
    ]
    return f"expected move: ahead of {', '.join(leads)}; bands held {', '.join(held)} of prices"


def fit_and_judge(
    bars: Bars,
    horizon: int,
    parts: tuple[IntArray, IntArray, IntArray],
    bootstrap: Bootstrap,
    log_ranges: Mapping[str, FloatArray] = MappingProxyType({}),
) -> JudgedMoveModel | None:
    """Fit a forecast of one market and test it.

    Args:
        bars: Closed bars of the market.
        horizon: Bars from a close to the close that is forecast.
        parts: Positions of the train, validation and test rows.
        bootstrap: Of the market's judgement; its blocks are at least a day.
        log_ranges: As in ``MoveRows``.

    Returns:
        None if too few rows are known, or the price stands still.
    """
    train, validation, test = parts
    rows = MoveRows.of(bars, horizon, train, validation, log_ranges)
    regression = choose_move(rows)
    if regression is None:
        return None
    model = average_with_trees(rows, regression)
    losses = move_losses(model, rows, test)
    return JudgedMoveModel(model, judge_move(losses, bootstrap) if len(losses.rows) else None)


def move_losses(model: MoveModel, rows: MoveRows, test: IntArray) -> MoveLosses:
    """Ask the forecast and every rival on the test rows.

    Args:
        model: Fitted and calibrated on ``rows``.
        rows: The train and validation rows, for the rivals.
        test: Positions of the test rows.
    """
    deviations = rows.deviations(model)
    is_usable = np.isfinite(deviations) & (rows.realized > 0)
    test = test[is_usable[test]]
    realized, own = rows.realized[test], deviations[test]
    rivals = rival_variances(rows)
    moved = np.abs(rows.targets.log_return[test]) / own
    return MoveLosses(
        test,
        qlike(realized, own**2),
        {name: qlike(realized, variance[test]) for name, variance in rivals.items()},
        {str(k): (moved <= model.quantiles[str(k)]).astype(np.float64) for k in LEVELS},
    )


def judge_move(losses: MoveLosses, bootstrap: Bootstrap) -> JudgedMove:
    """Means with intervals.

    Args:
        losses: At least one row.
        bootstrap: Of the market's judgement; its blocks are at least a day.
    """
    return JudgedMove(
        len(losses.rows),
        float(losses.model.mean()),
        {
            name: MoveRival(float(rival.mean()), bootstrap.estimate(rival - losses.model).plain)
            for name, rival in losses.rivals.items()
        },
        {
            level: bootstrap.estimate_share(within).plain
            for level, within in losses.is_within.items()
        },
    )
