"""The bars of a job: all jobs on a market share one download from the exchange."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from percoin import json_codec
from percoin.assembly import bar_source
from percoin.bars.schema import Bars
from percoin.bars.sources.binance.source import ExchangeSource
from percoin.bars.store import BarStore
from percoin.config import TrainConfig
from percoin.errors import BarsNotFoundError, InvalidBarsError
from percoin.file_lock import claimed
from percoin.training.folds import bars_in_dates, load_bars, load_newest, n_bars_to_load
from percoin.whole_file import write_whole

_NOTE_FILE = "bars.json"
_LOCK_FILE = ".bars.lock"


@dataclass(frozen=True)
class AskedBars:
    """Bars of a market, and the time their source was asked for them (seconds since 1970)."""

    bars: Bars
    asked_at: float


@dataclass(frozen=True)
class _Note:
    """Which stored bars belong to one download from the exchange; later bars do not."""

    asked_at: float
    n_bars_wanted: int
    first_open_time: int
    last_open_time: int


def bars_of_job(settings: TrainConfig, market_folder: Path, reuse_since: float) -> AskedBars:
    """Load the bars of a job.

    Sources other than an exchange are simply read. If this sweep downloaded the bars after
    ``reuse_since``, they are read from the store, without bars that were stored later. So
    all jobs on the market get the same bars.

    Args:
        settings: Settings of the job.
        market_folder: Existing folder that all jobs of the sweep on the market share.
        reuse_since: Seconds since 1970.

    Raises:
        DataError: The source fails.
    """
    store = BarStore(Path(settings.data_dir) / "bars")
    source = bar_source(settings.source, store)
    if not isinstance(source, ExchangeSource):
        return AskedBars(load_bars(settings), time.time())
    asked = _share(settings, market_folder, reuse_since, source)
    # Jobs with other dates share one download.
    return replace(asked, bars=bars_in_dates(settings, asked.bars))


def _share(
    settings: TrainConfig, market_folder: Path, reuse_since: float, source: ExchangeSource
) -> AskedBars:
    """The newest bars of an exchange, of which all jobs on the market share one download."""
    with claimed(market_folder, _LOCK_FILE, wait_secs=math.inf):
        note = _read_note(market_folder)
        if note and note.asked_at >= reuse_since:
            # Since then a history with a first date has become longer, and needs no other bars.
            reaches = note.n_bars_wanted >= n_bars_to_load(settings, note.asked_at)
            bars = _stored(settings, source, note) if reaches else None
            if bars is not None:
                return AskedBars(bars, note.asked_at)
        asked_at = time.time()
        wanted = n_bars_to_load(settings, asked_at)
        bars = load_newest(settings)
        note = _Note(asked_at, wanted, int(bars.open_time[0]), int(bars.open_time[-1]))
        write_whole(market_folder / _NOTE_FILE, json.dumps(asdict(note)))
        return AskedBars(bars, note.asked_at)


def _stored(settings: TrainConfig, source: ExchangeSource, note: _Note) -> Bars | None:
    """The stored bars of the note; None if some are missing."""
    try:
        bars = source.store.read(settings.symbol, settings.tf.timeframe)
    except (BarsNotFoundError, InvalidBarsError):
        return None
    first = int(bars.open_time.searchsorted(note.first_open_time))
    end = int(bars.open_time.searchsorted(note.last_open_time, side="right"))
    bars = bars.slice(first, end)
    ends = bars.open_time[[0, -1]].tolist() if len(bars) else []
    is_whole = ends == [note.first_open_time, note.last_open_time]
    return bars if is_whole and source.owns(bars.origin) else None


def _read_note(folder: Path) -> _Note | None:
    try:
        content = json_codec.loads((folder / _NOTE_FILE).read_text(encoding="utf-8"))
        note = json_codec.decode(_Note, content)
        is_time = math.isfinite(note.asked_at)
        return note if is_time and max(note.first_open_time, note.last_open_time) < 2**63 else None
    except (OSError, ValueError):
        # Without a note the exchange is asked.
        return None
