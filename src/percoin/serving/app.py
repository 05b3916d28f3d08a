"""The HTTP routes of the server; each one only looks up results made in the background."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI, Path, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from percoin import __version__
from percoin.serving import schemas
from percoin.serving.answer_board import AnswerBoard
from percoin.serving.bar_keeper import BarKeeper, Held
from percoin.serving.candles import MAX_CANDLES, CandleTexts
from percoin.serving.drift_watch import DriftWatch
from percoin.serving.guard import HEALTH, TRUSTED, Guard, Limits
from percoin.serving.health import Health
from percoin.serving.offer import Clock, Offer, utc_now
from percoin.serving.page import add_page
from percoin.serving.questions import (
    RefusedError,
    check_parameters,
    check_served,
    read_limit,
    read_symbols,
    read_timeframe,
)
from percoin.serving.recorder import Recorder
from percoin.serving.served_models import ServedModels
from percoin.serving.strict_json import json_response
from percoin.serving.telemetry import Telemetry
from percoin.serving.tracking import add_tracking

_REFUSALS: Mapping[int | str, dict[str, Any]] = {
    "4XX": {"model": schemas.ProblemSchema, "description": "What is wrong with the request"},
    "5XX": {"model": schemas.ProblemSchema, "description": "The server failed"},
}
_DEFAULT_CANDLES = 300
_CODES = {404: "not_found", 405: "method_not_allowed"}
_MESSAGES = {404: "there is nothing at this address", 405: "this address only answers GET"}


def create_app(
    offer: Offer,
    board: AnswerBoard,
    keeper: BarKeeper,
    served: ServedModels,
    health: Health,
    telemetry: Telemetry,
    limits: Limits,
    api_key: str | None,
    hosts: Collection[str],
    clock: Clock = utc_now,
    recorder: Recorder | None = None,
) -> FastAPI:
    """Make the FastAPI application with all routes.

    Args:
        offer: The served markets.
        board: Holds the answers.
        keeper: Holds the bars.
        served: Knows the served models.
        health: Reports the state of the server.
        telemetry: Counts requests.
        limits: Limits per client and per request.
        api_key: See ``Guard``.
        hosts: See ``Guard``.
        clock: Gives the current time.
        recorder: Writes the track record; None if recording is off.
    """
    app = FastAPI(
        title="percoin",
        version=__version__,
        description="One honestly judged signal per crypto market, and who gave it.",
        # FastAPI's own page loads scripts from another host.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=dict(_REFUSALS),
    )
    app.add_middleware(Guard, limits=limits, telemetry=telemetry, api_key=api_key, hosts=hosts)
    app.add_exception_handler(HTTPException, _refuse)
    _add_predictions(app, offer, board, limits, clock)
    _add_bars(app, offer, keeper)
    _add_state(app, served, health, telemetry, clock)
    tf, symbols = _tf_parameter(offer), _symbols_parameter(offer, limits)
    drift_watch = DriftWatch(served, keeper)
    add_tracking(app, offer, keeper, recorder, drift_watch, limits.max_symbols, tf, symbols, clock)
    add_page(app)
    if api_key is not None:
        _document_key(app)
    return app


def _add_predictions(
    app: FastAPI, offer: Offer, board: AnswerBoard, limits: Limits, clock: Clock
) -> None:
    tf = _tf_parameter(offer)
    known_symbol = Path(
        json_schema_extra={"enum": list(offer.symbols)}, description="As the exchange spells it"
    )

    @app.get(
        "/api/predictions",
        response_model=schemas.PredictionsSchema,
        openapi_extra={"parameters": [tf, _symbols_parameter(offer, limits)]},
    )
    async def predictions(request: Request) -> Response:
        """Predictions for several or all markets in one timeframe."""
        asked = check_parameters(request.query_params.multi_items(), ("tf", "symbols"))
        timeframe = read_timeframe(asked, offer)
        symbols = read_symbols(asked, offer, limits.max_symbols)
        answers = ", ".join(board.text(symbol, timeframe) for symbol in symbols)
        return _json(
            f'{{"tf": "{timeframe}", "now": "{clock().isoformat()}", "predictions": [{answers}]}}'
        )

    @app.get(
        "/api/predictions/{symbol}",
        response_model=schemas.PredictionSchema,
        openapi_extra={"parameters": [tf]},
    )
    async def prediction(request: Request, symbol: str = known_symbol) -> Response:
        """The prediction for one market, in the format of ``predict.py output=json``."""
        check_served(symbol, offer)
        asked = check_parameters(request.query_params.multi_items(), ("tf",))
        return _json(board.text(symbol, read_timeframe(asked, offer)))

    @app.get("/api/predictions/{symbol}/summary", response_model=schemas.SummarySchema)
    async def summary(request: Request, symbol: str = known_symbol) -> Response:
        """The predictions for one market in every timeframe."""
        check_served(symbol, offer)
        check_parameters(request.query_params.multi_items(), ())
        answers = ", ".join(f'"{tf}": {board.text(symbol, tf)}' for tf in offer.timeframes)
        return _json(
            f'{{"symbol": "{symbol}", "now": "{clock().isoformat()}", '
            f'"predictions": {{{answers}}}}}'
        )


def _add_bars(app: FastAPI, offer: Offer, keeper: BarKeeper) -> None:
    texts = CandleTexts()
    known_symbol = Path(
        json_schema_extra={"enum": list(offer.symbols)}, description="As the exchange spells it"
    )

    @app.get(
        "/api/bars/{symbol}",
        response_model=schemas.CandlesSchema,
        openapi_extra={"parameters": [_tf_parameter(offer), _limit_parameter()]},
    )
    async def bars(request: Request, symbol: str = known_symbol) -> Response:
        """The newest bars behind the predictions for one market, oldest first."""
        check_served(symbol, offer)
        asked = check_parameters(request.query_params.multi_items(), ("tf", "limit"))
        timeframe = read_timeframe(asked, offer)
        n_wanted = read_limit(asked, _DEFAULT_CANDLES, MAX_CANDLES)
        held = keeper.held(symbol).get(timeframe, Held())
        return _json(texts.text(symbol, timeframe, held.bars, n_wanted))


def _add_state(
    app: FastAPI, served: ServedModels, health: Health, telemetry: Telemetry, clock: Clock
) -> None:
    @app.get("/api/models", response_model=schemas.ModelsSchema)
    async def models(request: Request) -> Response:
        """The served model of each market, and its verdict from the tests before serving."""
        check_parameters(request.query_params.multi_items(), ())
        return json_response({"now": clock().isoformat(), "models": served.contents()})

    @app.get(
        HEALTH,
        response_model=schemas.HealthSchema,
        responses={503: {"model": schemas.HealthSchema}},
    )
    async def healthy(request: Request) -> Response:
        """The state of the server: 503 until the first answers exist, and if all are frozen.

        An answer is frozen if the server has not checked it for more than a minute.
        """
        check_parameters(request.query_params.multi_items(), ())
        content, is_working = health.state(with_details=request.scope[TRUSTED])
        return json_response(content, 200 if is_working else 503)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(request: Request) -> Response:
        """Counters and timings for Prometheus."""
        check_parameters(request.query_params.multi_items(), ())
        return Response(telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")


async def _refuse(_request: Request, error: Exception) -> Response:
    """Answer an unknown address or method in the format of all other refusals."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    raise RefusedError(
        status, _CODES.get(status, "refused"), _MESSAGES.get(status, "the request was refused")
    )


def _tf_parameter(offer: Offer) -> dict[str, Any]:
    return {
        "name": "tf",
        "in": "query",
        "required": False,
        "description": "Length of the bars",
        "schema": {
            "type": "string",
            "enum": [timeframe.value for timeframe in offer.timeframes],
            "default": offer.default_timeframe.value,
        },
    }


def _limit_parameter() -> dict[str, Any]:
    return {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "The newest so many at most",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_CANDLES,
            "default": _DEFAULT_CANDLES,
        },
    }


def _symbols_parameter(offer: Offer, limits: Limits) -> dict[str, Any]:
    one = f"({'|'.join(offer.symbols)})"
    return {
        "name": "symbols",
        "in": "query",
        "required": False,
        "description": f"Which markets, with commas, at most {limits.max_symbols}; all if absent",
        "schema": {
            "type": "string",
            "pattern": f"^{one}(,{one}){{0,{limits.max_symbols - 1}}}$",
            "example": ",".join(offer.symbols[:2]),
        },
    }


def _document_key(app: FastAPI) -> None:
    """Describe in the OpenAPI document how to send the API key."""
    made = app.openapi

    def documented() -> dict[str, Any]:
        document = made()
        document["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        document["security"] = [{"key": []}, {"bearer": []}]
        document["paths"][HEALTH]["get"]["security"] = []
        return document

    app.openapi = documented  # type: ignore[method-assign]
