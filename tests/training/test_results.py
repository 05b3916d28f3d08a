import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from percoin import json_codec
from percoin.evaluation.daily import DailyLosses
from percoin.evaluation.uncertainty import Bootstrap
from percoin.intervals import Interval
from percoin.training.results import MarketMeans, MarketResult, format_markets
from percoin.training.summary import log_folder

N_DAYS = 20


def daily(model: float, rival: float, without: float | None = None) -> DailyLosses:
    """So much log-loss a row, ten rows a day; the prior loses 1 a row."""
    days = tuple(f"2025-07-{day:02}" for day in range(1, N_DAYS + 1))
    # Alike on average, with a day's ups and downs.
    swings = np.random.default_rng(0).normal(0, 0.1, (3, N_DAYS))
    swings += 1 - swings.mean(axis=1, keepdims=True)
    columns = (10 * swings * np.array([[model], [1.0], [rival]])).tolist()
    network = None if without is None else tuple((10 * without * swings[0]).tolist())
    return DailyLosses(days, (10,) * N_DAYS, *map(tuple, columns), without_network=network)


def result(
    symbol: str, is_seen: bool, model: float, rival: float, without: float | None = None
) -> MarketResult:
    return MarketResult(
        symbol=symbol,
        is_seen=is_seen,
        skill=1 - model,
        lower=1 - model - 0.01,
        upper=1 - model + 0.01,
        logistic=1 - 2 * rival,
        rival="volatility",
        lead=Interval(rival - model, rival - model - 0.01, rival - model + 0.01),
        activity_auc=0.6,
        direction_auc=None,
        verdict="accepted",
        p_value=0.001,
        reason="for a test",
        version="v",
        is_served=True,
        daily=daily(model, rival, without),
        move=None,
    )


RESULTS = [
    result("AAA", True, 0.96, 0.98),
    result("BBB", True, 0.98, 0.97),
    result("CCC", False, 0.99, 0.97),
]
BOOTSTRAP = Bootstrap(1, 0, 200)


def test_means_are_of_markets_seen_and_unseen_apart():
    means = MarketMeans.of(RESULTS, BOOTSTRAP)
    assert means.seen.value == pytest.approx(0.03)
    assert means.unseen.value == pytest.approx(0.01)
    assert means.rival_lead_seen.value == pytest.approx((0.02 - 0.01) / 2)
    assert means.rival_lead_unseen.value == pytest.approx(-0.02)
    assert (means.seen.n_models, means.unseen.n_models, means.seen.n_days) == (2, 1, N_DAYS)
    assert means.rival_lead_seen.lower <= means.rival_lead_seen.value <= means.rival_lead_seen.upper


def test_the_table_says_who_was_seen_how_good_and_beside_what():
    lines = format_markets(RESULTS, MarketMeans.of(RESULTS, BOOTSTRAP), is_pool=True).split("\n")
    assert lines[1].split() == [
        *("AAA", "seen", "+0.0400", "[+0.0300,", "+0.0500]"),
        *("+0.0200", "[+0.0100,", "+0.0300]", "0.600", "-", "accepted", "volatility"),
    ]
    assert lines[3].split()[:2] == ["CCC", "unseen"]
    assert any(line.startswith("seen: mean skill +0.0300 [") for line in lines)
    assert any("seen: ahead of the rival on 1 of 2; " in line for line in lines)
    assert any("unseen: ahead of the rival on 0 of 1; " in line for line in lines)


def test_without_a_market_left_out_there_is_no_word_of_any():
    seen = RESULTS[:2]
    means = MarketMeans.of(seen, BOOTSTRAP)
    assert means.unseen is None
    assert "unseen" not in format_markets(seen, means, is_pool=True)


def test_what_the_networks_add_is_said_where_a_model_has_more_than_its_network():
    assert not any("add" in line for line in lines_of(RESULTS))
    both = [result("AAA", True, 0.96, 0.98, 0.97), result("BBB", False, 0.98, 0.97, 0.98)]
    means = MarketMeans.of([*both, RESULTS[1]], BOOTSTRAP)
    assert means.network_adds is not None
    assert means.network_adds.value == pytest.approx((0.01 + 0) / 2)
    assert means.network_adds.n_models == 2
    [line] = [line for line in lines_of([*both, RESULTS[1]]) if " add" in line]
    assert line.startswith("its network adds +0.0050 [")
    [line] = [line for line in lines_of(both, is_pool=False) if " add" in line]
    assert line.startswith("their networks add +0.0050 [")
    assert "model=average" not in line


def test_a_network_without_which_the_others_are_surely_better_is_told_with_what_to_do():
    both = [result("AAA", True, 0.96, 0.98, 0.95), result("BBB", False, 0.98, 0.99, 0.96)]
    [line] = [line for line in lines_of(both) if " add" in line]
    assert line.startswith("its network adds -0.0150 [")
    assert line.endswith("without it: better alone, by model=average, or model=NAME of one part")


def lines_of(results: list[MarketResult], is_pool: bool = True) -> list[str]:
    means = MarketMeans.of(results, BOOTSTRAP)
    return format_markets(results, means, is_pool).split("\n")


def test_too_few_rows_are_said():
    few = [replace(RESULTS[0], lower=None, upper=None), RESULTS[1]]
    assert "+0.0400 [too few rows]" in format_markets(few, MarketMeans.of(few, BOOTSTRAP), True)


def as_json(**changes) -> Any:
    return json.loads(json_codec.dumps(RESULTS[0])) | changes


def test_a_result_is_read_as_it_was_written():
    assert json_codec.decode(MarketResult, as_json()) == RESULTS[0]
    assert json_codec.decode(MarketResult, as_json(lower=None, upper=None)).lower is None


@pytest.mark.parametrize(
    "changes",
    [
        {"skill": "0.1"},
        {"skill": 10**400},
        {"lower": []},
        {"verdict": 5},
        {"reason": "\x1b[2J"},
        {"version": "\ud800"},
        {"is_seen": 1},
        {"unknown": 1},
        {"rival": "\n"},
        {"p_value": 2.0},
        {"lead": 0.1},
        {"daily": 5},
        {"daily": asdict(RESULTS[0].daily) | {"model": ["x"] * N_DAYS}},
        {"daily": asdict(RESULTS[0].daily) | {"days": [1] * N_DAYS}},
        {"daily": asdict(RESULTS[0].daily) | {"without_network": [1.0]}},
    ],
)
def test_a_result_that_no_training_wrote_is_refused(changes):
    with pytest.raises(
        ValueError,
        match=r"Expected|out of range|unexpected key|cannot be printed|columns|not between",
    ):
        json_codec.decode(MarketResult, as_json(**changes))


def test_the_logs_of_a_run_elsewhere_lie_in_its_own_folder(tmp_path):
    outputs = tmp_path / "outputs"
    assert log_folder(outputs / "BTCUSDT" / "1h" / "run", outputs) == outputs
    assert log_folder(Path("/run1"), outputs) == Path("/run1")
    assert log_folder(tmp_path / "a" / "b" / "run1", outputs) == tmp_path / "a" / "b" / "run1"
