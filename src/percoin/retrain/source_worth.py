"""After a round: measure the rules of the chain on the markets of the round."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from percoin.assembly import default_label_rules, stored_bars
from percoin.config import RetrainConfig
from percoin.errors import PercoinError
from percoin.printable import printable
from percoin.retrain.sources import source_config
from percoin.retrain.states import Subject, store_of
from percoin.signals.market import SourcedBars
from percoin.signals.worth import WorthFiles

log = logging.getLogger(__name__)


def measure_sources(subjects: Iterable[Subject], settings: RetrainConfig) -> int:
    """Measure the sources of each market whose stored bars changed since the last measurement.

    If a market cannot be measured, this is logged and its old measurement stays.

    Returns:
        Number of measured markets.
    """
    # Import late: this needs scipy, and a round that only explains does not.
    from percoin.signals.measure import measure_again

    store, rules = store_of(settings), default_label_rules()
    files = WorthFiles(Path(settings.data_dir))
    n_measured = 0
    for subject in subjects:
        market = subject.market
        if not subject.source or market.timeframe not in rules:
            continue
        try:
            source = stored_bars(source_config(subject.source), store)
            bars = source.load(market.symbol, market.timeframe)
            n_measured += measure_again(SourcedBars(bars, source), rules[market.timeframe], files)
        except PercoinError as error:
            log.warning("WORTH not measured: %s", error)
        except OSError as error:
            name = f"{market.symbol} {market.timeframe}"
            log.warning("WORTH not kept: %s: %s; give another data_dir", name, error)
        except Exception as error:  # noqa: BLE001 - what the round has trained is still to be told
            name, kind = f"{market.symbol} {market.timeframe}", type(error).__name__
            log.error(
                "WORTH not measured: %s: unexpected %s: %s", name, kind, printable(str(error))
            )
    return n_measured
