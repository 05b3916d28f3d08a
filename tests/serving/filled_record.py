"""A track record of live predictions, made by a server of this process with a clock of its own."""

from dataclasses import replace
from pathlib import Path

from builders import write_parquet
from exported_models import bars_to_learn_from, export, make_dataset, random_network
from small_servers import M15, Market, bring_up_to_date, make_server

from percoin.bars.schema import Bars
from percoin.evaluation.uncertainty import Bootstrap
from percoin.expected_move.judging import fit_and_judge
from percoin.features.drift import bin_features
from percoin.features.feature_set import FEATURE_NAMES
from percoin.labels import FixedHorizon
from percoin.monitoring.record import RECORD_FILE, TrackRecord, sqlite_url
from percoin.registry.judged import TRAIN_ROWS, TrainRows
from percoin.registry.layout import EXPECTED_MOVE
from percoin.types import Source

MODELLED, RULED = "BTCUSDT", "ETHUSDT"
N_BEFORE, N_AFTER = 1200, 300
RULE = FixedHorizon(3, 0.0025)


def fill_record(folder: Path, **sections: object) -> int:
    """Serve two markets bar by bar, one by a model and one by the rules behind it.

    Afterwards ``folder`` holds the bars (``klines``), the model (``models``) and the record
    (``data``), as a real server is told to find them. Some bars are missing on the way.

    Returns:
        How many closes were answered.
    """
    bars = _with_a_gap(bars_to_learn_from(N_BEFORE + N_AFTER))
    dataset = make_dataset(bars.slice(0, N_BEFORE))
    rows = dataset.features[dataset.rows("train")]
    parts = (dataset.rows("train"), dataset.rows("validation"), dataset.rows("test"))
    move = fit_and_judge(dataset.bars, RULE.horizon, parts, Bootstrap(RULE.horizon, repetitions=50))
    told = {
        TRAIN_ROWS: TrainRows((0.3, 0.4, 0.3), bin_features(FEATURE_NAMES, rows)),
        EXPECTED_MOVE: move,
        **sections,
    }
    export(folder / "models", random_network(), dataset, sections=told)
    for symbol in (MODELLED, RULED):
        write_parquet(bars, folder / "klines" / symbol / "15m.parquet")
    market = Market(bars, n_closed=N_BEFORE)
    record = TrackRecord(sqlite_url(folder / "data" / RECORD_FILE))
    server = make_server(
        folder / "models",
        market,
        (MODELLED, RULED),
        record=record,
        default_rules={M15: RULE},
        sources=[Source.MODEL, Source.MOMENTUM, Source.HOLD],
    )
    n_answered = 0
    while market.now < market.close(len(bars)):
        market.pass_time(minutes=15)
        n_answered += bring_up_to_date(server) > 0
    record.close()
    return n_answered


def _with_a_gap(bars: Bars) -> Bars:
    """The same without five bars, so long before the end that the model answers again."""
    first = len(bars) - 180
    kept = bars.frame.drop(bars.frame.index[first : first + 5])
    return replace(bars, frame=kept)
