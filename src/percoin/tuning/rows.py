"""The rows that a search may use: none of the rows that later judge the chosen settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from percoin.assembly import dataset_spec
from percoin.bars.schema import Bars
from percoin.config import TrainConfig
from percoin.dataset import MarketDataset, build_search_dataset, tested_from
from percoin.registry.field_checks import open_time_text
from percoin.training.folds import make_folds
from percoin.types import DAY_MILLISECONDS


@dataclass(frozen=True, eq=False)
class SearchRows:
    """The time span that a search uses, cut once for all its trials.

    Lookback and label rule decide which rows a market has, and so where the train, validation
    and test parts end. If each trial cut its own rows, some trials would use a few bars of
    the test part of others. So the bars of all trials end where the test part of the
    command's own settings starts. No trial has the bars after that.

    Attributes:
        bars: Bars before the test part; in a walk-forward, before the first test part.
        first_time: Rows start here; earlier bars warm up the indicators. Milliseconds
            since 1970-01-01 UTC, as for the other times.
        validation_time: The validation part starts here.
        end_time: Open time of the first bar that no trial sees.
    """

    bars: Bars
    first_time: float
    validation_time: int
    end_time: int

    @classmethod
    def of(cls, settings: TrainConfig, bars: Bars) -> SearchRows:
        """Cut the bars as the command's own settings cut them.

        Raises:
            PercoinError: These settings cannot be trained on these bars.
        """
        # Trials see nothing of the test part, not even the rows of it that test_from leaves out.
        first_fold = make_folds(replace(settings, test_from=None), bars)[0]
        open_time, step = first_fold.bars.open_time, bars.timeframe.milliseconds
        end_time = int(open_time[first_fold.rows("test")[0]])
        newest_close = int(bars.open_time[-1]) + step
        embargo = settings.split.embargo_bars * step
        return cls(
            bars=bars.slice(0, int(bars.open_time.searchsorted(end_time))),
            first_time=dataset_spec(settings).first_time(newest_close),
            validation_time=int(open_time[first_fold.rows("validation")[0]]) - embargo,
            end_time=end_time,
        )

    def dataset(self, settings: TrainConfig) -> MarketDataset:
        """Train and validation rows of a trial's settings.

        Raises:
            PercoinError: These settings cannot be trained on these bars.
        """
        newest_close = int(self.bars.open_time[-1]) + self.bars.timeframe.milliseconds
        history_days = (newest_close - self.first_time) / DAY_MILLISECONDS
        spec = replace(dataset_spec(settings), history_days=history_days, start=None)
        return build_search_dataset(self.bars, spec, self.validation_time)

    def fresh(self, settings: TrainConfig, bars: Bars) -> tuple[TrainConfig, list[MarketDataset]]:
        """Chosen settings with the datasets to train them on, without test rows a trial saw.

        They may cut some bars earlier than the command's own settings. Then ``test_from`` says
        so, for every later training with them.

        Raises:
            PercoinError: These settings cannot be trained on these bars.
        """
        folds = make_folds(settings, bars)
        if int(folds[0].bars.open_time[folds[0].rows("test")[0]]) >= self.end_time:
            return settings, folds
        settings = replace(settings, test_from=open_time_text(self.end_time))
        return settings, tested_from(folds, self.end_time)
