"""The HTTP routes of the track record: the scoreboard and the history of predictions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Path, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from percoin.bars.schema import is_simulated
from percoin.errors import PercoinError
from percoin.labels import known_horizon
from percoin.monitoring.record import Kept, TrackRecord
from percoin.serving import schemas
from percoin.serving.bar_keeper import BarKeeper
from percoin.serving.drift_watch import DriftWatch
from percoin.serving.offer import Clock, Offer
from percoin.serving.questions import (
    RefusedError,
    check_parameters,
    check_served,
    read_limit,
    read_symbols,
    read_timeframe,
)
from percoin.serving.recorder import Recorder
from percoin.serving.strict_json import dumps, json_response
from percoin.serving.texts import Texts
from percoin.signals.response import bands_to_json
from percoin.types import CLASS_NAMES, Timeframe, horizon_end

MOST_HISTORY = 1000
_DEFAULT_HISTORY = 200
_LIMIT = {
    "name": "limit",
    "in": "query",
    "required": False,
    "description": "At most so many of the newest predictions",
    "schema": {
        "type": "integer",
        "minimum": 1,
        "maximum": MOST_HISTORY,
        "default": _DEFAULT_HISTORY,
    },
}


def add_tracking(
    app: FastAPI,
    offer: Offer,
    keeper: BarKeeper,
    recorder: Recorder | None,
    drift_watch: DriftWatch,
    max_symbols: int,
    tf: dict[str, Any],
    symbols: dict[str, Any],
    clock: Clock,
) -> None:
    """Add the routes; without a recorder they answer ``"recording": false``.

    Predictions on simulated bars and on real ones share the record, never a response: a market
    shows those of the kind of bars that it is served on.

    Args:
        app: The application.
        offer: The served markets.
        keeper: Holds the bars.
        recorder: Writes the predictions; None if recording is off.
        drift_watch: Measures the feature drift.
        max_symbols: Maximum number of symbols in one request.
        tf: OpenAPI description of the parameter ``tf``.
        symbols: OpenAPI description of the parameter ``symbols``.
        clock: Gives the current time.
    """
    _add_scoreboard(app, offer, keeper, recorder, drift_watch, max_symbols, [tf, symbols], clock)
    _add_history(app, offer, keeper, recorder, tf, clock)


def _add_scoreboard(
    app: FastAPI,
    offer: Offer,
    keeper: BarKeeper,
    recorder: Recorder | None,
    drift_watch: DriftWatch,
    max_symbols: int,
    parameters: list[dict[str, Any]],
    clock: Clock,
) -> None:
    @app.get(
        "/api/scoreboard",
        response_model=schemas.ScoreboardSchema,
        openapi_extra={"parameters": parameters},
    )
    async def scoreboard(request: Request) -> Response:
        """The track record of each model and source in one timeframe."""
        asked = check_parameters(request.query_params.multi_items(), ("tf", "symbols"))
        timeframe = read_timeframe(asked, offer)
        chosen = read_symbols(asked, offer, max_symbols)
        content: dict[str, object] = {
            "tf": timeframe.value,
            "now": clock().isoformat(),
            "recording": recorder is not None,
            "standings": [],
            "drift": await run_in_threadpool(drift_watch.contents, chosen, timeframe),
        }
        if recorder is not None:
            try:
                found = await run_in_threadpool(recorder.scoreboard.latest, chosen, timeframe)
            except PercoinError as error:
                raise _unavailable() from error
            content["standings"] = [
                standing.to_json()
                for standing in found
                if is_simulated(standing.bars) == _plays(keeper, standing.symbol, timeframe)
            ]
        return json_response(content)


def _plays(keeper: BarKeeper, symbol: str, timeframe: Timeframe) -> bool:
    """Whether a market is served on simulated bars."""
    bars = keeper.held(symbol)[timeframe].bars
    return bars is not None and is_simulated(bars.origin)


def _add_history(
    app: FastAPI,
    offer: Offer,
    keeper: BarKeeper,
    recorder: Recorder | None,
    tf: dict[str, Any],
    clock: Clock,
) -> None:
    texts = None if recorder is None else HistoryTexts(recorder.record)

    @app.get(
        "/api/history/{symbol}",
        response_model=schemas.HistorySchema,
        openapi_extra={"parameters": [tf, _LIMIT]},
    )
    async def history(
        request: Request,
        symbol: str = Path(
            json_schema_extra={"enum": list(offer.symbols)}, description="As the exchange spells it"
        ),
    ) -> Response:
        """The newest predictions of one market with their outcomes, oldest first."""
        check_served(symbol, offer)
        asked = check_parameters(request.query_params.multi_items(), ("tf", "limit"))
        timeframe = read_timeframe(asked, offer)
        n_newest = read_limit(asked, _DEFAULT_HISTORY, MOST_HISTORY)
        predictions = "[]"
        if texts is not None:
            simulated = _plays(keeper, symbol, timeframe)
            try:
                predictions = await run_in_threadpool(
                    texts.text, symbol, timeframe, n_newest, simulated
                )
            except PercoinError as error:
                raise _unavailable() from error
        before = dumps(
            {
                "symbol": symbol,
                "tf": timeframe.value,
                "now": clock().isoformat(),
                "recording": recorder is not None,
            }
        )
        text = f'{before[:-1]}, "predictions": {predictions}}}'
        return Response(text, media_type="application/json")


class HistoryTexts:
    """Caches the predictions of markets as JSON text; new rows and outcomes make a new text.

    Many requests ask for the same text, and making a long one takes longer than all else.

    Args:
        record: The track record.
    """

    def __init__(self, record: TrackRecord) -> None:
        self._record = record
        self._texts = Texts()

    def text(self, symbol: str, timeframe: Timeframe, n_newest: int, simulated: bool) -> str:
        """A market's newest predictions, oldest first; several threads may call this.

        Raises:
            RecordError: The database cannot be used now.
        """

        def make() -> str:
            rows = self._record.predictions([symbol], timeframe, n_newest, simulated)
            return dumps([_told(row) for row in rows])

        revision = self._record.market_revision(symbol, timeframe)
        return self._texts.text((symbol, timeframe, n_newest, simulated), revision, make)


def _told(kept: Kept) -> dict[str, object]:
    probabilities, move = kept.probabilities, kept.expected_move
    return {
        "ts": _moment(kept.ts),
        "pred": CLASS_NAMES[kept.signal],
        "confidence": kept.confidence,
        "probabilities": None
        if probabilities is None
        else dict(zip(CLASS_NAMES, probabilities, strict=True)),
        "source": kept.source,
        "model_version": kept.model_version or None,
        "version_id": kept.version_id or None,
        **_horizon(kept),
        "bars": kept.bars,
        "close": kept.close,
        "expected_move": None if move is None else move.percent,
        "bands": None if move is None else bands_to_json(move),
        "is_live": kept.is_live,
        "written_at": _moment(kept.written_at),
        "label": None if kept.label is None else CLASS_NAMES[kept.label],
        "forward_return": kept.forward_return,
        "void": kept.void or None,
        "resolved_at": None if kept.resolved_at is None else _moment(kept.resolved_at),
    }


def _horizon(kept: Kept) -> dict[str, object]:
    """How long the prediction was good for, by its label rule; null values without one."""
    horizon = known_horizon(json.loads(kept.label_rule)) if kept.label_rule else None
    if horizon is None:
        return {"horizon_bars": None, "valid_until": None}
    end = horizon_end(datetime.fromtimestamp(kept.ts / 1000, UTC), horizon, kept.tf)
    return {"horizon_bars": horizon, "valid_until": None if end is None else end.isoformat()}


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _unavailable() -> RefusedError:
    # The database's own message goes only to the log: it may name hosts and folders.
    return RefusedError(503, "record_unavailable", "the track record cannot be read now")
