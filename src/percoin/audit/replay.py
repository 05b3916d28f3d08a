"""Replay stored bars one by one as in live use, and compare with one batch over all bars.

The live side is the path of ``predict.py``: at the close of each bar, ``Predictor.predict`` gets
the history that ``predict.py`` would load (first growing, then sliding). The batch side is
``ServedModel.probabilities`` over the whole history, as in training: all windows at once, with
indicators that started long ago. Each side loads the model itself, so that no state in memory is
shared. The backend of the live side can be chosen; the batch side uses PyTorch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from percoin.assembly import newest_bars
from percoin.audit.findings import Finding, FindingStatus
from percoin.bars.gaps import contiguous_run
from percoin.bars.schema import Bars, format_time
from percoin.errors import NotEnoughBarsError
from percoin.features.feature_set import compute_features
from percoin.inference import Backend, Predictor, ServedModel
from percoin.registry.manifest import Manifest
from percoin.types import CLASS_NAMES, FloatArray, Signal

# Largest allowed difference of a probability. The network sums in float32, and the order differs
# between 1 window and 512 windows. A wrong feature already shows in the third digit.
TOLERANCE = 1e-5

_NAMES_SHOWN = 4


@dataclass(frozen=True, eq=False)
class ReplayedSignal:
    """Answer of one side at the close of a bar; probabilities have shape (C,)."""

    signal: Signal
    probabilities: FloatArray

    def __str__(self) -> str:
        shares = ", ".join(f"{value:.4f}" for value in self.probabilities)
        return f"{self.signal.name} ({shares})"

    def to_json(self) -> dict[str, object]:
        """Plain containers."""
        shares = dict(zip(CLASS_NAMES, self.probabilities.tolist(), strict=True))
        return {"pred": self.signal.name, "probabilities": shares}


@dataclass(frozen=True, eq=False)
class Step:
    """Answers of both sides at the close of one bar.

    Attributes:
        closed: When the bar closed (UTC).
        live: Live answer, or None.
        batch: Batch answer; None if no complete window ends on the bar.
        reason: Why a side has no answer; empty if both have one.
        is_warm_up: Live is right to give no answer: the indicators still depend on the start
            of the stored history, and in training they started earlier.
    """

    closed: pd.Timestamp
    live: ReplayedSignal | None
    batch: ReplayedSignal | None
    reason: str = ""
    is_warm_up: bool = False

    @property
    def answered_by(self) -> str:
        """``both``, ``live``, ``batch`` or ``nobody``."""
        if self.live is None:
            return "nobody" if self.batch is None else "batch"
        return "live" if self.batch is None else "both"

    @property
    def difference(self) -> float:
        """Largest difference between the two probabilities of a class; 0 unless both answer."""
        if self.live is None or self.batch is None:
            return 0.0
        return float(np.abs(self.live.probabilities - self.batch.probabilities).max())

    @property
    def differs(self) -> bool:
        """Whether the two sides disagree, or only one side answers without a good reason."""
        if self.live is None or self.batch is None:
            return self.answered_by != "nobody" and not self.is_warm_up
        # NaN counts as different. Two classes with almost equal probabilities may swap places.
        lead = self.batch.probabilities.max() - self.batch.probabilities[self.live.signal]
        return not (self.difference <= TOLERANCE and lead <= 2 * TOLERANCE)

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        sides = f"live {self.live or 'nothing'}, batch {self.batch or 'nothing'}"
        return f"{format_time(self.closed)} UTC: {sides}{why}"

    def to_json(self) -> dict[str, object]:
        """Plain containers; the time is ISO 8601."""
        return {
            "ts": self.closed.isoformat(),
            "difference": self.difference,
            "live": None if self.live is None else self.live.to_json(),
            "batch": None if self.batch is None else self.batch.to_json(),
            "reason": self.reason or None,
        }


@dataclass(frozen=True, eq=False)
class Replay:
    """All steps of one market, oldest first, with counts of unusual bars.

    Attributes:
        steps: At least one step.
        n_gaps: Number of places where bars are missing.
        n_silent_bars: Number of bars without volume.
    """

    steps: tuple[Step, ...]
    n_gaps: int
    n_silent_bars: int

    @cached_property
    def compared(self) -> list[Step]:
        """Steps on which both sides answer."""
        return [step for step in self.steps if step.answered_by == "both"]

    @cached_property
    def differing(self) -> list[Step]:
        """Steps on which the two sides differ."""
        return [step for step in self.steps if step.differs]

    @property
    def largest_difference(self) -> float | None:
        """Largest difference of all compared probabilities; None if none was compared."""
        return max((step.difference for step in self.compared), default=None)

    def silences(self) -> list[dict[str, object]]:
        """Group the missing answers: who answered, the reason, number of bars, first and last."""
        grouped: dict[tuple[str, str], list[Step]] = {}
        for step in self.steps:
            if step.reason:
                grouped.setdefault((step.answered_by, step.reason), []).append(step)
        return [
            {
                "answered_by": answered_by,
                "reason": reason,
                "n_bars": len(steps),
                "first": steps[0].closed.isoformat(),
                "last": steps[-1].closed.isoformat(),
                "differs": steps[0].differs,
            }
            for (answered_by, reason), steps in grouped.items()
        ]

    def to_json(self) -> dict[str, object]:
        """Plain containers; times are bar closes in ISO 8601."""
        return {
            "n_bars": len(self.steps),
            "first": self.steps[0].closed.isoformat(),
            "last": self.steps[-1].closed.isoformat(),
            "n_gaps": self.n_gaps,
            "n_silent_bars": self.n_silent_bars,
            "n_compared": len(self.compared),
            "tolerance": TOLERANCE,
            "largest_difference": self.largest_difference,
            "n_differing": len(self.differing),
            "first_differing": self.differing[0].to_json() if self.differing else None,
            "silences": self.silences(),
        }

    def findings(self) -> list[Finding]:
        """Return two checks: do the answers agree, and do both sides answer on the same bars."""
        return [self._check_answers(), self._check_silences()]

    def _check_answers(self) -> Finding:
        name = "live says what the batch says"
        first, last = (format_time(self.steps[end].closed) for end in (0, -1))
        period = f"{len(self.steps):,} bars from {first} to {last} UTC"
        if not self.compared:
            return Finding(
                name, FindingStatus.CANNOT_TELL, f"no bar has an answer from both sides: {period}"
            )
        differing = [step for step in self.compared if step.differs]
        largest = f"largest difference {self.largest_difference:.1e}"
        evidence = f"{len(self.compared):,} of {period} compared, {largest}"
        if not differing:
            return Finding(
                name, FindingStatus.OK, f"{evidence} (tolerance {TOLERANCE:.0e}), same signals"
            )
        evidence += f"; {len(differing):,} differ beyond {TOLERANCE:.0e}, the first at "
        return Finding(name, FindingStatus.DIFFERS, f"{evidence}{differing[0]}")

    def _check_silences(self) -> Finding:
        name = "live is silent where the batch is"
        one_sided = [step for step in self.differing if step.answered_by != "both"]
        counts = Counter(step.answered_by for step in one_sided)
        parts = [
            f"only {side} answers {_count(counts[side], 'bar')}, the first at "
            f"{next(step for step in one_sided if step.answered_by == side)}"
            for side in ("live", "batch")
            if counts[side]
        ]
        quiet = Counter(step.reason for step in self.steps if step.reason and not step.differs)
        parts += [
            f"no answer on {count:,}, as it should be: {reason}" for reason, count in quiet.items()
        ]
        odd = f"{_count(self.n_gaps, 'gap')} and {_count(self.n_silent_bars, 'bar')} without volume"
        status = FindingStatus.DIFFERS if one_sided else FindingStatus.OK
        return Finding(name, status, "; ".join([f"through {odd}", *parts]))


def replay_market(
    models_dir: Path, bars: Bars, n_bars: int | None = None, backend: Backend = Backend.TORCH
) -> Replay:
    """Replay the served model of a market; a terminal shows a progress bar.

    Args:
        models_dir: The registry.
        bars: The whole stored history of the market.
        n_bars: Number of newest bars to replay; None for all.
        backend: Backend of the live side.

    Raises:
        RegistryError: There is no model, it cannot be trusted, or it has no export for
            ``backend``.
        ConfigError: This machine lacks the library of ``backend``.
    """
    live = Predictor(models_dir, backend=backend)
    live.model(bars.symbol, bars.timeframe)
    batch = Predictor(models_dir, backend=Backend.TORCH).model(bars.symbol, bars.timeframe)
    return replay(live, batch, bars, n_bars)


def replay(
    predictor: Predictor, batch: ServedModel, bars: Bars, n_bars: int | None = None
) -> Replay:
    """Ask both sides about the newest ``n_bars`` bars of a history, one bar after another.

    Args:
        predictor: The live side.
        batch: The same model, loaded a second time.
        bars: The whole stored history, oldest first, at least one bar.
        n_bars: Number of newest bars to replay; None for all.
    """
    first = 0 if n_bars is None else max(0, len(bars) - n_bars)
    rows, probabilities = batch.probabilities(bars, first)
    from_batch = {
        position: ReplayedSignal(Signal(int(values.argmax())), values)
        for position, values in zip(rows.tolist(), probabilities, strict=True)
    }
    why = _Silence(bars, batch.manifest)
    steps = [
        _step(predictor, bars, position, from_batch.get(position), why)
        for position in tqdm(
            range(first, len(bars)),
            desc=f"replay {bars.symbol} {bars.timeframe}",
            unit="bar",
            leave=False,
            disable=None,
        )
    ]
    run = contiguous_run(bars.open_time, bars.timeframe)[first:]
    # The first bar has no bar before it, so it is not a gap.
    n_gaps = int((run[1:] == 1).sum())
    return Replay(tuple(steps), n_gaps, int((bars.column("volume")[first:] == 0).sum()))


def _step(
    predictor: Predictor, bars: Bars, position: int, batch: ReplayedSignal | None, why: _Silence
) -> Step:
    """Load what ``predict.py`` would load at the close of this bar, and ask the live side."""
    needed, n_loaded = why.manifest.history_bars, newest_bars(why.manifest.bars_to_load)
    loaded = bars.slice(max(0, position + 1 - n_loaded), position + 1)
    closed = bars.close_time(position)
    try:
        prediction = predictor.predict(loaded)
    except NotEnoughBarsError as error:
        if batch is None:
            return Step(closed, None, None, why.at(position))
        # Test the stored history, not the loaded part: loading too little is a fault of live.
        begins_late = bars.frame.index[0] > pd.Timestamp(why.manifest.bars.first_open_time)
        if begins_late and position + 1 < needed:
            reason = f"live waits for {needed} bars"
            return Step(closed, None, batch, reason, is_warm_up=True)
        return Step(closed, None, batch, error.found)
    live = ReplayedSignal(prediction.signal, np.asarray(prediction.probabilities, dtype=np.float64))
    return Step(closed, live, batch, "" if batch else why.at(position))


class _Silence:
    """Explains why no complete window ends on a bar, from the features of the whole history."""

    def __init__(self, bars: Bars, manifest: Manifest) -> None:
        self.manifest = manifest
        feature_set = manifest.features.feature_set
        features = compute_features(bars, feature_set)
        self._n_warm_up = feature_set.warm_up_bars(bars.timeframe)
        self._is_undefined = ~np.isfinite(features)
        self._run = contiguous_run(bars.open_time, bars.timeframe)

    def at(self, position: int) -> str:
        """Return the reason as a phrase; bars with the same reason get the same text."""
        lookback = self.manifest.lookback
        if position < self._n_warm_up + lookback - 1:
            return "the first bars of the history only warm up the indicators"
        if self._run[position] < lookback:
            return "a gap lies in the window"
        undefined = self._is_undefined[position - lookback + 1 : position + 1].any(axis=0)
        known = self.manifest.features.names
        names = [known[column] for column in np.flatnonzero(undefined)]
        if not names:
            return "no gap lies in the window and all of its features are defined"
        shown = ", ".join(names) if len(names) <= _NAMES_SHOWN else f"{len(names)} features"
        return f"{shown} not defined on every bar of the window"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)
