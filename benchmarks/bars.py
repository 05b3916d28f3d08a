"""How long it takes to turn downloaded files of the archive into stored bars, and to open them.

    python benchmarks/bars.py [repetitions]

Makes 36 monthly zips of 15m bars of one market (simulated, in the archive's layout). The
first figure is everything after the download: sha256 of each zip, unpacking, parsing,
checking, joining and writing the store, synced to disk. The second is reading the market
back from the store, verified against its hash. Prints medians.
"""

from __future__ import annotations

import hashlib
import io
import statistics
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from percoin.bars.schema import Bars, check_bars
from percoin.bars.sources.binance.archive import Period, months_within
from percoin.bars.sources.binance.klines import KlineReader
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.bars.update import Segment, Stretch, add_segments, join
from percoin.types import Timeframe

SYMBOL, TIMEFRAME = "BTCUSDT", Timeframe.M15
N_BARS = 1096 * 96  # from 2022-09-01 to 2025-09-01, three years with a leap day
REPETITIONS = 9

Files = list[tuple[Period, Path, str]]


def write_archive(folder: Path) -> Files:
    """Every month as a zip, with its sha256."""
    bars = SimulatedSource(n_bars=N_BARS).load(SYMBOL, TIMEFRAME)
    start, end = int(bars.open_time[0]), int(bars.open_time[-1]) + TIMEFRAME.milliseconds
    files = []
    for month in months_within([(start, end)], end):
        inside = (bars.open_time >= month.start) & (bars.open_time < month.end)
        path = folder / f"{SYMBOL}-{TIMEFRAME}-{month.label}.zip"
        path.write_bytes(zipped(path.stem, bars.frame[inside]))
        files.append((month, path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return files


def zipped(name: str, frame: pd.DataFrame) -> bytes:
    table = frame.reset_index()
    table["open_time"] = table["open_time"].dt.as_unit("ms").astype(np.int64)
    unused = {f"unused_{number}": 1.0 for number in range(6, 12)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.csv", table.assign(**unused).to_csv(header=False, index=False))
    return buffer.getvalue()


def store_archive(files: Files, store: BarStore) -> Bars:
    reader = KlineReader(SYMBOL, TIMEFRAME, "run it again")
    stretches = []
    for month, path, sha256 in files:
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            sys.exit(f"{path} has changed")
        frame = reader.read_zip(path, month.start, month.end)
        stretches.append(Stretch(Segment(month.start, month.end, f"archive {SYMBOL}"), frame))
    reader.check(pd.concat([stretch.frame for stretch in stretches]), "all months")
    frame = check_bars(join(None, [], stretches), SYMBOL, TIMEFRAME)
    bars = Bars(SYMBOL, TIMEFRAME, frame, f"binance spot: {SYMBOL}")
    with store.locked(SYMBOL, TIMEFRAME):
        store.write_locked(bars, add_segments([], [stretch.segment for stretch in stretches]))
    return bars


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    with tempfile.TemporaryDirectory() as name:
        files = write_archive(Path(name))
        storing, opening = [], []
        for repetition in range(repetitions + 1):
            store = BarStore(Path(name) / f"bars-{repetition}")
            started = time.perf_counter()
            bars = store_archive(files, store)
            stored = time.perf_counter()
            opened = store.read(SYMBOL, TIMEFRAME)
            storing.append(stored - started)
            opening.append(time.perf_counter() - stored)
            if opened.sha256() != bars.sha256():
                sys.exit("what was read is not what was stored")
    print(f"{len(files)} files, {len(bars):,} bars")
    print(f"first time, libraries included: {storing[0]:.2f} s")
    print(f"verify, parse, check and store: {statistics.median(storing[1:]):.2f} s (below 2)")
    print(f"open: {1000 * statistics.median(opening[1:]):.0f} ms (below 50)")


if __name__ == "__main__":
    main()
