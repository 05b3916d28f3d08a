"""The scoreboard of a server's first year: 32 markets of 15m, 1.2 million resolved predictions.

    python stress/scoreboard_year.py [ROWS] [URL]

Writes made-up predictions to a record (a new SQLite file, or an empty database at URL, such as
postgresql://user@host/name), then measures how long the scoreboard takes to read all of it once,
what it holds in memory, what the next start takes with what the first one kept, how long a
request takes while nothing and while new rows come, and what a new bar of every market costs in
the background.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from percoin.monitoring.record import (
    BaselineForecast,
    Kept,
    TrackRecord,
    _predictions,
    _to_row,
    sqlite_url,
)
from percoin.monitoring.scoreboard import Scoreboard
from percoin.types import Timeframe

SYMBOLS = (Path(__file__).parents[1] / "symbols").read_text().strip().replace(" ", "").split(",")
ROWS = 1_200_000
BAR_MS = Timeframe.M15.milliseconds
START_MS = 1_735_689_600_000
NAMES = ("prior", "rolling_prior", "persistence", "rsi_ma", "momentum")
RULE = json.dumps({"kind": "fixed_horizon", "horizon": 3, "threshold": 0.0025})
REQUESTS = 300


def made_up(first: int, n_bars: int, random: np.random.Generator) -> Iterator[dict[str, object]]:
    """Rows of all markets for some bars, as a table holds them."""
    for bar in range(first, first + n_bars):
        shares = random.dirichlet((4, 4, 4), (len(SYMBOLS), 1 + len(NAMES))).tolist()
        classes = random.integers(0, 3, (len(SYMBOLS), 2 + len(NAMES))).tolist()
        for symbol, said, signals in zip(SYMBOLS, shares, classes, strict=True):
            lines = zip(NAMES, signals[2:], said[1:], strict=True)
            kept = Kept(
                id=0,
                symbol=symbol,
                tf=Timeframe.M15,
                ts=START_MS + bar * BAR_MS,
                bars="binance spot",
                source="ML_PER_COIN_V1",
                model_version="cnn_lstm_v1",
                version_id="20250101T000000000000Z-0123456789ab",
                label_rule=RULE,
                signal=signals[0],
                confidence=max(said[0]),
                probabilities=tuple(said[0]),
                close=100.0,
                baselines={name: BaselineForecast(s, tuple(p)) for name, s, p in lines},
                is_live=True,
                written_at=START_MS + bar * BAR_MS + 5000,
            )
            outcome = {"label": signals[1], "forward_return": 0.001, "void": ""}
            yield _to_row(kept) | outcome | {"resolved_at": kept.written_at + 3 * BAR_MS}


def write(record: TrackRecord, first: int, n_bars: int, random: np.random.Generator) -> None:
    """Insert rows in large transactions."""
    for start in range(first, first + n_bars, 500):
        rows = list(made_up(start, min(500, first + n_bars - start), random))
        with record._connected() as connection:
            connection.execute(insert(_predictions), rows)


def resident_mib() -> float:
    """What the process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def timed(what: str, begun: tuple[float, float]) -> None:
    """Print what something took."""
    wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    print(f"{what:34}wall {wall:8.2f} s, CPU {cpu:8.2f} s, {resident_mib():6.0f} MiB", flush=True)


def now() -> tuple[float, float]:
    """The time on the wall and that of this process."""
    return time.perf_counter(), time.process_time()


def requests(board: Scoreboard, what: str) -> None:
    """Time what /api/scoreboard does for all markets: look up and write as JSON."""
    walls = []
    for _ in range(REQUESTS):
        begun = time.perf_counter()
        json.dumps([standing.to_json() for standing in board.latest(None, Timeframe.M15)])
        walls.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.01)
    p50, p99 = np.quantile(walls, [0.5, 0.99])
    print(f"{what:34}p50 {p50:.1f} ms, p99 {p99:.1f} ms, {resident_mib():6.0f} MiB", flush=True)


def main() -> None:
    """Write, read and ask."""
    n_bars = -(-(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS) // len(SYMBOLS))
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[2] if len(sys.argv) > 2 else sqlite_url(Path(folder) / "record.sqlite")
        record = TrackRecord(url)
        begun = now()
        write(record, 0, n_bars, random)
        timed(f"{n_bars * len(SYMBOLS):,} rows written", begun)
        kept = Path(folder) / "scores.bin"
        board = Scoreboard(record, kept=kept)
        begun = now()
        board._catch_up()
        timed("read once", begun)
        begun = now()
        first = board.standings()
        timed("all standings computed", begun)
        begun = now()
        board.keep()
        timed(f"kept, {kept.stat().st_size / 2**20:.0f} MiB", begun)
        board = Scoreboard(record, kept=kept)
        begun = now()
        if not board.recall():
            sys.exit("what was kept is not used")
        timed("the next start: recalled", begun)
        begun = now()
        if board.standings() != first:
            sys.exit("the standings of the next start are others")
        timed("the next start: all standings", begun)
        begun = now()
        board.standings()
        timed("looked at again, nothing new", begun)
        board.start(every_secs=1.0)
        board.latest()
        requests(board, "requests, nothing new")
        write(record, n_bars, 1, random)
        requests(board, "requests while a bar of all comes")
        board.stop()
        begun = now()
        board.standings()
        timed("the background after one bar", begun)
        record.close()


if __name__ == "__main__":
    main()
