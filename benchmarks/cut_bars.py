"""A copy of a folder of bars that ends earlier, so that a training meets an earlier test window.

    python benchmarks/cut_bars.py FOLDER COPY --until 2025-07-15

Every Parquet file of FOLDER is written to the same place below COPY without the bars that
open at ``--until`` (UTC) or later; files without any bar before that are left out. Train on
it by ``source=files source.path=COPY``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds Parquet files with a column open_time")
    parser.add_argument("copy", type=Path)
    parser.add_argument("--until", type=lambda text: pd.Timestamp(text, tz="UTC"), required=True)
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.rglob("*.parquet"))
    kept = [cut(path, arguments) for path in paths]
    print(f"{sum(kept)} of {len(paths)} files have bars before {arguments.until:%Y-%m-%d}")


def cut(path: Path, arguments: argparse.Namespace) -> bool:
    bars = pd.read_parquet(path)
    earlier = bars[pd.to_datetime(bars["open_time"], utc=True) < arguments.until]
    if earlier.empty:
        return False
    target = arguments.copy / path.relative_to(arguments.folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    earlier.to_parquet(target, index=False)
    return True


if __name__ == "__main__":
    main()
