"""What is known of a market's bars: their range, holes, silence, spikes and origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from percoin.bars.gaps import Gap, find_gaps
from percoin.bars.schema import Bars, format_time
from percoin.bars.update import Segment
from percoin.printable import printable
from percoin.types import BoolArray, FloatArray, Timeframe

# Shares of the bars that are missing, silent or spikes.
_GOOD_SHARE = 0.001
_FAIR_SHARE = 0.01
# In real bars about 1 in 20,000 goes beyond this.
_SPIKE_SCALES = 15.0
_SCALE_BARS = 97
_NORMAL_OVER_MEDIAN = 1.4826


@dataclass(frozen=True)
class Run:
    """Bars in a row.

    Attributes:
        first: Open time of the first one (UTC).
        last: Open time of the last one (UTC).
        n_bars: How many they are.
    """

    first: pd.Timestamp
    last: pd.Timestamp
    n_bars: int


@dataclass(frozen=True)
class MarketReport:
    """What a person should know before trusting the bars of a market.

    Attributes:
        first: Open time of the oldest bar (UTC).
        last: Close of the newest bar (UTC).
        gaps: Bars that are not there, oldest first.
        silent: Runs of bars without volume or without any movement.
        spikes: Open times of bars whose close leaves and comes back with the next
            bar, or whose wick does, by more than 15 times the usual move.
        stretches: Which source answered for which stretch of time.
        sha256: Of all stored bars: ``Bars.sha256()``. A manifest has the hash of
            the bars its model was made from, the same if that was all of them.
        quality: ``good``, ``fair`` or ``poor``: at most 0.1 %, at most 1 % or more
            of the bars are missing, silent or spikes.
    """

    symbol: str
    timeframe: Timeframe
    origin: str
    first: pd.Timestamp
    last: pd.Timestamp
    n_bars: int
    gaps: tuple[Gap, ...]
    silent: tuple[Run, ...]
    spikes: tuple[pd.Timestamp, ...]
    stretches: tuple[Segment, ...]
    sha256: str
    quality: str

    @property
    def n_missing(self) -> int:
        """Bars in all gaps."""
        return sum(gap.n_missing for gap in self.gaps)

    @property
    def n_silent(self) -> int:
        """Bars in all silent runs."""
        return sum(run.n_bars for run in self.silent)


def make_report(bars: Bars, stretches: Sequence[Segment] = ()) -> MarketReport:
    """Look through the bars of one market.

    Args:
        bars: At least one.
        stretches: Which source answered for which stretch, as far as the store knows.
    """
    gaps = find_gaps(bars)
    silent = _runs(bars, is_silent(bars))
    spikes = tuple(bars.frame.index[is_spike(bars)])
    n_missing = sum(gap.n_missing for gap in gaps)
    n_doubtful = n_missing + sum(run.n_bars for run in silent) + len(spikes)
    share = n_doubtful / (len(bars) + n_missing)
    return MarketReport(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        origin=bars.origin,
        first=bars.frame.index[0],
        last=bars.close_time(),
        n_bars=len(bars),
        gaps=gaps,
        silent=silent,
        spikes=spikes,
        stretches=tuple(stretches),
        sha256=bars.sha256(),
        quality="good" if share <= _GOOD_SHARE else "fair" if share <= _FAIR_SHARE else "poor",
    )


def is_silent(bars: Bars) -> BoolArray:
    """Which bars have no volume, or high equal to low; shape (n_bars,)."""
    silent: BoolArray = (bars.column("volume") == 0) | (bars.column("high") == bars.column("low"))
    return silent


def is_spike(bars: Bars) -> BoolArray:
    """Which bars leave the price and come back at once, shape (n_bars,).

    The usual move is the median of the absolute log returns of the 97 bars
    around, scaled to the standard deviation of a normal distribution. A close is
    a spike if it moves more than 15 of these and the next close undoes three
    quarters of it or more; a wick if it alone reaches that far.
    """
    close, opened = np.log(bars.column("close")), np.log(bars.column("open"))
    high, low = np.log(bars.column("high")), np.log(bars.column("low"))
    change = np.abs(np.diff(close, prepend=close[0]))
    limit = _SPIKE_SCALES * _usual_move(change)
    undone = np.abs(np.append(close[1:], close[-1]) - np.concatenate([close[:1], close[:-1]]))
    wick = np.maximum(high - np.maximum(opened, close), np.minimum(opened, close) - low)
    # Without any movement nearby, nothing says which move is unusual.
    spike: BoolArray = (limit > 0) & (((change > limit) & (undone < change / 4)) | (wick > limit))
    return spike


def _usual_move(change: FloatArray) -> FloatArray:
    median = pd.Series(change).rolling(_SCALE_BARS, center=True, min_periods=2).median()
    return _NORMAL_OVER_MEDIAN * median.fillna(0.0).to_numpy(dtype=np.float64)


def _runs(bars: Bars, chosen: BoolArray) -> tuple[Run, ...]:
    """The chosen bars as runs without a gap in time or in choice."""
    positions = np.flatnonzero(chosen)
    steps = np.diff(bars.open_time[positions])
    groups = np.split(positions, np.flatnonzero(steps != bars.timeframe.milliseconds) + 1)
    index = bars.frame.index
    return tuple(
        Run(index[group[0]], index[group[-1]], len(group)) for group in groups if len(group)
    )


def to_json(report: MarketReport) -> dict[str, object]:
    """A report for programs; times are ISO 8601 in UTC."""
    return {
        "symbol": report.symbol,
        "tf": report.timeframe.value,
        "quality": report.quality,
        "origin": report.origin,
        "first": report.first.isoformat(),
        "last": report.last.isoformat(),
        "n_bars": report.n_bars,
        "n_missing": report.n_missing,
        "n_silent": report.n_silent,
        "sha256": report.sha256,
        "gaps": [
            {
                "last_before": gap.last_before.isoformat(),
                "first_after": gap.first_after.isoformat(),
                "n_missing": gap.n_missing,
            }
            for gap in report.gaps
        ],
        "silent": [
            {"first": run.first.isoformat(), "last": run.last.isoformat(), "n_bars": run.n_bars}
            for run in report.silent
        ],
        "spikes": [moment.isoformat() for moment in report.spikes],
        "stretches": [
            {
                "start": _moment(stretch.start).isoformat(),
                "end": _moment(stretch.end).isoformat(),
                "via": stretch.via,
            }
            for stretch in report.stretches
        ],
    }


def to_table(reports: Sequence[MarketReport]) -> str:
    """One line for each market, for people."""
    header = ("symbol", "tf", "quality", "from", "until", "bars", "missing", "silent", "spikes")
    rows = [
        (
            report.symbol,
            report.timeframe.value,
            report.quality,
            report.first.strftime("%Y-%m-%d"),
            format_time(report.last),
            f"{report.n_bars:,}",
            f"{report.n_missing:,}",
            f"{report.n_silent:,}",
            f"{len(report.spikes):,}",
            report.sha256[:12],
            printable(report.origin),
        )
        for report in reports
    ]
    return align([(*header, "sha256", "source"), *rows], right=range(5, 9))


def to_details(report: MarketReport, n_shown: int = 5) -> str:
    """The dates behind the counts of one market, for people; the longest runs are shown."""
    origin = printable(report.origin)
    lines = [f"{report.symbol} {report.timeframe}: {origin}, sha256 {report.sha256}"]
    for stretch in report.stretches:
        lines.append(
            f"  {_span(_moment(stretch.start), _moment(stretch.end))}  {printable(stretch.via)}"
        )
    step = report.timeframe.timedelta
    for gap in sorted(report.gaps, key=lambda gap: -gap.n_missing)[:n_shown]:
        span = _span(gap.last_before + step, gap.first_after)
        lines.append(f"  {span}  {gap.n_missing:,} missing")
    for run in sorted(report.silent, key=lambda run: -run.n_bars)[:n_shown]:
        lines.append(f"  {_span(run.first, run.last + step)}  {run.n_bars:,} silent")
    lines += [f"  {format_time(moment)}  spike" for moment in report.spikes[:n_shown]]
    n_hidden = sum(
        max(len(entries) - n_shown, 0) for entries in (report.gaps, report.silent, report.spikes)
    )
    return "\n".join([*lines, f"  and {n_hidden:,} more: output=json"] if n_hidden else lines)


def align(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Cells as columns of text; those of the ``right`` columns end in one line."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _span(start: pd.Timestamp, end: pd.Timestamp) -> str:
    return f"{format_time(start)} to {format_time(end)}"


def _moment(milliseconds: int) -> pd.Timestamp:
    return pd.Timestamp(milliseconds, unit="ms", tz="UTC")
