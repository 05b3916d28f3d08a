"""The command behind ``predict.py``: bars of one market to one answer."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from percoin.assembly import NEWEST_BARS, bar_source, find_min_confidence, newest_bars
from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.cli.overrides import source_words
from percoin.commands import folder_words
from percoin.config import OutputFormat, PredictConfig
from percoin.errors import RegistryError
from percoin.inference import Backend, Predictor
from percoin.json_codec import one_line
from percoin.printable import printable
from percoin.signals.chain import ask, build_chain
from percoin.signals.market import SourcedBars
from percoin.signals.model import ModelSource
from percoin.signals.response import to_json
from percoin.signals.worth import WorthFiles, measure_command, worth_text
from percoin.types import CLASS_NAMES, UNJUDGED, Prediction, Source, Worth


def answer(settings: PredictConfig) -> None:
    """Ask the chain about the newest bar and print its answer.

    The answer goes to stdout, the log lines go to stderr.

    Raises:
        DataError: There are no bars to answer for.
        ConfigError: The symbol or the device is none, or the predictor's library missing.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    backend = Backend(settings.predictor)
    predictor = Predictor(Path(settings.models_dir), settings.device, backend)
    store = BarStore(Path(settings.data_dir) / "bars")
    source = bar_source(settings.source, store, _needed_bars(settings, predictor))
    bars = source.load(settings.symbol, settings.tf.timeframe)
    now = datetime.now(UTC)
    min_confidence = find_min_confidence(settings.min_confidence, Path(settings.models_dir))
    bars_from = [*source_words(settings.source), *folder_words(data_dir=settings.data_dir)]
    model = ModelSource(
        predictor, settings.use_ml, min_confidence, settings.require_accepted, bars_from
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
        print(to_text(prediction, bars, now))


def _needed_bars(settings: PredictConfig, predictor: Predictor) -> int:
    """How many bars the market's model looks at; those of a usual one where there is none."""
    try:
        model = predictor.model(settings.symbol, settings.tf.timeframe)
    except RegistryError:
        # The chain asks for it again, and says why there is none.
        return NEWEST_BARS
    return newest_bars(model.manifest.lookback)


def to_text(prediction: Prediction, bars: Bars, now: datetime) -> str:
    """The prediction for people: the answer, what it rests on, and why others passed."""
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
    if prediction.detail:
        lines.append(f"because: {prediction.detail}")
    if prediction.worth is not None:
        lines.append(f"judged: {_judged(prediction)}")
    lines += [
        f"passed: {passed.source.value} ({passed.reason}): {passed.detail}"
        for passed in prediction.passed
    ]
    # Reasons come from manifests, bars from anywhere.
    return "\n".join(map(printable, lines))


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


def _judged(prediction: Prediction) -> str:
    """What the source that answered is worth here, or how to find out."""
    worth = prediction.worth or Worth()
    if worth.verdict == UNJUDGED:
        measure = measure_command(prediction.symbol, prediction.timeframe)
        return f"{UNJUDGED}; {measure} says what this source is worth here"
    return worth_text(worth)


def _price(value: float) -> str:
    """Eight digits, as exchanges show them, and never an exponent."""
    return np.format_float_positional(value, precision=8, fractional=False, trim="-")


def _age(age: timedelta, bars: Bars) -> str:
    """Say so when a newer bar must have closed since."""
    if age < bars.timeframe.timedelta:
        return ""
    days = age / timedelta(days=1)
    return (
        f" ({days:.0f} days ago)" if days >= 2 else f" ({age / timedelta(hours=1):.1f} hours ago)"
    )
