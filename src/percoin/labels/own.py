"""Label rules of the user's own: ``labels._target_=my_labels:MyRule``.

A rule is a class. ``MyRule(horizon=3, **arguments).label(bars)`` says SHORT (0), NO_TRADE (1),
LONG (2) or -1, unknown, at the close of each bar, from a table of bars. A method ``fit(bars,
train_rows)`` may take numbers from the train rows: it returns them by name, and they become
further arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from percoin import json_codec
from percoin.bars.schema import COLUMNS, Bars
from percoin.errors import ConfigError, OwnCodeError
from percoin.features.proof import LEAST_BARS, prove_causal
from percoin.labels.rules import LabelRule, Labels, return_ahead
from percoin.plugins import PluginSource, resolve, resolve_same
from percoin.printable import printable
from percoin.types import (
    UNKNOWN_LABEL,
    BoolArray,
    FloatArray,
    IntArray,
    Plain,
    Signal,
    is_plain,
)

_MOST_CHARS_SHOWN = 200
# The record of predictions keeps a rule with each.
_MOST_CHARS = 300
_ANSWERS = [UNKNOWN_LABEL, *sorted(Signal)]


@dataclass(frozen=True)
class _Stored:
    """An ``OwnRule`` as JSON has it, beside its kind."""

    horizon: int
    target: str
    sha256: str
    arguments: Mapping[str, Plain | list[Plain]]
    learnt: Mapping[str, Plain] | None = None
    past_bars: int | None = None


@dataclass(frozen=True)
class OwnRule(LabelRule):
    """A rule of the user's own.

    Attributes:
        source: Which code it is.
        arguments: Of its class, beside the horizon.
        learnt: Further arguments, taken from the train rows; None before that.
        memory_bars: How many bars before a bar it needs, as measured; None before the proof.
    """

    kind: ClassVar[str] = "own"

    source: PluginSource
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    learnt: Mapping[str, Any] | None = field(default=None, hash=False)
    memory_bars: int | None = None

    @classmethod
    def of(cls, name: str, horizon: int, arguments: Mapping[str, Any]) -> OwnRule:
        """Find a rule by its name in the settings.

        Raises:
            ConfigError: There is no such class, it is not allowed, or does not take these
                arguments.
        """
        source = resolve(name).source
        made = cls(horizon, source, dict(arguments))
        if not callable(getattr(made._rule(), "label", None)):
            raise ConfigError(f"labels: {source.name} has no method label(bars)")
        return made

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> OwnRule:
        """The inverse of ``to_json``; it imports nothing.

        Raises:
            ConfigError: The text is not one that ``to_json`` wrote.
        """
        try:
            stored = json_codec.decode(_Stored, dict(values))
        except ValueError as error:
            raise ConfigError(f"label rule own: {error}") from None
        if (stored.past_bars or 0) < 0:
            raise ConfigError(f"label rule own: past_bars is {stored.past_bars}")
        module, _, qualname = stored.target.partition(":")
        source = PluginSource(module, qualname, stored.sha256)
        return cls(stored.horizon, source, stored.arguments, stored.learnt, stored.past_bars)

    def to_json(self) -> dict[str, Any]:
        """Kind, code, arguments and what was measured."""
        found = {
            "kind": self.kind,
            "horizon": self.horizon,
            "target": self.source.name,
            "sha256": self.source.sha256,
            "arguments": dict(self.arguments),
        }
        if self.learnt is not None:
            found["learnt"] = dict(self.learnt)
        if self.memory_bars is not None:
            found["past_bars"] = self.memory_bars
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """As the group ``labels`` of the settings has it."""
        return {
            "_target_": self.source.name,
            "horizon": self.horizon,
            "arguments": dict(self.arguments),
        }

    @property
    def past_bars(self) -> int:
        """As measured."""
        return self.memory_bars or 0

    @property
    def unproven(self) -> OwnRule:
        """The rule as the settings describe it."""
        return replace(self, learnt=None, memory_bars=None)

    def label(self, bars: Bars) -> Labels:
        """Ask the rule; unknown where later bars, or the bars that it needs before, are missing.

        Raises:
            ConfigError: The code is not allowed in this process, or has changed.
            OwnCodeError: It fails on these bars.
        """
        label, later = self._answers(bars)
        label[: self.past_bars] = UNKNOWN_LABEL
        return Labels(label, later)

    def knows(self, bars: Bars) -> BoolArray:
        """Where it has an answer; before it is fitted, by a fit on the first half of the bars."""
        return super(OwnRule, self._fitted_somehow(bars)).knows(bars)

    def fitted(self, bars: Bars, train_rows: IntArray) -> OwnRule:
        """The rule with the numbers that its ``fit`` takes.

        It is shown no bar after those that the labels of the train rows depend on.
        """
        rule = self._rule()
        if self.learnt is not None or not hasattr(rule, "fit"):
            return self
        seen = bars.slice(0, int(train_rows[-1]) + self.horizon + 1)
        learnt = self._called(seen, "fit", rule, train_rows.copy())
        if not isinstance(learnt, Mapping):
            raise self._error(bars, "fit gives no numbers by name: return a dict")
        plain = {
            str(key): value.item() if isinstance(value, np.generic) else value
            for key, value in learnt.items()
        }
        if not all(map(is_plain, plain.values())):
            raise self._error(bars, "fit gives values that are neither finite numbers nor texts")
        made = replace(self, learnt=plain)
        made._rule()
        return made

    def proven(self, bars: Bars) -> OwnRule:
        """Refuse a rule that looks further ahead than its horizon; measure how far it looks back.

        Raises:
            OwnCodeError: It does, or depends on where the history begins, or the bars are too
                few to tell.
        """
        if len(bars) < LEAST_BARS:
            raise self._error(bars, f"cannot be put to the proof on {len(bars)} bars", "load more")
        rule = self.unproven._fitted_somehow(bars)

        def compute(some: Bars) -> FloatArray:
            label = rule._answers(some)[0].astype(np.float64)
            return np.where(label == UNKNOWN_LABEL, np.nan, label)[:, np.newaxis]

        proof = prove_causal(compute, bars, compute(bars), self.horizon)
        if proof.faults:
            raise self._error(
                bars,
                proof.faults[0],
                "correct the rule, or say how far it looks with labels.horizon",
            )
        measured = replace(self, memory_bars=int(proof.memory_bars[0]))
        n_chars = len(json.dumps(replace(rule, memory_bars=measured.memory_bars).to_json()))
        if n_chars > _MOST_CHARS:
            raise self._error(bars, f"has arguments of {n_chars} letters", "give it fewer")
        return measured

    def _fitted_somehow(self, bars: Bars) -> OwnRule:
        half = np.arange(max(1, len(bars) // 2), dtype=np.int64)
        return self.fitted(bars, half)

    def _answers(self, bars: Bars) -> tuple[IntArray, FloatArray]:
        found = self._called(bars, "label", self._rule())
        try:
            plain = np.nan_to_num(np.array(found, dtype=np.float64), nan=UNKNOWN_LABEL)
        except (TypeError, ValueError) as error:
            raise self._error(bars, "label gives no numbers") from error
        if plain.shape != (len(bars),) or not np.isin(plain, _ANSWERS).all():
            raise self._error(
                bars,
                f"label gives shape {plain.shape}, values {np.unique(plain)[:5].tolist()}",
                "give 0 (SHORT), 1 (NO_TRADE), 2 (LONG) or -1 for each bar",
            )
        label, later = plain.astype(np.int64), return_ahead(bars, self.horizon)
        label[np.isnan(later)] = UNKNOWN_LABEL
        return label, later

    def _rule(self) -> Any:
        kind = resolve_same(self.source)
        try:
            return kind(horizon=self.horizon, **self.arguments, **(self.learnt or {}))
        except Exception as error:
            said = printable(f"{type(error).__name__}: {error}", _MOST_CHARS_SHOWN)
            raise ConfigError(f"labels: {self.source.name} cannot be made: {said}") from error

    def _called(self, bars: Bars, method: str, rule: Any, *others: Any) -> Any:
        frame = bars.frame[list(COLUMNS)].copy()
        frame.attrs = {"symbol": bars.symbol, "timeframe": bars.timeframe.value}
        try:
            return getattr(rule, method)(frame, *others)
        except Exception as error:
            said = printable(f"{type(error).__name__}: {error}", _MOST_CHARS_SHOWN)
            raise self._error(bars, f"fails in {method}: {said}") from error

    def _error(self, bars: Bars, found: str, action: str = "correct the rule") -> OwnCodeError:
        found = f"{self.source.name} {found}"
        return OwnCodeError(bars.symbol, bars.timeframe.value, found, action)
