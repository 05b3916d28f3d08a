"""A volatility forecast as plain numbers; applying it needs only numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from percoin.bars.schema import COLUMNS, Bars
from percoin.bars.stacked import StackedBars
from percoin.expected_move.inputs import (
    MoveInputs,
    bars_needed,
    count_columns,
    move_columns,
    newest_move_columns,
)
from percoin.features.volatility import newest_volatility
from percoin.types import Band, ExpectedMove, FloatArray, Timeframe

# Shares of all cases, in percent, that the bands are made to hold.
LEVELS = (50, 80, 95)
_CLOSE = COLUMNS.index("close")


class MoveForm(StrEnum):
    """What is made of every variance before it enters the regression (Corsi, 2009)."""

    LOG = "log"
    ROOT = "root"
    VARIANCE = "variance"

    def of_log(self, logs: FloatArray) -> FloatArray:
        """Variances in this form, of their logarithms."""
        if self is MoveForm.LOG:
            return logs
        return np.exp(logs / 2 if self is MoveForm.ROOT else logs)

    def deviation(self, shaped: FloatArray) -> FloatArray:
        """The roots of variances in this form."""
        if self is MoveForm.LOG:
            with np.errstate(over="ignore"):
                return np.exp(shaped / 2)
        return shaped if self is MoveForm.ROOT else np.sqrt(shaped)


@dataclass(frozen=True)
class MoveRegression:
    """What a forecast is a linear function of.

    Attributes:
        inputs: Groups of columns, in their order.
        form: Of the variances on both sides; the other groups know logarithms alone.
    """

    inputs: tuple[MoveInputs, ...]
    form: MoveForm = MoveForm.LOG


@dataclass(frozen=True)
class RangeForecast:
    """A forecast of the range of the horizon's bars that the regression is averaged with.

    The log of the deviation is ``(1 - weight)`` times that of the regression and ``weight`` times
    the log of the range, plus ``log_scale``.

    Attributes:
        part: The part of the classifier whose trees make it (``evaluation.moves.Moves``).
        weight: Of the range, above 0 and below 1.
        log_scale: Found on validation rows.

    Raises:
        ValueError: The weight is not between 0 and 1, or ``log_scale`` is not finite.
    """

    part: str
    weight: float
    log_scale: float

    def __post_init__(self) -> None:
        if not (0 < self.weight < 1 and math.isfinite(self.log_scale)):
            raise ValueError("the weight or the scale of the forecast of the range is none")


@dataclass(frozen=True)
class MoveModel:
    """Forecasts the variance of the return over the horizon, and bands around the price.

    Attributes:
        horizon: Bars from a close to the close that is forecast.
        inputs: Groups of columns, in their order.
        coefficients: One per column.
        intercept: The variance in its form where every column is 0.
        range_factor: Variance of the horizon's return over the sum of its bars' range variances
            (Parkinson, 1980), measured on train rows.
        quantiles: By level in percent, how many standard deviations a return stays within.
        form: Of the variances on both sides of the regression; None in older versions, whose
            forecasts are all in logarithms.
        bounds: Of the forecast in its form, as a line may fall below 0; None in logarithms.
        range_forecast: What the regression is averaged with; None in older versions, and where
            the classifier has no such trees or validation rows prefer the regression alone.

    Raises:
        ValueError: No inputs, a number is not finite, the quantiles do not rise, or the form
            fits neither the inputs nor the bounds.
    """

    horizon: int
    inputs: tuple[MoveInputs, ...]
    coefficients: tuple[float, ...]
    intercept: float
    range_factor: float
    quantiles: Mapping[str, float]
    form: MoveForm | None = None
    bounds: tuple[float, float] | None = None
    range_forecast: RangeForecast | None = None

    def __post_init__(self) -> None:
        numbers = (*self.coefficients, self.intercept, self.range_factor, *self.quantiles.values())
        if not np.isfinite(numbers).all():
            raise ValueError("a number of the expected move is not finite")
        if self.horizon < 1 or not self.inputs or not self.coefficients:
            raise ValueError("the expected move has no horizon, no inputs or no coefficients")
        if tuple(self.quantiles) != tuple(map(str, LEVELS)):
            raise ValueError(f"the quantiles are not of {LEVELS}")
        rising = (0.0, *self.quantiles.values())
        if self.range_factor <= 0 or list(rising) != sorted(rising):
            raise ValueError("range_factor is not positive, or the quantiles do not rise")
        self._check_form()

    def _check_form(self) -> None:
        if self.shape is MoveForm.LOG:
            if self.bounds is not None:
                raise ValueError("a forecast in logarithms has no bounds, and this one has some")
            return
        if self.bounds is None:
            raise ValueError("only a forecast in logarithms has no bounds")
        if not 0 < self.bounds[0] <= self.bounds[1] < math.inf:
            raise ValueError("the bounds of the forecast are not positive, finite and rising")
        if self.inputs != (MoveInputs.SPANS,):
            raise ValueError(f"a forecast in form {self.shape} has other inputs than the spans")

    @property
    def shape(self) -> MoveForm:
        """The form, of older versions too."""
        return self.form or MoveForm.LOG

    def fits(self, timeframe: Timeframe) -> bool:
        """Whether the coefficients are as many as bars of this length have columns."""
        return len(self.coefficients) == count_columns(timeframe, self.inputs)

    def scaled(self, factor: float) -> MoveModel:
        """With ``factor`` times the variance, at every close."""
        beside = self.range_forecast
        if beside is not None:
            beside = replace(beside, log_scale=beside.log_scale + math.log(factor) / 2)
            return replace(self, range_forecast=beside)
        if self.bounds is None:
            return replace(self, intercept=self.intercept + math.log(factor))
        by = math.sqrt(factor) if self.shape is MoveForm.ROOT else factor
        return replace(
            self,
            coefficients=tuple(by * each for each in self.coefficients),
            intercept=by * self.intercept,
            bounds=(by * self.bounds[0], by * self.bounds[1]),
        )

    def deviations(
        self, bars: Bars, log_ranges: Mapping[str, FloatArray] = MappingProxyType({})
    ) -> FloatArray:
        """Forecast standard deviation of the log return over the horizon, at each close.

        Args:
            bars: Closed bars of the market.
            log_ranges: ``Moves.log_range`` at each close, by the name of the part, shape
                (n_bars,) each; needed by a model with a ``range_forecast``.

        Returns:
            Shape (n_bars,), as a fraction; NaN where earlier bars or the log range are missing.

        Raises:
            ValueError: The coefficients do not fit the timeframe of the bars.
            KeyError: The forecast of the range is missing.
        """
        self._check_fits(bars.timeframe)
        beside = self.range_forecast
        log_range = np.full(len(bars), np.nan) if beside is None else log_ranges[beside.part]
        return self._deviations(move_columns(bars, self.inputs), log_range)

    def newest(self, bars: Bars, log_range: float = math.nan) -> ExpectedMove | None:
        """The forecast at the newest close; None if earlier bars are missing.

        None also if it is too small or too large to be scored.

        Args:
            bars: Closed bars of the market.
            log_range: ``Moves.log_range`` there; needed by a model with a ``range_forecast``.

        Raises:
            ValueError: As ``deviations``.
        """
        markets = StackedBars.of([bars.slice(max(0, len(bars) - bars_needed(bars.timeframe)))])
        [move] = newest_moves([self], markets, newest_volatility(markets), np.array([log_range]))
        return move

    def _check_fits(self, timeframe: Timeframe) -> None:
        if not self.fits(timeframe):
            raise ValueError(f"the expected move has no coefficients for bars of {timeframe}")

    def _deviations(self, columns: FloatArray, log_range: FloatArray) -> FloatArray:
        """Of ``move_columns``, shape (n, n_columns), and of log ranges, shape (n,)."""
        columns = self.shape.of_log(columns)
        # einsum gives a row the same sum for any number of rows; a BLAS product does not.
        shaped = np.einsum("nf,f->n", columns, np.array(self.coefficients)) + self.intercept
        deviations = self.shape.deviation(
            shaped if self.bounds is None else np.clip(shaped, *self.bounds)
        )
        if (beside := self.range_forecast) is None:
            return deviations
        with np.errstate(divide="ignore", over="ignore"):
            logs = (1 - beside.weight) * np.log(deviations) + beside.weight * log_range
            averaged: FloatArray = np.exp(logs + beside.log_scale)
        return averaged

    def _move(
        self, columns: FloatArray, log_range: FloatArray, close: float
    ) -> ExpectedMove | None:
        """Of one close, as ``_deviations`` takes it."""
        deviation = float(self._deviations(columns, log_range)[0])
        reached = np.array([self.quantiles[str(level)] for level in LEVELS]) * deviation
        with np.errstate(over="ignore"):
            lower, upper = close * np.exp(-reached), close * np.exp(reached)
        if not (np.isfinite(upper).all() and (lower > 0).all()):
            return None
        bands = zip(LEVELS, lower.tolist(), upper.tolist(), strict=True)
        move = ExpectedMove(
            100 * deviation,
            self.horizon,
            tuple(Band(*band) for band in bands),
            self.range_factor,
        )
        return move if move.can_be_scored else None


def newest_moves(
    models: Sequence[MoveModel | None],
    markets: StackedBars,
    volatility: FloatArray,
    log_range: FloatArray,
) -> list[ExpectedMove | None]:
    """``MoveModel.newest`` of several markets in one go, to the same bits.

    Args:
        models: One of each market; None gives no forecast.
        markets: All of one bar length, with at least one bar.
        volatility: Their ``newest_volatility``.
        log_range: ``Moves.log_range`` of each, shape (n_markets,); NaN where no model needs it.

    Raises:
        ValueError: As ``deviations``.
    """
    groups = dict.fromkeys(model.inputs for model in models if model is not None)
    columns = {inputs: newest_move_columns(markets, volatility, inputs) for inputs in groups}
    closes = markets.values[-1, _CLOSE].tolist()
    found: list[ExpectedMove | None] = []
    for row, (model, close) in enumerate(zip(models, closes, strict=True)):
        if model is None:
            found.append(None)
            continue
        model._check_fits(markets.timeframes[0])
        own = slice(row, row + 1)
        found.append(model._move(columns[model.inputs][own], log_range[own], close))
    return found
