"""Which rows a search may see: none that the chosen settings are judged on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from percoin.assembly import dataset_spec
from percoin.bars.schema import Bars
from percoin.config import TrainConfig
from percoin.dataset import MarketDataset, build_search_dataset
from percoin.training.folds import make_folds

_DAY_MILLISECONDS = 86_400_000


@dataclass(frozen=True, eq=False)
class SearchRows:
    """The stretch of time that a search sees, cut once for all of its trials.

    Lookback and label rule decide which rows a market has, and with them where shares of
    these rows end: trials that were cut each by its own rows would reach, by a few bars,
    into each other's test part. So the bars of a trial end where the test part of the
    command's own settings begins. What a trial does not have, it cannot look at.

    Attributes:
        bars: Those before the test part; with a walk-forward, before the first of them.
        first_time: Rows begin here; earlier bars warm up the indicators. Milliseconds
            since 1970-01-01 UTC, as the others.
        validation_time: Validation begins here.
        end_time: Open time of the first bar that no trial sees.
    """

    bars: Bars
    first_time: float
    validation_time: int
    end_time: int

    @classmethod
    def of(cls, settings: TrainConfig, bars: Bars) -> SearchRows:
        """Cut the bars as the command's own settings do.

        Raises:
            PercoinError: These settings cannot be trained on these bars.
        """
        first_fold = make_folds(settings, bars)[0]
        open_time, step = first_fold.bars.open_time, bars.timeframe.milliseconds
        end_time = int(open_time[first_fold.rows("test")[0]])
        newest_close = int(bars.open_time[-1]) + step
        embargo = settings.split.embargo_bars * step
        return cls(
            bars=bars.slice(0, int(bars.open_time.searchsorted(end_time))),
            first_time=newest_close - settings.history_days * _DAY_MILLISECONDS,
            validation_time=int(open_time[first_fold.rows("validation")[0]]) - embargo,
            end_time=end_time,
        )

    def dataset(self, settings: TrainConfig) -> MarketDataset:
        """Train and validation rows of a trial's settings.

        Raises:
            PercoinError: These settings cannot be trained on these bars.
        """
        newest_close = int(self.bars.open_time[-1]) + self.bars.timeframe.milliseconds
        history_days = (newest_close - self.first_time) / _DAY_MILLISECONDS
        spec = replace(dataset_spec(settings), history_days=history_days)
        return build_search_dataset(self.bars, spec, self.validation_time)

    def fresh(self, fold: MarketDataset) -> MarketDataset:
        """The same fold with those test rows alone that no trial saw.

        Other settings than the command's own may put the cut some bars earlier.
        """
        rows = fold.rows("test")
        unseen = rows[fold.bars.open_time[rows] >= self.end_time]
        return replace(fold, split=replace(fold.split, test=unseen))
