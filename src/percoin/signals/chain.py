"""The chain of sources: the first that has an answer gives it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from percoin.bars.schema import Bars, is_simulated
from percoin.errors import InvalidArtifactError, ModelNotFoundError, NotEnoughBarsError
from percoin.inference import Predictor
from percoin.registry.manifest import Verdict
from percoin.types import Passed, Prediction, Signal, Source

log = logging.getLogger(__name__)


class SignalSource(Protocol):
    """Something that may have an answer for a market."""

    def answer(self, bars: Bars) -> Prediction | Passed:
        """Answer for the newest bar, or say why not."""
        ...


class ModelSource:
    """The market's own model.

    Args:
        predictor: Loads and asks the models.
        enabled: False passes every market on.
        min_confidence: A signal less probable than this is passed on.
        require_accepted: Pass on models that the gate did not accept.
    """

    def __init__(
        self,
        predictor: Predictor,
        enabled: bool = True,
        min_confidence: float = 0.0,
        require_accepted: bool = True,
    ) -> None:
        self._predictor = predictor
        self._enabled = enabled
        self._min_confidence = min_confidence
        self._require_accepted = require_accepted

    def answer(self, bars: Bars) -> Prediction | Passed:
        """Answer for the newest bar, or say why the model has none."""
        if not self._enabled:
            return self._pass("ml_disabled", "models are switched off: use_ml=false")
        try:
            manifest = self._predictor.model(bars.symbol, bars.timeframe).manifest
            gate = manifest.gate
            if self._require_accepted and gate.verdict is not Verdict.ACCEPTED:
                reasons = "; ".join(gate.reasons)
                hint = "require_accepted=false asks it all the same"
                return self._pass(f"model_{gate.verdict.value}", f"{reasons} ({hint})")
            trained_on = manifest.bars.origin
            if is_simulated(trained_on) != is_simulated(bars.origin):
                detail = f"the model learnt from {trained_on!r}, the bars are {bars.origin!r}"
                return self._pass("other_data", detail)
            prediction = self._predictor.predict(bars)
        except ModelNotFoundError as error:
            return self._pass("model_missing", str(error))
        except InvalidArtifactError as error:
            return self._pass("model_invalid", str(error))
        except NotEnoughBarsError as error:
            return self._pass("insufficient_data", str(error))
        if prediction.confidence < self._min_confidence:
            detail = f"{prediction.confidence:.3f} is below {self._min_confidence:.3f}"
            return self._pass("low_confidence", detail)
        return prediction

    def _pass(self, reason: str, detail: str) -> Passed:
        return Passed(Source.MODEL, reason, detail)


class HoldSource:
    """Always answers, and always the same: do nothing."""

    def answer(self, bars: Bars) -> Prediction:
        """NO_TRADE without a claim."""
        return Prediction(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            signal=Signal.NO_TRADE,
            confidence=0.0,
            probabilities=None,
            source=Source.HOLD,
            model_version=None,
            ts=bars.close_time().to_pydatetime(),
        )


def ask(sources: Sequence[SignalSource], bars: Bars) -> Prediction:
    """Ask the sources in order; log who answered and why the others did not.

    Args:
        sources: The last one must always have an answer.
        bars: Closed bars of one market.
    """
    passed: list[Passed] = []
    for source in sources:
        answer = source.answer(bars)
        if isinstance(answer, Prediction):
            _log_prediction(answer)
            return replace(answer, passed=tuple(passed))
        log.info("FALLBACK %s reason=%s", bars.symbol, answer.reason)
        passed.append(answer)
    raise ValueError("the last source of a chain must always have an answer")


def _log_prediction(prediction: Prediction) -> None:
    log.info(
        "PREDICT %s tf=%s pred=%s conf=%.2f source=%s",
        prediction.symbol,
        prediction.timeframe.value,
        prediction.signal.name,
        prediction.confidence,
        prediction.source.value,
    )
