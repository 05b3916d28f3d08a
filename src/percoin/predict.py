"""The command behind ``predict.py``: bars of one market to one answer."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import OutputFormat, PredictConfig, typed
from percoin.inference import Predictor
from percoin.signals.chain import HoldSource, ModelSource, ask
from percoin.types import CLASS_NAMES, Prediction, Source

HELP = """\
Newest closed bar of a market -> SHORT, NO_TRADE or LONG.

  python predict.py symbol=ETHUSDT              bars that data/bars holds
  python predict.py symbol=ETHUSDT tf=1h        tf is ML_DEFAULT_TF if set, else 15m
  python predict.py symbol=ETHUSDT output=json  one JSON object on stdout
  python predict.py symbol=ETHUSDT source=files source.path=FOLDER

Keys (with the environment variable that sets the default):
  symbol           market, for example BTCUSDT
  tf               15m, 1h, 4h, 1d                       (ML_DEFAULT_TF)
  source           store, files, sample, simulated
  output           text or json
  device           cpu, cuda or cuda:N                   (ML_DEVICE)
  use_ml           false passes the model over           (USE_ML_PER_COIN)
  min_confidence   a less probable signal is passed over (MIN_CONFIDENCE)
  data_dir, models_dir
"""


def main(arguments: Sequence[str]) -> None:
    """Compose the settings, ask the chain, print the answer.

    The answer goes to stdout, the log lines go to stderr.
    """
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return
    settings = typed(compose_config("predict", arguments), PredictConfig)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    store = BarStore(Path(settings.data_dir) / "bars")
    bars = settings.source.build(store).load(settings.symbol, settings.tf.timeframe)
    predictor = Predictor(Path(settings.models_dir), settings.device)
    model = ModelSource(predictor, settings.use_ml, settings.min_confidence)
    prediction = ask([model, HoldSource()], bars)
    if settings.output == OutputFormat.JSON:
        print(json.dumps(to_json(prediction, bars)))
    else:
        print(to_text(prediction, bars))


def to_json(prediction: Prediction, bars: Bars) -> dict[str, object]:
    """The prediction as one JSON object; times are ISO 8601 in UTC."""
    content: dict[str, object] = {
        "symbol": prediction.symbol,
        "tf": prediction.timeframe.value,
        "pred": prediction.signal.name,
        "confidence": prediction.confidence,
        "source": prediction.source.value,
        "model_version": prediction.model_version,
        "ts": prediction.ts.isoformat(),
        "close": float(bars.column("close")[-1]),
        "bars": bars.origin,
        "probabilities": None,
        "passed": [
            {"source": rung.source.value, "reason": rung.reason, "detail": rung.detail}
            for rung in prediction.passed
        ],
    }
    if prediction.probabilities is not None:
        content["probabilities"] = dict(zip(CLASS_NAMES, prediction.probabilities, strict=True))
    levels = prediction.levels
    if levels is not None:
        content |= {
            "entry_price": levels.entry_price,
            "stop_loss": levels.stop_loss,
            "tp1": levels.tp1,
            "tp2": levels.tp2,
            "tp3": levels.tp3,
        }
    return content


def to_text(prediction: Prediction, bars: Bars, now: datetime | None = None) -> str:
    """The prediction for people: the answer, what it rests on, and why others passed."""
    market = f"{prediction.symbol} {prediction.timeframe.value}"
    close = float(bars.column("close")[-1])
    moment = f"{prediction.ts:%Y-%m-%d %H:%M} UTC"
    age = (now or datetime.now(UTC)) - prediction.ts
    lines = [f"{market}  {_answer(prediction)}  at {close:g}, bar closed {moment}{_age(age, bars)}"]
    levels = prediction.levels
    if levels is not None:
        lines.append(
            f"entry {levels.entry_price:g}  stop {levels.stop_loss:g}  "
            f"targets {levels.tp1:g}, {levels.tp2:g}, {levels.tp3:g}"
        )
    lines += [
        f"passed: {rung.source.value} ({rung.reason}): {rung.detail}" for rung in prediction.passed
    ]
    return "\n".join(lines)


def _answer(prediction: Prediction) -> str:
    if prediction.probabilities is None:
        return f"{prediction.signal.name} ({prediction.source.value}: no source had an answer)"
    shares = ", ".join(
        f"{name} {probability:.2f}"
        for name, probability in zip(CLASS_NAMES, prediction.probabilities, strict=True)
    )
    by = prediction.model_version if prediction.source is Source.MODEL else prediction.source.value
    return f"{prediction.signal.name} {prediction.confidence:.0%} ({shares}; {by})"


def _age(age: timedelta, bars: Bars) -> str:
    """Say so when a newer bar must have closed since."""
    if age < bars.timeframe.timedelta:
        return ""
    days = age / timedelta(days=1)
    return (
        f" ({days:.0f} days ago)" if days >= 2 else f" ({age / timedelta(hours=1):.1f} hours ago)"
    )
