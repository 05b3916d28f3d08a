"""The first source: the market's own model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from percoin.bars.schema import Bars, is_simulated
from percoin.bars.tick import newest_tick
from percoin.commands import command
from percoin.errors import (
    BarsNotFoundError,
    ConfigError,
    DataError,
    InvalidArtifactError,
    ModelNotFoundError,
    NotEnoughBarsError,
    RegistryError,
)
from percoin.features.levels import LevelUnit, levels_at
from percoin.inference import Predictor, ServedModel
from percoin.registry.judged import judged_hit_rate, judged_levels, known_threshold
from percoin.registry.manifest import Manifest, StoredVerdict
from percoin.signals.protocol import MarketBars
from percoin.types import (
    NO_TRADES,
    ExpectedMove,
    Levels,
    Passed,
    Prediction,
    Signal,
    Source,
    Timeframe,
    Worth,
    check_symbol,
)

log = logging.getLogger(__name__)


class ModelSource:
    """The market's own model as a source.

    Args:
        predictor: Loads and asks the models.
        enabled: False gives no answer for any market.
        min_confidence: Minimum probability of a signal; below it there is no answer. A
            function returns the minimum for LONG and SHORT from the manifest of the model;
            NO_TRADE then needs no minimum, as in a backtest.
        require_accepted: Give no answer from models that the gate did not accept.
        bars_from: Command-line words that choose the source of the bars; the advice to train
            a missing model repeats them.
        levels: Unit of stop and targets. In the unit of the expected move there are none if that
            is not known.
    """

    def __init__(
        self,
        predictor: Predictor,
        enabled: bool = True,
        min_confidence: float | Callable[[Manifest], float] = 0.0,
        require_accepted: bool = True,
        bars_from: Sequence[str] = (),
        levels: LevelUnit = LevelUnit.ATR,
    ) -> None:
        self._predictor = predictor
        self._enabled = enabled
        self._min_confidence = min_confidence
        self._require_accepted = require_accepted
        self._bars_from = bars_from
        self._levels = levels
        self._prepared: dict[tuple[str, Timeframe], tuple[Bars, Prediction]] = {}
        self._worths: dict[tuple[str, Timeframe], tuple[str, Worth]] = {}

    def prepare(self, markets: Sequence[Bars]) -> None:
        """Ask the models of many markets in one batch; each answer is used once.

        A market whose model compares it with others, or would not be asked, is left out.

        Args:
            markets: Closed bars; ``answer`` is then asked about the very same objects.
        """
        self._prepared = {}
        if self._enabled:
            self._predictor.preload((bars.symbol, bars.timeframe) for bars in markets)
        asked = [bars for bars in markets if self._is_asked(bars)]
        for bars, said in zip(asked, self._predictor.predict_closed(asked), strict=True):
            if isinstance(said, Prediction):
                self._prepared[bars.symbol, bars.timeframe] = (bars, said)

    def _is_asked(self, bars: Bars) -> bool:
        if not self._enabled:
            return False
        try:
            manifest = self._predictor.model(bars.symbol, bars.timeframe).manifest
        except (ConfigError, RegistryError):
            return False
        is_accepted = manifest.gate.verdict is StoredVerdict.ACCEPTED
        is_alike = is_simulated(manifest.bars.origin) == is_simulated(bars.origin)
        return (is_accepted or not self._require_accepted) and is_alike and not manifest.references

    def _predict(self, model: ServedModel, market: MarketBars) -> Prediction:
        bars, manifest = market.asked, model.manifest
        known = self._prepared.pop((bars.symbol, bars.timeframe), None)
        if known and known[0] is bars and known[1].version_id == manifest.version_id:
            return known[1]
        return model.predict(market.beside(manifest.references))

    def answer(self, market: MarketBars) -> Prediction | Passed:
        """Answer for the newest bar, or say why the model has no answer."""
        bars = market.asked
        if not self._enabled:
            return self._pass("ml_disabled", "models are switched off: use_ml=false")
        try:
            check_symbol(bars.symbol)
        except ConfigError as error:
            return self._pass("model_missing", str(error))
        try:
            # Load the model once: another version may be served before the prediction is made.
            model = self._predictor.model(bars.symbol, bars.timeframe)
            manifest, gate = model.manifest, model.manifest.gate
            trained_on = manifest.bars.origin
            is_other = is_simulated(trained_on) != is_simulated(bars.origin)
            if self._require_accepted and gate.verdict is not StoredVerdict.ACCEPTED:
                reasons = "; ".join(gate.reasons)
                hint = "require_accepted=false asks it anyway"
                return self._pass(
                    f"model_{gate.verdict.value}",
                    f"{reasons} ({hint})",
                    None if is_other else _move_of(model, market),
                )
            if is_other:
                detail = f"the model learnt from {trained_on!r}, the bars are {bars.origin!r}"
                return self._pass("other_data", detail)
            prediction = self._predict(model, market)
            minimum = self._min_confidence
            if callable(minimum):
                of_direction = minimum(manifest)
                minimum = 0.0 if prediction.signal is Signal.NO_TRADE else of_direction
                if minimum >= NO_TRADES:
                    detail = "no confidence has earned anything on validation rows: no trades"
                    return self._pass("low_confidence", detail, prediction.expected_move)
        except ModelNotFoundError as error:
            # The error text ends with the command that trains a model.
            return self._pass("model_missing", command(str(error), *self._bars_from))
        except InvalidArtifactError as error:
            return self._pass("model_invalid", str(error))
        except (NotEnoughBarsError, BarsNotFoundError) as error:
            return self._pass("insufficient_data", str(error))
        if prediction.confidence < minimum:
            detail = f"{prediction.confidence:.3f} is below {minimum:.3f}"
            return self._pass("low_confidence", detail, prediction.expected_move)
        if self._levels is LevelUnit.BANDS and not prediction.compared_with:
            prediction = replace(prediction, levels=_in_moves(prediction, bars))
        return replace(prediction, worth=self._worth(manifest))

    def expected_move(self, market: MarketBars) -> ExpectedMove | None:
        """How far the price is expected to move, for an answer of another source.

        None without a model, if it learnt from bars of another kind, or if it cannot tell.
        """
        bars = market.asked
        if not self._enabled:
            return None
        try:
            check_symbol(bars.symbol)
            model = self._predictor.model(bars.symbol, bars.timeframe)
            manifest = model.manifest
            known, said = self._prepared.get((bars.symbol, bars.timeframe), (None, None))
            if said is not None and known is bars and said.version_id == manifest.version_id:
                return said.expected_move
            if is_simulated(manifest.bars.origin) != is_simulated(bars.origin):
                return None
            return _move_of(model, market)
        except (ConfigError, RegistryError, DataError):
            return None

    def _worth(self, manifest: Manifest) -> Worth:
        """Return the result of the model's test; it is read once for each version."""
        market = (manifest.symbol, manifest.timeframe)
        known = self._worths.get(market)
        if known is None or known[0] != manifest.version_id:
            worth = _read_worth(self._predictor.models_dir, manifest, self._levels)
            known = (manifest.version_id, worth)
            self._worths[market] = known
        return known[1]

    def _pass(self, reason: str, detail: str, move: ExpectedMove | None = None) -> Passed:
        return Passed(Source.MODEL, reason, detail, move)


def _move_of(model: ServedModel, market: MarketBars) -> ExpectedMove | None:
    """What a model that is not asked for a signal still says of how far the price moves."""
    references = () if model.range_model is None else model.manifest.references
    try:
        return model.expected_move(market.beside(references))
    except BarsNotFoundError:
        return None


def _in_moves(prediction: Prediction, bars: Bars) -> Levels | None:
    """Stop and targets in units of the expected move; None without one or a direction."""
    move = prediction.expected_move
    if move is None:
        return None
    close = float(bars.column("close")[-1])
    return levels_at(prediction.signal, close, close * move.percent / 100, newest_tick(bars))


def _read_worth(models_dir: Path, manifest: Manifest, levels: LevelUnit) -> Worth:
    bare = Worth(manifest.gate.verdict.value, refit=manifest.refit_text)
    try:
        rate = judged_hit_rate(models_dir, manifest)
        threshold = known_threshold(models_dir, manifest)
        reached = judged_levels(models_dir, manifest, levels)
    except InvalidArtifactError as error:
        # The model itself is intact, so it answers; only the verdict of its test is reported.
        log.warning("%s", error)
        return bare
    bare = replace(bare, threshold=threshold, reached=reached)
    if rate is None and reached is None:
        return bare
    opened = datetime.fromisoformat(manifest.bars.splits["test"].last)
    return replace(
        bare,
        hit_rate=rate,
        n_moves=None if rate is None else rate.n_moves,
        until=opened + manifest.timeframe.timedelta,
    )
