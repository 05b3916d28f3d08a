"""How often chance alone demotes a model, if its live record is looked at every day.

A stream is a model's live record over a year: one prediction a bar, each with a label that
overlaps its neighbours' (``HORIZON`` bars), so that neighbouring skills move together. It is
looked at every day by ``percoin.retrain.decisions.decide`` with the rules of ``conf/retrain.yaml``,
and by the plain 95 % interval for comparison. The interval of a day is the normal one with the
standard error that the stream has by its making; the block bootstrap of the scoreboard estimates
that error, and its own error is not part of this.

    python stress/false_demotions.py > stress/false_demotions.md
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from percoin.retrain.__main__ import read_task
from percoin.retrain.decisions import Condition, LiveSkill, MarketState, Verb, decide
from percoin.types import Timeframe

HORIZON = 3
DAYS = 365
N_STREAMS = 2_000
# Of the log-loss skill of a row, measured on 15m markets: skill .01 with an interval of
# .007 over 5,200 rows whose labels overlap.
ROW_SPREAD = 0.15
SKILLS = (0.02, 0.01, 0.005, 0.0, -0.01, -0.02)
BARS_PER_DAY = {"15m": 96, "1h": 24}


def streams(skill: float, bars_per_day: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Running means at the end of each day, shape (n, days), counts, and the spread of a mean."""
    generator = np.random.default_rng(seed)
    means, counts = [], bars_per_day * np.arange(1, DAYS + 1)
    for _ in range(N_STREAMS):
        # Each row is a sum over HORIZON bars: neighbours share all but one of them.
        noise = generator.normal(size=bars_per_day * DAYS + HORIZON - 1)
        cumulated = np.concatenate([[0.0], np.cumsum(noise)])
        rows = (cumulated[HORIZON:] - cumulated[:-HORIZON]) / np.sqrt(HORIZON)
        means.append(skill + ROW_SPREAD * np.cumsum(rows)[counts - 1] / counts)
    # The mean of overlapping sums has HORIZON times the variance of independent rows.
    return np.array(means), counts, ROW_SPREAD * np.sqrt(HORIZON)


def first_demotions(means: np.ndarray, counts: np.ndarray, spread: float) -> tuple[float, float]:
    """Share of streams that are ever demoted, by the rules and by the plain interval."""
    rules = read_task([]).rules
    now = datetime(2026, 1, 1, tzinfo=UTC)
    market = MarketState(
        symbol="BTCUSDT",
        timeframe=Timeframe.M15,
        condition=Condition.ACCEPTED,
        data_end=now - timedelta(days=1),
        n_bars=35_000,
        n_new_bars=96,
    )
    by_rules = by_interval = 0
    for stream in means:
        halves = 1.96 * spread / np.sqrt(counts)
        uppers = stream + halves
        looked = counts / HORIZON >= rules.min_resolved
        below = np.flatnonzero(looked & (uppers < 0))
        by_interval += len(below) > 0
        # Where the plain interval does not demote, the wider one cannot.
        by_rules += any(
            decide(
                replace(
                    market,
                    live=LiveSkill(
                        int(counts[day]),
                        counts[day] / HORIZON,
                        float(stream[day]),
                        float(stream[day] - halves[day]),
                        float(uppers[day]),
                    ),
                ),
                rules,
                now,
            ).verb
            is Verb.DEMOTE
            for day in below
        )
    return by_rules / len(means), by_interval / len(means)


def main() -> None:
    """Print the table."""
    print("# How often chance demotes a model\n")
    print(
        f"{N_STREAMS:,} simulated live records of {DAYS} days for each line, looked at every day;\n"
        f"labels reach {HORIZON} bars, the skill of a row spreads by {ROW_SPREAD}. "
        "`python stress/false_demotions.py`.\n"
    )
    print("| bars | true skill | demoted within the year | by the plain 95 % interval |")
    print("|---|---:|---:|---:|")
    for seed, (tf, bars_per_day) in enumerate(BARS_PER_DAY.items()):
        for skill in SKILLS:
            by_rules, by_interval = first_demotions(*streams(skill, bars_per_day, seed))
            print(f"| {tf} | {skill:+.3f} | {by_rules:.1%} | {by_interval:.1%} |", flush=True)


if __name__ == "__main__":
    main()
