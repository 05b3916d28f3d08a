"""One market made ready to train on: features, labels and a purged split."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from percoin.bars.gaps import find_gaps
from percoin.bars.schema import Bars, format_time
from percoin.bars.silence import advise_on_silence, describe_silence, is_silent
from percoin.errors import ConfigError, MissingClassError, NotEnoughBarsError, OwnCodeError
from percoin.features.feature_set import FeatureSet, compute_features
from percoin.features.scaling import Scaling
from percoin.labels import LabelRule, OwnRule
from percoin.splits import (
    Split,
    are_shares,
    chronological_split,
    split_before_test,
    walk_forward_splits,
)
from percoin.types import (
    CLASS_NAMES,
    DAY_MILLISECONDS,
    UNKNOWN_LABEL,
    Float32Array,
    FloatArray,
    IntArray,
    Timeframe,
)
from percoin.windows import eligible_rows, make_windows

logger = logging.getLogger(__name__)

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_ABSURD_HORIZON = 10_000


@dataclass(frozen=True, kw_only=True)
class SplitSpec:
    """How rows are shared out.

    Attributes:
        fractions: Shares of train, validation and test; positive, sum 1.
        purge_bars: Bars dropped before each cut; at least the label's horizon.
        embargo_bars: Further bars dropped after each cut.
    """

    fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)
    purge_bars: int
    embargo_bars: int

    def __post_init__(self) -> None:
        check_shares(self.fractions)
        for name in ("purge_bars", "embargo_bars"):
            if getattr(self, name) < 0:
                raise ConfigError(f"split.{name}={getattr(self, name)}: give 0 or more bars")


@dataclass(frozen=True)
class DatasetSpec:
    """The rules by which bars become a dataset.

    Attributes:
        label_rule: What makes the labels.
        feature_set: Which features.
        lookback: Window length in bars.
        split: How rows are shared out; None is 70, 15 and 15 % with a purge and an embargo
            of the label's horizon.
        history_days: How far back rows go from the close of the newest bar. Earlier bars
            only warm up the indicators.
        start: In place of ``history_days``: open time of the earliest row, in milliseconds since
            1970-01-01 UTC.
        end: Bars that open then or later are not used; None uses the newest.

    Raises:
        ConfigError: The purge is shorter than the label's horizon, or a number that must be
            positive is not.
    """

    label_rule: LabelRule
    feature_set: FeatureSet = field(default_factory=FeatureSet)
    lookback: int = 60
    split: SplitSpec | None = None
    history_days: float = math.inf
    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        if self.lookback < 1:
            raise ConfigError(f"lookback={self.lookback}: a window has at least 1 bar")
        if not self.history_days > 0:
            raise ConfigError(f"history_days={self.history_days}: give a positive number of days")
        check_purge(self.split_spec.purge_bars, self.label_rule.horizon)

    @property
    def split_spec(self) -> SplitSpec:
        """How rows are shared out."""
        horizon = self.label_rule.horizon
        return self.split or SplitSpec(purge_bars=horizon, embargo_bars=horizon)

    @property
    def code(self) -> dict[str, str]:
        """The user's own code among the rules: sha256 of its source by name."""
        sources = [feature.source for feature in self.feature_set.own]
        if isinstance(self.label_rule, OwnRule):
            sources.append(self.label_rule.source)
        return {source.name: source.sha256 for source in sources}

    def bars_before(self, timeframe: Timeframe) -> int:
        """Bars that the first row needs before it, for its window, indicators and label."""
        needed = self.feature_set.history_bars(self.lookback, timeframe)
        return max(needed - 1, self.label_rule.past_bars)

    def first_time(self, newest_close: int) -> float:
        """When the earliest row opens, in milliseconds since 1970-01-01 UTC.

        Args:
            newest_close: Close of the newest bar in use, in milliseconds.
        """
        if self.start is not None:
            return self.start
        return newest_close - self.history_days * DAY_MILLISECONDS

    def bars_to_load(self, timeframe: Timeframe, at: float | None = None) -> int:
        """How many of the newest bars a dataset makes use of, if there are no gaps.

        Args:
            timeframe: Length of a bar.
            at: The moment they are the newest at, in seconds since 1970-01-01 UTC; None is now.
        """
        now = math.ceil((time.time() if at is None else at) * 1000)
        first = self.first_time(now if self.end is None else self.end)
        n_bars = math.ceil((now - first) / timeframe.milliseconds)
        return n_bars + self.bars_before(timeframe)

    def in_dates(self, bars: Bars) -> Bars:
        """The bars that open before ``end``.

        Raises:
            NotEnoughBarsError: There are none from ``start`` on.
        """
        if self.start is None and self.end is None:
            return bars
        times = bars.open_time
        stop = len(bars) if self.end is None else int(times.searchsorted(self.end))
        start = 0 if self.start is None else int(times.searchsorted(self.start))
        if start >= stop:
            raise NotEnoughBarsError(
                bars.symbol,
                bars.timeframe,
                f"no bars {_between(self.start, self.end)}: there are bars from "
                f"{format_time(bars.frame.index[0])} to {format_time(bars.close_time())} UTC"
                if len(bars)
                else "no bars",
                "give other dates (start, end), or load those bars first",
            )
        return bars.slice(0, stop)

    @property
    def longer_history(self) -> str:
        """What gives more rows, for advice."""
        return "a longer history_days" if self.start is None else "an earlier start"


@dataclass(frozen=True, eq=False)
class MarketDataset:
    """Everything training and evaluation need of one market.

    Attributes:
        bars: The bars in use, with those before the history that only warm up
            the indicators.
        spec: The rules it was made by, with the label rule as it was fitted on the train rows.
        features: Scaled features, shape (n_bars, F), NaN where undefined; no
            window of the split contains such a row.
        scaling: Fitted on the train rows alone; of a pool on those of all its markets.
        label: Class of each bar, -1 where unknown, shape (n_bars,).
        forward_return: Return over the horizon as a fraction, NaN where unknown,
            shape (n_bars,).
        split: Positions of the bars on which the windows of each part end.
        given_rule: The label rule before it was fitted; None if it is not known.
    """

    bars: Bars
    spec: DatasetSpec
    features: Float32Array
    scaling: Scaling
    label: IntArray
    forward_return: FloatArray
    split: Split
    given_rule: LabelRule | None = None

    @property
    def label_rule(self) -> LabelRule:
        """What made the labels; fitted on the train rows where it needs them."""
        return self.spec.label_rule

    @property
    def feature_set(self) -> FeatureSet:
        """Which features."""
        return self.spec.feature_set

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the columns of ``features``; F of them."""
        return self.feature_set.names(self.bars.timeframe)

    @property
    def lookback(self) -> int:
        """Window length in bars."""
        return self.spec.lookback

    @property
    def windows(self) -> Float32Array:
        """Read-only view of ``features``, shape (n_bars - lookback + 1, lookback, F).

        The window that ends on bar ``row`` is ``windows[row - lookback + 1]``.
        """
        return make_windows(self.features, self.lookback)

    def rows(self, part: Part) -> IntArray:
        """Positions of the bars on which the windows of a part end, ascending."""
        rows: IntArray = getattr(self.split, part)
        return rows

    def dates(self, part: Part) -> tuple[pd.Timestamp, pd.Timestamp]:
        """When the first and the last bar of a part open (UTC), as manifests and reports say it."""
        rows = self.rows(part)
        return self.bars.frame.index[rows[0]], self.bars.frame.index[rows[-1]]

    def tested_on(self, rows: IntArray) -> MarketDataset:
        """The same dataset with other test rows; the other parts stay."""
        return replace(self, split=replace(self.split, test=rows))

    def class_counts(self, part: Part) -> IntArray:
        """How many rows of a part have each class, in the order of ``Signal``, shape (C,)."""
        return np.bincount(self.label[self.rows(part)], minlength=len(CLASS_NAMES))


def build_dataset(bars: Bars, spec: DatasetSpec) -> MarketDataset:
    """Compute features and labels, split the rows and fit the scaling on train.

    A row is a bar of the history with a known label on which a whole window ends.

    Args:
        bars: Closed bars of one market, checked against the schema.
        spec: The rules.

    Raises:
        NotEnoughBarsError: A part of the split would have no rows.
        MissingClassError: The train rows lack one of the three classes.
    """
    split = spec.split_spec
    return PreparedMarket.prepare(bars, spec).dataset(
        lambda rows: chronological_split(
            rows, split.fractions, split.purge_bars, split.embargo_bars
        )
    )


def build_folds(bars: Bars, spec: DatasetSpec, n_folds: int) -> list[MarketDataset]:
    """The folds of a walk-forward, oldest first; each scaled on its own train rows.

    The other arguments and the errors are those of ``build_dataset``; ``n_folds``
    test parts are cut as in ``walk_forward_splits``.
    """
    market, split = PreparedMarket.prepare(bars, spec), spec.split_spec

    def fold(number: int) -> MarketDataset:
        return market.dataset(
            lambda rows: walk_forward_splits(
                rows, n_folds, split.fractions, split.purge_bars, split.embargo_bars
            )[number]
        )

    return [fold(number) for number in range(n_folds)]


def tested_from(folds: Sequence[MarketDataset], moment: int | None) -> list[MarketDataset]:
    """The folds without test rows that open before a moment.

    Args:
        folds: Oldest first; one dataset for a single split.
        moment: In milliseconds since 1970-01-01 UTC; None leaves the folds as they are.

    Raises:
        NotEnoughBarsError: A fold would be left without test rows.
    """
    if moment is None:
        return list(folds)
    return [_tested_from(fold, moment, len(folds)) for fold in folds]


def _tested_from(fold: MarketDataset, moment: int, n_folds: int) -> MarketDataset:
    rows = fold.rows("test")
    open_time = fold.bars.open_time[rows]
    if open_time[0] >= moment:
        return fold
    if open_time[-1] < moment:
        action = "use bars that end later, or give an earlier moment"
        fewer = "evaluation=single_split or fewer folds, " if n_folds > 1 else ""
        raise NotEnoughBarsError(
            fold.bars.symbol,
            fold.bars.timeframe,
            f"test_from={format_time(pd.Timestamp(moment, unit='ms', tz='UTC'))} UTC leaves no "
            f"test rows: the last of a test part opens at {format_time(fold.dates('test')[1])}",
            f"{fewer}{action}",
        )
    return fold.tested_on(rows[open_time >= moment])


def with_newest_test_rows(folds: Sequence[MarketDataset], n_rows: int) -> list[MarketDataset]:
    """The folds of a model without the test rows that the search for its settings saw.

    For versions from before the setting ``test_from``, which names them. Such rows are the oldest
    of the first fold. The manifest counts the test rows of all folds, and the newest are the ones
    that were left.

    Args:
        folds: The folds by the settings, oldest first; one dataset for a single split.
        n_rows: Test rows that the model was judged on, of all folds.

    Returns:
        The folds as they are if leaving out rows of the first fold does not give that many.
    """
    first, *others = folds
    n_seen = sum(len(fold.rows("test")) for fold in folds) - n_rows
    if not 0 < n_seen < len(first.rows("test")):
        return list(folds)
    return [first.tested_on(first.rows("test")[n_seen:]), *others]


def build_search_dataset(bars: Bars, spec: DatasetSpec, validation_time: int) -> MarketDataset:
    """Train and validation rows for a search among settings; it has no test rows.

    The other arguments and the errors are those of ``build_dataset``; ``bars`` are those
    before the test part. Validation begins with the bar that opens at ``validation_time``,
    in milliseconds since 1970-01-01 UTC. So every label rule and lookback has the same parts
    in time; with shares of the rows they would differ.
    """
    market, split = PreparedMarket.prepare(bars, spec), spec.split_spec
    cut = int(market.bars.open_time.searchsorted(validation_time))
    return market.dataset(
        lambda rows: split_before_test(rows, cut, split.purge_bars, split.embargo_bars)
    )


@dataclass(frozen=True, eq=False)
class PreparedMarket:
    """Features, labels and usable rows of a market, before any split.

    Attributes:
        bars: The bars in use, with those before the history that only warm up
            the indicators.
        spec: The rules; the label rule is not fitted yet.
        features: Before scaling, shape (n_bars, F), NaN where undefined.
        rows: Positions of the bars that may be used, ascending.
        n_history_bars: Bars in the history.
    """

    bars: Bars
    spec: DatasetSpec
    features: FloatArray
    rows: IntArray
    n_history_bars: int

    @classmethod
    def prepare(
        cls, bars: Bars, spec: DatasetSpec, first_time: int | None = None
    ) -> PreparedMarket:
        """Compute features and labels, and find the rows that ``build_dataset`` splits.

        Args:
            bars: Closed bars of one market, checked against the schema.
            spec: The rules.
            first_time: Rows open no earlier, in milliseconds since 1970-01-01 UTC;
                replaces ``history_days``.

        Raises:
            NotEnoughBarsError: There are no bars.
            OwnCodeError: A feature or the label rule is the user's own, and fails its proof.
        """
        spec = _proven(bars, spec, first_time)
        bars, first_row = cut_history(bars, spec, first_time)
        market = cls._of(bars, spec, first_row)
        logger.info(
            "%s %s: %d of %d bars are usable rows",
            bars.symbol,
            bars.timeframe,
            len(market.rows),
            market.n_history_bars,
        )
        return market

    @classmethod
    def again(cls, dataset: MarketDataset) -> PreparedMarket:
        """The market of a dataset before its split, with the labels that it has."""
        return cls._of(dataset.bars, dataset.spec, int(dataset.rows("train")[0]))

    @classmethod
    def _of(cls, bars: Bars, spec: DatasetSpec, first_row: int) -> PreparedMarket:
        features = compute_features(bars, spec.feature_set)
        rows = eligible_rows(features, bars.open_time, bars.timeframe, spec.lookback)
        rows = rows[(rows >= first_row) & spec.label_rule.knows(bars)[rows]]
        return cls(bars, spec, features, rows, len(bars) - first_row)

    def without_holdout(self, scaling: Scaling | None = None) -> MarketDataset:
        """Every row is a train row, for a model whose twin was judged; None fits the scaling."""
        scaling = scaling or Scaling.fit(self.features[self.rows])
        return self.with_split(Split(self.rows, self.rows[:0], self.rows[:0]), scaling)

    def dataset(self, split_rows: Callable[[IntArray], Split]) -> MarketDataset:
        """Split the rows, scale the features by the train rows and make the labels.

        Args:
            split_rows: From rows to their split; a ValueError means that there are too few.

        Raises:
            NotEnoughBarsError: A part of the split would have no rows.
            MissingClassError: The train rows lack one of the three classes.
        """
        split = self._split(split_rows)
        # Fitted on train rows alone.
        return self.with_split(split, Scaling.fit(self.features[split.train]))

    def with_split(self, split: Split, scaling: Scaling) -> MarketDataset:
        """Make the dataset with a given split and scaling.

        Raises:
            MissingClassError: The train rows lack one of the three classes.
        """
        label_rule = self.spec.label_rule.fitted(self.bars, split.train)
        labels = label_rule.label(self.bars)
        self._check_known(labels.label, split)
        dataset = MarketDataset(
            bars=self.bars,
            spec=replace(self.spec, label_rule=label_rule),
            features=scaling.transform(self.features),
            scaling=scaling,
            label=labels.label,
            forward_return=labels.forward_return,
            split=split,
            given_rule=self.spec.label_rule,
        )
        _check_classes(dataset)
        return dataset

    def _check_known(self, label: IntArray, split: Split) -> None:
        """Refuse a rule of the user's own that knows fewer labels once it is fitted."""
        rows = np.concatenate([split.train, split.validation, split.test])
        n_unknown = int((label[rows] == UNKNOWN_LABEL).sum())
        if n_unknown:
            raise OwnCodeError(
                self.bars.symbol,
                self.bars.timeframe.value,
                f"the label rule has no label for {n_unknown} rows that it had one for before its "
                "fit",
                "let fit change no bar from known to unknown",
            )

    def _split(self, split_rows: Callable[[IntArray], Split]) -> Split:
        try:
            return split_rows(self.rows)
        except ValueError as error:
            raise self._too_few_rows(error) from None

    def _too_few_rows(self, error: ValueError) -> NotEnoughBarsError:
        """What the rows are too few for, and whether there are too few bars at all."""
        lookback, days, start = self.spec.lookback, self.spec.history_days, self.spec.start
        needed = _needed_bars(self.spec, self.bars.timeframe)
        of_history = f" in history_days={days:g}" if math.isfinite(days) else ""
        longer = f" or use {self.spec.longer_history}" if of_history or start is not None else ""
        if start is not None:
            of_history = f" {_between(start, self.spec.end)}"
        found = (
            f"{self.n_history_bars} bars{of_history} give {len(self.rows)} usable rows ({error})"
        )
        action = (
            f"lookback={lookback} takes at least {needed} bars without gaps: load more bars{longer}"
        )
        silence, n_gaps = describe_silence(self.bars), len(find_gaps(self.bars))
        is_enough = len(self.bars) >= needed
        if silence:
            found = f"{found}; {silence}"
        if silence and (is_enough or is_silent(self.bars).all()):
            action = advise_on_silence(self.bars)
        elif is_enough and n_gaps:
            found = f"{found}; {n_gaps:,} gaps lie between the bars"
            action = (
                f"fill the gaps from the source, take a shorter lookback than {lookback} "
                "bars, or load more bars without gaps"
            )
        return NotEnoughBarsError(self.bars.symbol, self.bars.timeframe, found, action)


def _between(start: int | None, end: int | None) -> str:
    """Two moments in words, of which one may be missing."""
    words = [
        f"{word} {format_time(pd.Timestamp(moment, unit='ms', tz='UTC'))}"
        for word, moment in (("from", start), ("before", end))
        if moment is not None
    ]
    return f"{' and '.join(words)} UTC"


def check_purge(purge_bars: int, horizon: int) -> None:
    """Refuse a purge that is shorter than the labels look ahead.

    Raises:
        ConfigError: The purge is too short.
    """
    if purge_bars < horizon:
        raise ConfigError(
            f"split.purge_bars={purge_bars} is less than labels.horizon={horizon}: train labels "
            f"would look into the next part; use split.purge_bars={horizon} or more"
        )


def check_shares(fractions: Sequence[float]) -> None:
    """Refuse shares of train, validation and test that do not share out all rows.

    Raises:
        ConfigError: They do not.
    """
    if not are_shares(fractions):
        raise ConfigError(
            f"split.train, split.validation and split.test are {tuple(fractions)}: "
            "give three positive shares that sum to 1"
        )


def cut_history(bars: Bars, spec: DatasetSpec, first_time: int | None) -> tuple[Bars, int]:
    """The bars in use, and the position among them of the first that may be a row.

    The arguments and the errors are those of ``PreparedMarket.prepare``.
    """
    if len(bars) == 0:
        raise NotEnoughBarsError(bars.symbol, bars.timeframe, "no bars", "load bars first")
    bars = spec.in_dates(bars)
    # A shorter horizon is counted below; with this one the count would take for ever.
    horizon = spec.label_rule.horizon
    if horizon >= max(len(bars), _ABSURD_HORIZON):
        raise NotEnoughBarsError(
            bars.symbol,
            bars.timeframe,
            f"{len(bars)} bars and a label that looks {horizon} bars ahead",
            "use a smaller labels.horizon or load more bars",
        )
    newest_close = int(bars.open_time[-1]) + bars.timeframe.milliseconds
    since = spec.first_time(newest_close) if first_time is None else first_time
    first_row = int(bars.open_time.searchsorted(since))
    start = max(0, first_row - spec.bars_before(bars.timeframe))
    return bars.slice(start), first_row - start


def _proven(bars: Bars, spec: DatasetSpec, first_time: int | None) -> DatasetSpec:
    """Put the user's own code to the proof, on the history alone.

    The bars before the history depend on what the proof finds, and are other ones when the
    training is repeated.
    """
    if not (spec.feature_set.own or isinstance(spec.label_rule, OwnRule)):
        return spec
    cut, first_row = cut_history(bars, spec, first_time)
    history = cut.slice(first_row)
    return replace(
        spec,
        feature_set=spec.feature_set.proven(history),
        label_rule=spec.label_rule.proven(history),
    )


def _needed_bars(spec: DatasetSpec, timeframe: Timeframe) -> int:
    """Fewest bars without a gap, all of them traded, of which every part keeps a row."""
    # Bars before the first row, the rows, and the last bars, whose label is not known yet.
    warm_up_bars = spec.feature_set.warm_up_bars(timeframe)
    n_before = max(warm_up_bars + spec.lookback - 1, spec.label_rule.past_bars)
    return n_before + _fewest_rows(spec.split_spec) + spec.label_rule.horizon


def _fewest_rows(spec: SplitSpec) -> int:
    """Fewest consecutive rows of which every part keeps one."""
    train, validation, test = spec.fractions
    purge, embargo = spec.purge_bars, spec.embargo_bars
    needed = max(purge / train, (purge + embargo) / validation, embargo / test)
    n_rows = max(3, int(needed))
    while not _can_split(n_rows, spec):
        n_rows += 1
    return n_rows


def _can_split(n_rows: int, spec: SplitSpec) -> bool:
    try:
        chronological_split(np.arange(n_rows), spec.fractions, spec.purge_bars, spec.embargo_bars)
    except ValueError:
        return False
    return True


def _check_classes(dataset: MarketDataset) -> None:
    counts = dataset.class_counts("train")
    if counts.all():
        return
    found = ", ".join(f"{name} {count}" for name, count in zip(CLASS_NAMES, counts, strict=True))
    found = f"the train rows lack a class ({found})"
    longer = dataset.spec.longer_history
    action = f"change the label rule ({_describe(dataset.label_rule)}) or use {longer}"
    if np.ptp(dataset.bars.column("close")) == 0:
        found = f"{found}; {describe_silence(dataset.bars) or 'the price stands still'}"
        action = advise_on_silence(dataset.bars)
    raise MissingClassError(dataset.bars.symbol, dataset.bars.timeframe, found, action)


def _describe(rule: LabelRule) -> str:
    return ", ".join(f"{name}={value}" for name, value in rule.to_json().items())
