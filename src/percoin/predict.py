"""The command behind ``predict.py``: makes one prediction from the bars of one market."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from percoin.assembly import NEWEST_BARS, bar_source, find_min_confidence, newest_bars
from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.cli.overrides import bars_from, source_words
from percoin.config import BinanceConfig, OutputFormat, PredictConfig
from percoin.errors import RegistryError
from percoin.evaluation.level_reach import reached_text
from percoin.features.levels import LevelUnit
from percoin.inference import Predictor
from percoin.json_codec import one_line
from percoin.printable import printable
from percoin.signals.chain import ask, build_chain
from percoin.signals.market import SourcedBars
from percoin.signals.model import ModelSource
from percoin.signals.response import to_json
from percoin.signals.worth import WorthFiles, measure_command, worth_text
from percoin.types import (
    CLASS_NAMES,
    NO_TRADES,
    UNJUDGED,
    ExpectedMove,
    Prediction,
    Signal,
    Source,
    Worth,
)

# A band is no price that anybody trades at.
_BAND_DIGITS = 6


def answer(settings: PredictConfig) -> None:
    """Ask the chain of sources about the newest bar and print the answer.

    The answer goes to stdout, log lines go to stderr.

    Raises:
        DataError: The market has no bars.
        ConfigError: The symbol or the device is invalid, or the predictor's library is missing.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    predictor = Predictor(Path(settings.models_dir), settings.device, settings.backend)
    store = BarStore(Path(settings.data_dir) / "bars")
    source = bar_source(settings.source, store, _needed_bars(settings, predictor))
    bars = source.load(settings.symbol, settings.tf.timeframe)
    now = datetime.now(UTC)
    min_confidence = find_min_confidence(settings.min_confidence, Path(settings.models_dir))
    model = ModelSource(
        predictor,
        settings.use_ml,
        min_confidence,
        settings.require_accepted,
        bars_from(settings.source, settings.data_dir),
        LevelUnit(settings.levels),
    )
    market = SourcedBars(bars, source)
    chain = build_chain(
        [Source.of_option(name) for name in settings.chain],
        model,
        settings.use_pro,
        WorthFiles(Path(settings.data_dir)),
        settings.require_accepted,
    )
    prediction = ask(chain, market, settings.max_age_bars, now)
    if settings.output == OutputFormat.JSON:
        print(one_line(to_json(prediction, bars, now)))
    else:
        print(to_text(prediction, bars, now, _measure_command(settings)))


def _measure_command(settings: PredictConfig) -> str:
    """The command that measures the sources on the bars of these settings, and keeps it."""
    source, data_dir = settings.source, Path(settings.data_dir)
    # What an exchange sent is in the store, where that command looks by itself.
    words = [] if isinstance(source, BinanceConfig) else source_words(source)
    return measure_command(settings.symbol, settings.tf.timeframe, *words, data_dir=data_dir)


def _needed_bars(settings: PredictConfig, predictor: Predictor) -> int:
    """How many bars to load for the market's model; without a model, ``NEWEST_BARS``."""
    try:
        model = predictor.model(settings.symbol, settings.tf.timeframe)
    except RegistryError:
        # The chain loads the model again later and reports the error.
        return NEWEST_BARS
    return newest_bars(model.manifest.bars_to_load)


def to_text(prediction: Prediction, bars: Bars, now: datetime, measure: str) -> str:
    """Write a prediction for people: signal, price levels, reasons, and why other sources passed.

    A source that passes gives no answer.

    Args:
        prediction: Prediction on the newest bar.
        bars: Bars that the prediction was made from.
        now: Time with a zone; the age of the newest bar is counted up to it.
        measure: The command that measures the sources on these bars.
    """
    market = f"{prediction.symbol} {prediction.timeframe.value}"
    close = float(bars.column("close")[-1])
    moment = f"{prediction.ts:%Y-%m-%d %H:%M} UTC"
    age = now - prediction.ts
    lines = [
        f"{market}  {_answer(prediction)}  at {_price(close)}, bar closed {moment}{_age(age, bars)}"
    ]
    levels = prediction.levels
    if levels is not None:
        lines.append(
            f"entry {_price(levels.entry_price)}  stop {_price(levels.stop_loss)}  "
            f"targets {', '.join(map(_price, (levels.tp1, levels.tp2, levels.tp3)))}"
        )
    if prediction.compared_with:
        lines.append(
            f"relative: better (LONG) or worse (SHORT) than the mean of "
            f"{len(prediction.compared_with)} markets, whatever the price does; no levels"
        )
    if prediction.expected_move is not None:
        lines.append(_move(prediction.expected_move))
    lines += _what_to_do(prediction)
    if prediction.detail:
        lines.append(f"because: {prediction.detail}")
    if prediction.worth is not None:
        lines.append(f"judged: {_judged(prediction.worth, measure)}")
    lines += [
        f"passed: {passed.source.value} ({passed.reason}): {passed.detail}"
        for passed in prediction.passed
    ]
    # Text from manifests and bar sources can hold unprintable characters.
    return "\n".join(map(printable, lines))


def _what_to_do(prediction: Prediction) -> list[str]:
    """How often levels were reached, how long the answer stands, and whether to trade it."""
    horizon, valid_until = prediction.horizon_bars, prediction.valid_until
    reached = None if prediction.worth is None else prediction.worth.reached
    lines = []
    if reached is not None and horizon is not None and prediction.levels is not None:
        lines.append(f"levels: {reached_text(reached, horizon)}")
    if valid_until is not None:
        n_bars = "1 bar" if horizon == 1 else f"{horizon} bars"
        version = f"; version {prediction.version_id}" if prediction.version_id else ""
        end = f"{valid_until:%Y-%m-%d %H:%M} UTC ({n_bars})"
        lines.append(f"valid until {end}{_trade(prediction)}{version}")
    return lines


def _trade(prediction: Prediction) -> str:
    """Whether the backtest of the judgement would trade the signal, and why not."""
    threshold = None if prediction.worth is None else prediction.worth.threshold
    if threshold is None or prediction.signal is Signal.NO_TRADE:
        return ""
    if threshold >= NO_TRADES:
        return "; would not be traded: no threshold made a profit on validation rows"
    sure = f"{prediction.confidence:.3f}"
    if prediction.would_trade:
        return f"; would be traded: {sure} reaches the judged threshold {threshold:.3f}"
    return f"; would not be traded: {sure} is below the judged threshold {threshold:.3f}"


def _answer(prediction: Prediction) -> str:
    signal, source = prediction.signal.name, prediction.source
    if source is Source.HOLD:
        return f"{signal} ({source.value}: no source had an answer)"
    if prediction.probabilities is None:
        return f"{signal} ({source.value}, score {prediction.confidence:.2f}, not a probability)"
    shares = ", ".join(
        f"{name} {probability:.2f}"
        for name, probability in zip(CLASS_NAMES, prediction.probabilities, strict=True)
    )
    return f"{signal} {prediction.confidence:.0%} ({shares}; {prediction.model_version})"


def _move(move: ExpectedMove) -> str:
    """How far the price is expected to move, and the bands for it."""
    n_bars = "1 bar" if move.horizon_bars == 1 else f"{move.horizon_bars} bars"
    bands = ", ".join(
        f"{band.level} % {_price(band.lower, _BAND_DIGITS)} to {_price(band.upper, _BAND_DIGITS)}"
        for band in move.bands
    )
    return f"expected move: {move.percent:.2f} % within {n_bars}; bands: {bands}"


def _judged(worth: Worth, measure: str) -> str:
    """The measured skill of the answering source on this market, or the command to measure it."""
    if worth.verdict == UNJUDGED:
        return f"not measured on this market yet; this command does it: {measure}"
    return worth_text(worth)


def _price(value: float, digits: int = 8) -> str:
    """Significant digits without an exponent; eight, as exchanges show prices."""
    return np.format_float_positional(value, precision=digits, fractional=False, trim="-")


def _age(age: timedelta, bars: Bars) -> str:
    """The age in words if a newer bar must have closed since; empty otherwise."""
    if age < bars.timeframe.timedelta:
        return ""
    days = age / timedelta(days=1)
    return (
        f" ({days:.0f} days ago)" if days >= 2 else f" ({age / timedelta(hours=1):.1f} hours ago)"
    )
