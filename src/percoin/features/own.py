"""Columns of the user's own, and indicators of the ``ta`` library, among ``features.extra``.

A feature is a function from bars to one number a bar, or to several named columns. It is code of
the user's own (``percoin.plugins``), or an indicator class of ``ta``. ``percoin.features.proof``
tests it on the user's bars before anything is trained with it.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from percoin.bars.schema import COLUMNS, Bars
from percoin.errors import ConfigError, OwnCodeError
from percoin.features.extra import FeatureGroup
from percoin.plugins import PluginSource, resolve, resolve_same
from percoin.printable import printable
from percoin.types import FloatArray, Plain, is_plain

_TA = "ta:"
_TA_NAME = re.compile(
    r"ta:(?P<module>momentum|trend|volatility|volume|others)\.(?P<kind>\w+)\.(?P<method>\w+)"
)
_COLUMN = re.compile(r"[\w .%/+-]{1,100}")
MOST_COLUMNS = 1000
# Of which a prediction loads as many.
MOST_OWN_MEMORY_BARS = 10_000
_MOST_CHARS_SHOWN = 200

# Which columns a function was seen to give. Settings say its name alone, and a network is as wide
# as its columns.
_found: dict[tuple[str, str], tuple[str, ...]] = {}


@dataclass(frozen=True)
class OwnFeature:
    """A feature of the user's own, or an indicator of ``ta``.

    Attributes:
        source: Which code it is.
        parameters: Keyword arguments of the function, or of the indicator.
        columns: Names of its columns within the feature; empty if it has one without a name.
        memory_bars: How many bars before a row its values look at, as measured; None before
            the proof.
    """

    source: PluginSource
    parameters: Mapping[str, Plain] = field(default_factory=dict, hash=False)
    columns: tuple[str, ...] = ()
    memory_bars: int | None = None

    @classmethod
    def of(cls, name: str, parameters: Mapping[str, Plain]) -> OwnFeature:
        """Find a feature by its name in the settings.

        Args:
            name: ``module:function`` or ``ta:module.Class.method``.
            parameters: Keyword arguments.

        Raises:
            ConfigError: There is no such code, it is not allowed, or it takes other parameters.
        """
        if name.startswith(_TA):
            found = cls(_source_of_ta(name), parameters)
        else:
            plugin = resolve(name)
            if not callable(plugin.value):
                raise ConfigError(f"{plugin.source.name} is no function of bars")
            found = cls(plugin.source, parameters)
        for key, value in parameters.items():
            if not (key.isidentifier() and is_plain(value)):
                raise ConfigError(
                    f"features.extra: {name}: {printable(str(key), 40)} must be a number, a text, "
                    "true, false or null"
                )
        function = found.function()
        try:
            inspect.signature(function).bind(None, **parameters)
        except TypeError as error:
            raise ConfigError(f"features.extra: {found.label} cannot be called: {error}") from error
        return found

    @property
    def label(self) -> str:
        """What it is called: its name and its parameters."""
        told = ",".join(f"{key}={value}" for key, value in self.parameters.items())
        return f"{self.source.name}({told})" if told else self.source.name

    @property
    def setting(self) -> object:
        """As the setting ``features.extra`` has it."""
        name = self.source.name
        return {"name": name, **self.parameters} if self.parameters else name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns among all features of a model."""
        columns = self.columns if self.memory_bars is not None else _found.get(self._key, ())
        return tuple(f"{self.label}.{column}" for column in columns) or (self.label,)

    @property
    def group(self) -> FeatureGroup:
        """As the built-in groups of columns are described."""
        memory_bars = self.memory_bars or 0
        return FeatureGroup(
            lambda timeframe: self.names,
            lambda timeframe: memory_bars,
            lambda bars, references: self.known(bars),
        )

    def function(self) -> Callable[..., Any]:
        """The function from a table of bars to the values.

        Raises:
            ConfigError: The code is not allowed in this process, or has changed.
        """
        if self.source.name.startswith(_TA):
            if _source_of_ta(self.source.name) != self.source:
                raise ConfigError(
                    f"{self.source.name} has changed since the training: ta is {version('ta')} "
                    "here; install the version that the model names, or train it again"
                )
            return _ta_function(self.source.name)
        function: Callable[..., Any] = resolve_same(self.source)
        return function

    def known(self, bars: Bars) -> FloatArray:
        """Its columns, NaN on the rows that still depend on where the bars begin.

        Raises:
            OwnCodeError: The function fails, or gives other columns than when it was proven.
        """
        columns, values = self.compute(bars)
        if columns != self.columns:
            raise self.error(bars, f"gives other columns than in training: {_listed(columns)}")
        values[: self.memory_bars] = np.nan
        return values

    def compute(self, bars: Bars) -> tuple[tuple[str, ...], FloatArray]:
        """What the function says of every bar: names within the feature, and float64 columns.

        Raises:
            OwnCodeError: The function fails, or its result is no number for each bar.
        """
        frame = bars.frame[list(COLUMNS)].copy()
        frame.attrs = {"symbol": bars.symbol, "timeframe": bars.timeframe.value}
        try:
            found = self.function()(frame, **self.parameters)
        except ConfigError:
            raise
        except Exception as error:
            said = printable(str(error), _MOST_CHARS_SHOWN)
            found = f"fails on {len(bars)} bars: {type(error).__name__}: {said}"
            raise self.error(bars, found) from error
        return self._table(bars, found)

    def error(self, bars: Bars, found: str, action: str = "correct the function") -> OwnCodeError:
        """An error about this feature on these bars."""
        return OwnCodeError(bars.symbol, bars.timeframe.value, f"{self.label} {found}", action)

    def _table(self, bars: Bars, found: Any) -> tuple[tuple[str, ...], FloatArray]:
        several = {name: found[name] for name in found} if _has_names(found) else {"": found}
        names = tuple(map(str, several))
        is_named = all(_COLUMN.fullmatch(name) for name in names) or names == ("",)
        if not names or len(names) > MOST_COLUMNS or not is_named or len(set(names)) < len(names):
            raise self.error(bars, f"names its columns {_listed(names)}", "give each a short name")
        columns = []
        for name, values in several.items():
            of_column = f" in {name}" if name else ""
            try:
                column = np.array(values, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise self.error(bars, f"gives no numbers{of_column}") from error
            if column.shape != (len(bars),):
                found = f"gives an array of shape {column.shape}{of_column} for {len(bars)} bars"
                action = "give one number a bar; several columns as a dict or a DataFrame"
                raise self.error(bars, found, action)
            columns.append(column)
        _found[self._key] = names = names if names != ("",) else ()
        return names, np.stack(columns, axis=1)

    @property
    def _key(self) -> tuple[str, str]:
        return self.label, self.source.sha256


Extra = str | OwnFeature


def extra_of(entries: Sequence[object]) -> tuple[Extra, ...]:
    """What the entries of the setting ``features.extra`` are.

    Args:
        entries: The name of a group, ``module:function`` or ``ta:module.Class.method``; or a
            mapping of ``name`` and the parameters of the function.

    Raises:
        ConfigError: An entry is none of these, or its code cannot be had.
    """
    found: list[Extra] = []
    for entry in entries:
        parameters: dict[str, Any] = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
        name = parameters.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(
                f"features.extra has {str(entry)[:60]!r}; write the name of a group or of a "
                "function, or {name: MODULE:FUNCTION, PARAMETER: VALUE}"
            )
        is_group = ":" not in name
        if is_group and parameters:
            raise ConfigError(f"features.extra: {name!r:.60} takes no parameters")
        found.append(name if is_group else OwnFeature.of(name, parameters))
    return tuple(found)


def _has_names(found: Any) -> bool:
    return isinstance(found, Mapping | pd.DataFrame)


def _listed(names: Sequence[str]) -> str:
    return printable(", ".join(names) or "one without a name", _MOST_CHARS_SHOWN)


def _ta_class(name: str) -> tuple[type, str]:
    match = _TA_NAME.fullmatch(name)
    if match is None:
        raise ConfigError(
            f"{printable(name, _MOST_CHARS_SHOWN)} is no indicator of ta: write "
            "ta:MODULE.CLASS.METHOD, such as ta:momentum.StochasticOscillator.stoch"
        )
    module = importlib.import_module(f"ta.{match['module']}")
    base = importlib.import_module("ta.utils").IndicatorMixin
    kind, method = getattr(module, match["kind"], None), match["method"]
    kinds = sorted(n for n, v in vars(module).items() if isinstance(v, type) and v is not base)
    if not (isinstance(kind, type) and issubclass(kind, base) and kind is not base):
        raise ConfigError(f"{name}: ta.{match['module']} has {', '.join(kinds)}")
    methods = sorted(
        key for key, value in vars(kind).items() if inspect.isfunction(value) and key[0] != "_"
    )
    if method not in methods:
        raise ConfigError(f"{name}: {match['kind']} has {', '.join(methods)}")
    return kind, method


def _ta_function(name: str) -> Callable[..., Any]:
    kind, method = _ta_class(name)
    known = list(inspect.signature(kind).parameters)

    def indicator(bars: pd.DataFrame | None, **parameters: Plain) -> Any:
        taken = {} if bars is None else {c: bars[c] for c in COLUMNS if c in known}
        return getattr(kind(**taken, **parameters), method)()

    # What may be told beside the bars, for the check of parameters.
    own = [inspect.signature(kind).parameters[key] for key in known if key not in COLUMNS]
    first = inspect.Parameter("bars", inspect.Parameter.POSITIONAL_ONLY)
    indicator.__signature__ = inspect.Signature([first, *own])  # type: ignore[attr-defined]
    return indicator


def _source_of_ta(name: str) -> PluginSource:
    kind, _ = _ta_class(name)
    path = Path(inspect.getfile(kind))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PluginSource("ta", name.removeprefix(_TA), digest)
