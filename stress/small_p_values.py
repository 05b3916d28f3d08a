"""How often small p-values come where there is no edge: the draws alone, groups, both as used.

python stress/small_p_values.py                  some tens of minutes; writes small_p_values.md
python stress/small_p_values.py --series 500     a quick look; prints only
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.signal import lfilter
from scipy.stats import ttest_1samp

from percoin.evaluation.block_length import choose_block_length
from percoin.evaluation.uncertainty import (
    Bootstrap,
    _draw_t_statistics,
    _standard_error,
)
from percoin.types import FloatArray

HORIZON = 3
FULL = 5_000
# As many as the markets of gate_power.py are judged on.
N_ROWS = 450
DRAWS = 20_000
LEVELS = (0.025, 0.005, 0.001, 1.44e-4, 7.2e-5)
RESULTS = Path(__file__).with_suffix(".md")
SHOCKS = {
    "even": lambda rng, shape: rng.standard_normal(shape),
    "rare large losses": lambda rng, shape: 1 - rng.exponential(size=shape),
    "rare large gains": lambda rng, shape: rng.exponential(size=shape) - 1,
}


def stormy(kind: str, n_rows: int, n_series: int) -> FloatArray:
    """Dependent rows of mean zero whose volatility comes in runs, shape (n_series, n_rows)."""
    rng = np.random.default_rng(7)
    shape = (n_series, n_rows + 100)
    log_volatility = lfilter([1], [1, -0.97], rng.normal(0, 0.17, shape), axis=1)
    rows = lfilter([1], [1, -0.4], SHOCKS[kind](rng, shape), axis=1) * np.exp(log_volatility)
    return rows[:, 100:]


def p_values(rows: FloatArray) -> tuple[float, float, float]:
    """From 20,000 draws; from 24 groups; as percoin gives it with 2000 draws."""
    length = choose_block_length(rows, HORIZON)
    draws = _draw_t_statistics(rows, length, Bootstrap(HORIZON, repetitions=DRAWS))
    n_beyond = int((draws >= rows.mean() / _standard_error(rows, length)).sum())
    means = [group.mean() for group in np.array_split(rows, 24)]
    used = Bootstrap(HORIZON).estimate(rows).p_value
    assert used is not None
    grouped = float(ttest_1samp(means, 0.0, alternative="greater").pvalue)
    return (1 + n_beyond) / (1 + DRAWS), grouped, used


def table(n_series: int) -> str:
    """One line per kind of rows and way, printed as it comes."""
    lines = [
        "# Small p-values without an edge",
        "",
        f"How many times as often as they should p-values below a level came over {n_series:,} "
        f"series of {N_ROWS} dependent rows of mean zero whose volatility comes in runs; written "
        "by `stress/small_p_values.py`. 7.2e-5 is what a lone true model among 128 needs.",
        "",
        f"| shocks | p-value from | {' | '.join(f'{level:g}' for level in LEVELS)} |",
        "|---|---|" + "---:|" * len(LEVELS),
    ]
    for kind in SHOCKS:
        found = np.array([p_values(rows) for rows in stormy(kind, N_ROWS, n_series)])
        ways = (f"{DRAWS:,} draws", "24 groups", "2,000 draws, then groups")
        for way, column in zip(ways, found.T, strict=True):
            cells = [f"{(column <= level).mean() / level:.2f}" for level in LEVELS]
            lines.append(f"| {kind} | {way} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table if all series were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=FULL)
    n_series = parser.parse_args().series
    text = table(n_series)
    if n_series == FULL:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
