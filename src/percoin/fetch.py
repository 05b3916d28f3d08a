"""The command ``python -m percoin.fetch``: bring bars into the store, and say what is there."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from percoin.assembly import bar_source
from percoin.bars.renames import current_symbol
from percoin.bars.report import MarketReport, align, make_report, to_details, to_json, to_table
from percoin.bars.schema import Bars
from percoin.bars.sources.binance.source import ExchangeSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config, run_command
from percoin.cli.options import joined
from percoin.cli.overrides import split_lists
from percoin.commands import command as command_line
from percoin.config import FetchConfig, OutputFormat, typed
from percoin.config.dates import moment_ms
from percoin.errors import BarsNotFoundError, ConfigError, DataError, InvalidBarsError
from percoin.features.feature_set import history_bars
from percoin.json_codec import one_line
from percoin.printable import printable
from percoin.types import DAY_MILLISECONDS, Timeframe


@dataclass(frozen=True)
class Fetched:
    """What became of one market.

    Attributes:
        result: ``fetched``, ``up to date``, ``incomplete`` or ``failed``.
        n_new: Bars that were not stored before.
        note: What went wrong and what to do, or what the bars lack; empty if nothing.
        report: On the bars that are stored now; None if there are none to use.
    """

    symbol: str
    timeframe: Timeframe
    result: str
    n_new: int
    note: str
    report: MarketReport | None

    @property
    def is_complete(self) -> bool:
        """Whether the store now has everything that was asked for."""
        return self.result in {"fetched", "up to date"}


def main(arguments: Sequence[str]) -> int:
    """Fetch or report what the arguments name and print it.

    Returns:
        0; 1 if a market failed or is incomplete; 2 for a mistake on the command line.
    """
    complete: list[bool] = []

    def command() -> None:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        lists, others = split_lists(joined(arguments))
        choices = [f"tf={tf}" for tf in lists["tf"]]
        # Without tf=, one call with the default.
        settings = [
            _settings(lists["symbol"], [*others, *choices[place : place + 1]])
            for place in range(max(len(choices), 1))
        ]
        show = report_stored if settings[0].report else fetch_all
        complete.append(show(settings, bool(lists["tf"])))

    code = run_command(command, "fetch")
    return code or int(not all(complete))


def _settings(symbols: Sequence[str], others: Sequence[str]) -> FetchConfig:
    named = ",".join(f"'{current_symbol(symbol)}'" for symbol in symbols)
    return typed(compose_config("fetch", [*others, f"symbol=[{named}]"]), FetchConfig)


def fetch_all(settings: Sequence[FetchConfig], _tf_given: bool = True) -> bool:
    """Fetch every market; one that fails does not stop the others.

    Args:
        settings: One for each timeframe.

    Returns:
        Whether all is there now.

    Raises:
        ConfigError: No market is named.
    """
    if not settings[0].symbol:
        raise ConfigError(
            "symbol has no value; give one or several, for example symbol=BTCUSDT,ETHUSDT "
            "or symbol=$(cat symbols)"
        )
    fetched = [fetch(chosen, symbol) for chosen in settings for symbol in chosen.symbol]
    if settings[0].output == OutputFormat.JSON:
        print(one_line([_to_json(market) for market in fetched]))
    else:
        print(_to_text(fetched))
    return all(market.is_complete for market in fetched)


def fetch(settings: FetchConfig, symbol: str) -> Fetched:
    """Bring one market into the store."""
    store = BarStore(Path(settings.data_dir) / "bars")
    timeframe = settings.tf.timeframe
    days = settings.history_days
    if (start := moment_ms("start", settings.start)) is not None:
        days = math.ceil((time.time() * 1000 - start) / DAY_MILLISECONDS)
    n_rows = math.ceil(days * timeframe.bars_per_day)
    source = bar_source(
        settings.source, store, n_rows + history_bars(settings.lookback), replace=True
    )
    is_written = False
    try:
        if isinstance(source, ExchangeSource):
            update = source.update(symbol, timeframe)
            n_new, failure = update.n_new, update.failure
            told = [note for note in (update.young_note, update.ended_note) if note]
        else:
            bars = source.load(symbol, timeframe)
            n_new, failure, told = _n_new(store, bars), None, []
            is_written = store.write(bars)
        report = make_report(*store.read_segments(symbol, timeframe))
    except DataError as error:
        return Fetched(symbol, timeframe, "failed", 0, str(error), None)
    result = "incomplete" if failure else "fetched" if n_new or is_written else "up to date"
    notes = [str(failure)] if failure else []
    notes += [f"{symbol} {timeframe}: {note}" for note in told]
    return Fetched(symbol, timeframe, result, n_new, "; ".join(notes), report)


def _n_new(store: BarStore, bars: Bars) -> int:
    """How many of the bars the store lacks; all of them if it has those of another source."""
    try:
        stored = store.read(bars.symbol, bars.timeframe)
    except (BarsNotFoundError, InvalidBarsError):
        return len(bars)
    is_same = stored.origin == bars.origin
    return int((~np.isin(bars.open_time, stored.open_time)).sum()) if is_same else len(bars)


def report_stored(settings: Sequence[FetchConfig], tf_given: bool) -> bool:
    """Report on stored markets, all of them if none is named, without fetching.

    Args:
        settings: One for each timeframe.
        tf_given: Whether other timeframes are left out.

    Returns:
        Whether every file could be used.

    Raises:
        ConfigError: Nothing of what is named is stored.
    """
    store = BarStore(Path(settings[0].data_dir) / "bars")
    timeframes = {chosen.tf.timeframe for chosen in settings} if tf_given else set(Timeframe)
    symbols = settings[0].symbol
    markets = [
        (symbol, timeframe)
        for symbol, timeframe in store.markets()
        if timeframe in timeframes and (not symbols or symbol in symbols)
    ]
    if not markets:
        raise ConfigError(
            f"no such bars are stored in {store.root}; fetch some: "
            + command_line(
                "python -m percoin.fetch",
                f"symbol={','.join(symbols) or 'BTCUSDT'}",
                *(
                    [f"tf={','.join(tf for tf in Timeframe if tf in timeframes)}"]
                    if tf_given
                    else []
                ),
                data_dir=settings[0].data_dir,
            )
        )
    reports, broken = _read_reports(store, markets)
    if settings[0].output == OutputFormat.JSON:
        print(one_line([to_json(report) for report in reports]))
    elif reports:
        details = [to_details(report) for report in reports] if symbols else []
        print("\n\n".join([to_table(reports), *details]))
    for error in broken:
        print(f"error: {printable(str(error))}", file=sys.stderr)
    return not broken


def _read_reports(
    store: BarStore, markets: Sequence[tuple[str, Timeframe]]
) -> tuple[list[MarketReport], list[DataError]]:
    reports: list[MarketReport] = []
    broken: list[DataError] = []
    for symbol, timeframe in markets:
        try:
            reports.append(make_report(*store.read_segments(symbol, timeframe)))
        except DataError as error:
            broken.append(error)
    return reports, broken


def _to_json(market: Fetched) -> dict[str, object]:
    return {
        "symbol": market.symbol,
        "tf": market.timeframe.value,
        "result": market.result,
        "n_new": market.n_new,
        "note": market.note or None,
        "report": None if market.report is None else to_json(market.report),
    }


def _to_text(fetched: Sequence[Fetched]) -> str:
    """What became of each market, the bars of those that have some, and what went wrong."""
    rows = [
        (market.symbol, market.timeframe.value, market.result, f"{market.n_new:,} new")
        for market in fetched
    ]
    parts = [align(rows, right=[3])]
    reports = [market.report for market in fetched if market.report is not None]
    if reports:
        parts.append(to_table(reports))
    notes = [f"{market.result}: {printable(market.note)}" for market in fetched if market.note]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
