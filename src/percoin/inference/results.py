"""Answers for many markets or many bars, and each of them as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from percoin.errors import (
    BarsNotFoundError,
    InvalidArtifactError,
    ModelNotFoundError,
    NotEnoughBarsError,
    PercoinError,
    UnreadableArtifactError,
)
from percoin.registry.manifest import Manifest
from percoin.types import (
    CLASS_NAMES,
    UNKNOWN_LABEL,
    FloatArray,
    IntArray,
    Levels,
    Prediction,
    Timeframe,
)

_LEVEL_NAMES = [entry.name for entry in fields(Levels)]


class NoPredictionReason(StrEnum):
    """Why a market has no prediction, as one word for programs."""

    MODEL_MISSING = "model_missing"
    MODEL_INVALID = "model_invalid"
    INSUFFICIENT_DATA = "insufficient_data"
    INVALID_BARS = "invalid_bars"
    """The bars are wrong: a column is missing, a rule of the schema is broken, the symbol is
    invalid, or they lie in the future."""


class BarPart(StrEnum):
    """The part of the model's data that a bar belongs to."""

    BEFORE = "before"
    """Before the train rows: warm-up, or bars that training left out."""
    TRAIN = "train"
    """A train row: the weights were fitted to its label."""
    VALIDATION = "validation"
    """A validation row: epoch, calibration and threshold were chosen on these."""
    TEST = "test"
    """A test row: the model was judged on these."""
    PURGED = "purged"
    """Too close to a cut or to the end of the bars: in no part."""
    LIVE = "live"
    """Newer than all bars of the training: unseen."""


# The parts on which a model's answers are forecasts.
FORECAST_PARTS = (BarPart.TEST, BarPart.LIVE)
_SPLITS = {BarPart.TRAIN: "train", BarPart.VALIDATION: "val", BarPart.TEST: "test"}

_REASONS: dict[type[PercoinError], NoPredictionReason] = {
    ModelNotFoundError: NoPredictionReason.MODEL_MISSING,
    InvalidArtifactError: NoPredictionReason.MODEL_INVALID,
    UnreadableArtifactError: NoPredictionReason.MODEL_INVALID,
    NotEnoughBarsError: NoPredictionReason.INSUFFICIENT_DATA,
    # Of a market that the model compares this one with.
    BarsNotFoundError: NoPredictionReason.INSUFFICIENT_DATA,
}


@dataclass(frozen=True)
class NoPrediction:
    """Why a market has no prediction.

    Attributes:
        symbol: As the bars have it.
        timeframe: As the bars have it.
        error: What ``Predictor.predict`` would have raised.
    """

    symbol: str
    timeframe: Timeframe
    error: PercoinError

    @property
    def reason(self) -> NoPredictionReason:
        """One word for programs."""
        return _REASONS.get(type(self.error), NoPredictionReason.INVALID_BARS)

    @property
    def detail(self) -> str:
        """One line for people, with what to do."""
        return str(self.error)


Answer = Prediction | NoPrediction


@dataclass(frozen=True)
class Answers(Sequence[Answer]):
    """What ``Predictor.predict_many`` says of each market, in the order of the bars."""

    answers: tuple[Answer, ...]

    def __len__(self) -> int:
        return len(self.answers)

    @overload
    def __getitem__(self, position: int) -> Answer: ...
    @overload
    def __getitem__(self, position: slice) -> Answers: ...
    def __getitem__(self, position: int | slice) -> Answer | Answers:
        if isinstance(position, slice):
            return Answers(self.answers[position])
        return self.answers[position]

    @property
    def predictions(self) -> tuple[Prediction, ...]:
        """The markets that have one."""
        return tuple(answer for answer in self.answers if isinstance(answer, Prediction))

    @property
    def missing(self) -> tuple[NoPrediction, ...]:
        """The markets that have none."""
        return tuple(answer for answer in self.answers if isinstance(answer, NoPrediction))

    def to_frame(self) -> pd.DataFrame:
        """One row a market: what it was asked, the answer, its levels, or why there is none.

        What is absent is NaN.
        """
        rows = [_row(answer) for answer in self.answers]
        return pd.DataFrame(rows, columns=list(_TYPES)).astype(_TYPES)


@dataclass(frozen=True, eq=False)
class RangeAnswers:
    """What a model says at the close of each bar of a range.

    Attributes:
        symbol: The market.
        timeframe: Length of each bar.
        open_time: Start of each bar, datetime64[ms, UTC], shape (n_bars,).
        probabilities: In the order of ``Signal``, shape (n_bars, C); NaN where no whole
            window ends, where the indicators still remember where the bars begin, or where
            ``Predictor.predict_range`` hides what is no forecast.
        model_version: Of the model that answered.
        version_id: The exported version that answered.
        part: The ``BarPart`` that each bar was to the model, shape (n_bars,).
    """

    symbol: str
    timeframe: Timeframe
    open_time: pd.DatetimeIndex
    probabilities: FloatArray
    model_version: str
    version_id: str
    part: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.open_time)

    def forecasts_only(self) -> RangeAnswers:
        """The same without answers for bars that the model or its settings were made from."""
        hidden = ~np.isin(self.part, FORECAST_PARTS)
        return replace(
            self, probabilities=np.where(hidden[:, np.newaxis], np.nan, self.probabilities)
        )

    @property
    def signal(self) -> IntArray:
        """The most probable ``Signal`` of each bar; ``UNKNOWN_LABEL`` where there is none."""
        is_known = np.isfinite(self.probabilities).all(axis=1)
        return np.where(is_known, self.probabilities.argmax(axis=1), UNKNOWN_LABEL)

    @property
    def confidence(self) -> FloatArray:
        """Probability of that signal; NaN where there is none."""
        highest: FloatArray = self.probabilities.max(axis=1)
        return highest

    def to_frame(self) -> pd.DataFrame:
        """One row a bar under its ``open_time``; the answer stands from ``ts`` on, its close.

        What is absent is NaN. ``part`` says what each row was to the model: a ``BarPart``.
        """
        names = np.array([*CLASS_NAMES, None], dtype=object)
        return pd.DataFrame(
            {
                "ts": self.open_time + self.timeframe.timedelta,
                "signal": pd.Series(names[self.signal], self.open_time, dtype="str"),
                "confidence": self.confidence,
                **dict(zip(CLASS_NAMES, self.probabilities.T, strict=True)),
                "part": pd.Series(self.part, self.open_time, dtype="str"),
            },
            index=self.open_time,
        )


def find_parts(open_time: pd.DatetimeIndex, manifest: Manifest) -> NDArray[np.object_]:
    """What each bar was to a model by the dates of its manifest, shape (n_bars,).

    Args:
        open_time: Start of each bar (UTC).
        manifest: Of the model that answers; to a refit all rows are train rows.
    """
    splits, refit = manifest.bars.splits, manifest.refit
    spans = {part: (splits[name].first, splits[name].last) for part, name in _SPLITS.items()}
    if refit is not None:
        spans = {BarPart.TRAIN: (refit.first_open_time, refit.last_open_time)}
    parts = np.full(len(open_time), BarPart.PURGED, dtype=object)
    parts[open_time < pd.Timestamp(spans[BarPart.TRAIN][0])] = BarPart.BEFORE
    parts[open_time > pd.Timestamp(manifest.last_known)] = BarPart.LIVE
    for part, (first, last) in spans.items():
        is_within = (open_time >= pd.Timestamp(first)) & (open_time <= pd.Timestamp(last))
        parts[is_within] = part
    return parts


_TYPES = {
    "symbol": "str",
    "tf": "str",
    "ts": "datetime64[ms, UTC]",
    "signal": "str",
    "confidence": "float64",
    **dict.fromkeys((*CLASS_NAMES, *_LEVEL_NAMES), "float64"),
    **dict.fromkeys(("model_version", "version_id", "reason", "detail"), "str"),
}


def _row(answer: Answer) -> dict[str, object]:
    market = {"symbol": answer.symbol, "tf": answer.timeframe.value}
    if isinstance(answer, NoPrediction):
        words = dict.fromkeys(("signal", "model_version", "version_id"))
        return market | words | {"reason": answer.reason.value, "detail": answer.detail}
    levels = answer.levels
    prices = {name: getattr(levels, name) for name in _LEVEL_NAMES} if levels else {}
    return {
        **market,
        "ts": pd.Timestamp(answer.ts),
        "signal": answer.signal.name,
        "confidence": answer.confidence,
        **dict(zip(CLASS_NAMES, answer.probabilities or (), strict=False)),
        **prices,
        "model_version": answer.model_version,
        "version_id": answer.version_id,
        "reason": None,
        "detail": None,
    }
