"""Pydantic schemas of the responses for OpenAPI; ``percoin.signals.response`` fills them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from percoin.types import Source

Price = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
SignalName = Literal["SHORT", "NO_TRADE", "LONG"]
_REFIT = Field(
    description="Says that the model was fitted again to all rows after its judgement, and which "
    "rows its figures are of; null where it was not"
)


class _Exact(BaseModel):
    """A schema that forbids extra fields."""

    model_config = ConfigDict(extra="forbid")


class PassedSourceSchema(_Exact):
    """A source that was asked first but gave no answer, and why."""

    source: Source
    reason: Annotated[str, Field(description="One word for programs", examples=["stale_data"])]
    detail: Annotated[str, Field(description="One phrase for people")]


class HitRateSchema(_Exact):
    """How often a source's direction was right when a move followed, with its interval."""

    value: Share
    lower: float
    upper: float
    n_moves: Annotated[int, Field(description="Directions that a move followed")]
    until: Annotated[datetime, Field(description="Close of the newest bar measured on, UTC")]


class BandSchema(_Exact):
    """Two prices that the close at the horizon is expected to lie between."""

    lower: Price
    upper: Price


class ShareSchema(_Exact):
    """A share of past signals with its interval."""

    value: Share
    lower: Share
    upper: Share


class LevelsReachedSchema(_Exact):
    """How often the levels of such signals were reached within the horizon, when it was judged."""

    n_signals: Annotated[int, Field(description="LONG and SHORT signals behind the shares")]
    stop_loss: Annotated[
        ShareSchema, Field(description="The stop was reached, whatever was reached before it")
    ]
    tp1: Annotated[
        ShareSchema,
        Field(
            description="The target was reached, and not the stop before it; a bar that touches "
            "both counts for the stop"
        ),
    ]
    tp2: ShareSchema
    tp3: ShareSchema


class PredictionSchema(_Exact):
    """The prediction for one market in one timeframe; price levels only for LONG and SHORT."""

    symbol: str
    tf: str
    pred: SignalName
    confidence: Annotated[
        Share, Field(description="Probability of the signal; without probabilities a score")
    ]
    source: Source
    model_version: str | None
    ts: Annotated[datetime | None, Field(description="Close of the bar it is made on, UTC")]
    age_secs: Annotated[float | None, Field(description="Since then")]
    stale: Annotated[bool, Field(description="Whether a newer bar must have closed since")]
    close: Price | None
    bars: Annotated[str | None, Field(description="Where the bars are from")]
    probabilities: dict[SignalName, Share] | None
    detail: str | None
    expected_move: Annotated[
        float | None,
        Field(description="Forecast standard deviation of the return over the horizon, in percent"),
    ]
    bands: Annotated[
        dict[Literal["50", "80", "95"], BandSchema] | None,
        Field(description="By how many of 100 closes at the horizon are expected to lie within"),
    ]
    bands_at: Annotated[datetime | None, Field(description="Close that the bands are for, UTC")]
    verdict: Annotated[
        str | None,
        Field(
            description="On the source that answered: of a model accepted, rejected or untestable; "
            "of a rule better_than_coin, not_told_from_coin, worse_than_coin or too_few_answers; "
            "unjudged where nothing was measured; null if no source had an answer"
        ),
    ]
    refit: Annotated[str | None, _REFIT]
    hit_rate: HitRateSchema | None
    version_id: Annotated[str | None, Field(description="The saved version that answered")]
    horizon_bars: Annotated[
        int | None, Field(description="Bars after ts that such answers were judged on")
    ]
    valid_until: Annotated[
        datetime | None, Field(description="Close of the last of these bars, UTC")
    ]
    threshold: Annotated[
        Share | None,
        Field(
            description="Minimum confidence that the model's backtest traded with; 1 means no "
            "trades, as no threshold made a profit on validation rows; null where none is known"
        ),
    ]
    would_trade: Annotated[
        bool | None,
        Field(description="Whether that backtest would trade this signal; null without threshold"),
    ]
    levels_reached: Annotated[
        LevelsReachedSchema | None,
        Field(description="Of stop and targets; null without a direction or where not measured"),
    ]
    labels: Annotated[
        str | None,
        Field(description="Label rule that the model's signals mean; null without a model"),
    ]
    compared_with: Annotated[
        list[str] | None,
        Field(
            description="With labels=relative: the markets whose mean the market is compared with. "
            "LONG says that it does better than they do, whatever its price does, and there are "
            "no levels"
        ),
    ]
    passed: list[PassedSourceSchema]
    entry_price: Price | None = None
    stop_loss: float | None = None
    tp1: Price | None = None
    tp2: Price | None = None
    tp3: Price | None = None


class PredictionsSchema(_Exact):
    """The predictions for several markets in one timeframe."""

    tf: str
    now: datetime
    predictions: list[PredictionSchema]


class SummarySchema(_Exact):
    """The predictions for one market in every timeframe."""

    symbol: str
    now: datetime
    predictions: dict[str, PredictionSchema]


class CandlesSchema(_Exact):
    """Bars of one market, oldest first, one list per column; empty before the first load."""

    symbol: str
    tf: str
    open_time: Annotated[list[int], Field(description="Milliseconds since 1970-01-01 UTC")]
    open: list[Price]
    high: list[Price]
    low: list[Price]
    close: list[Price]
    volume: list[Annotated[float, Field(ge=0)]]


class TestedSkillSchema(_Exact):
    """A log-loss skill on the test rows, with its interval."""

    value: float
    lower: float | None
    upper: float | None


class SkillSchema(TestedSkillSchema):
    """A model's skill against the prior, a forecast of the class shares in training."""

    confidence: Annotated[Share, Field(description="Of all intervals")]
    n_rows: int
    best_baseline: Annotated[
        str, Field(description="The rival: the strongest baseline on validation rows")
    ]
    baseline: Annotated[TestedSkillSchema | None, Field(description="Skill of the rival")]
    against_best: Annotated[
        TestedSkillSchema | None, Field(description="Lead over the rival, in nats a row")
    ]
    recent: Annotated[
        TestedSkillSchema | None, Field(description="Skill over the class shares of the last days")
    ] = None


class TrainedOnSchema(_Exact):
    """The bars behind a model."""

    bars: str
    n_bars: int
    first_open_time: datetime
    last_open_time: datetime


class ModelSchema(_Exact):
    """The served model of one market in one timeframe, or why there is none."""

    symbol: str
    tf: str
    status: Literal["served", "missing", "invalid"]
    problem: str | None
    version_id: str | None
    model_version: str | None
    created_at: datetime | None
    verdict: Annotated[str | None, Field(description="Verdict of the gate", examples=["accepted"])]
    reasons: list[str]
    refit: Annotated[str | None, _REFIT]
    skill: Annotated[SkillSchema | None, Field(description="Null where its test is not known")]
    lookback: int | None
    features: str | None
    extra_features: Annotated[list[str], Field(description="Groups of columns beside the 15")]
    label_rule: dict[str, Any] | None
    trained_on: TrainedOnSchema | None


class ModelsSchema(_Exact):
    """The models of all served markets."""

    now: datetime
    models: list[ModelSchema]


class EndsSchema(_Exact):
    """A mean over rows and its 95 % interval."""

    value: float
    lower: float
    upper: float


class ScoredSchema(_Exact):
    """The score of a baseline on the same rows."""

    skill: Annotated[EndsSchema | None, Field(description="Share of the ruler's log-loss removed")]
    hit_rate: Annotated[
        EndsSchema | None,
        Field(description="Of directions that a move followed, those the right way"),
    ]
    n_moves: int


class MoveScoreSchema(_Exact):
    """The track record of the expected moves."""

    n_rows: int
    qlike: Annotated[
        TestedSkillSchema, Field(description="Mean loss of the variances (Patton, 2011); 0 is best")
    ]
    coverage: Annotated[
        dict[Literal["50", "80", "95"], TestedSkillSchema],
        Field(description="Share of prices within each band"),
    ]


class StandingSchema(_Exact):
    """The track record of one model or source on one market."""

    symbol: str
    tf: str
    source: Source
    bars: str
    model_version: str | None
    version_id: str | None
    label_rule: dict[str, Any] | None
    n_written: Annotated[int, Field(description="Before their outcome could be known")]
    n_late: Annotated[int, Field(description="Afterwards: not scored")]
    n_resolved: int
    n_void: Annotated[int, Field(description="A gap in the bars: there is no outcome")]
    too_few: Annotated[str, Field(description="What an interval needs; empty if there is one")]
    skill: EndsSchema | None
    hit_rate: EndsSchema | None
    n_moves: int
    baselines: dict[str, ScoredSchema]
    ruler: Annotated[
        str, Field(description="Of the baselines, the one that skill is measured from")
    ]
    move: Annotated[
        MoveScoreSchema | None, Field(description="Of the expected moves; null without any")
    ]
    since: datetime | None
    until: datetime | None


class ShiftSchema(_Exact):
    """How far the newest values of one feature have moved from the train rows."""

    psi: Annotated[float, Field(description="Population stability index against the train rows")]
    ratio: Annotated[
        float, Field(description="In units of the highest of as many train rows in a row")
    ]


class DriftSchema(_Exact):
    """Feature drift of one market since its model was made."""

    symbol: str
    tf: str
    version_id: str
    worst: Annotated[str | None, Field(description="The feature whose ratio is highest")]
    n_bars: Annotated[
        int, Field(description="Bars since the last one that the model was made from")
    ]
    shifts: Annotated[dict[str, ShiftSchema], Field(description="Of each feature")]
    unknown: Annotated[str, Field(description="Why there is none; empty if there is")]


class ScoreboardSchema(_Exact):
    """The track records of all models and sources in one timeframe."""

    tf: str
    now: datetime
    recording: bool
    standings: list[StandingSchema]
    drift: Annotated[list[DriftSchema], Field(description="Of each market that has a model")]


class PastPredictionSchema(_Exact):
    """One served prediction and its outcome."""

    ts: Annotated[datetime, Field(description="Close of the bar it was made on, UTC")]
    pred: SignalName
    confidence: float
    probabilities: dict[SignalName, Share] | None
    source: Source
    model_version: str | None
    version_id: str | None
    horizon_bars: Annotated[int | None, Field(description="Bars after ts that it is settled by")]
    valid_until: Annotated[datetime | None, Field(description="Close of the last of them, UTC")]
    bars: str
    close: Price
    expected_move: Annotated[
        float | None, Field(description="In percent; null where nothing was said of it")
    ]
    bands: dict[Literal["50", "80", "95"], BandSchema] | None
    is_live: Annotated[bool, Field(description="Written before its outcome could be known")]
    written_at: datetime
    label: Annotated[SignalName | None, Field(description="The right answer; null while open")]
    forward_return: Annotated[float | None, Field(description="Over the label's horizon")]
    void: Annotated[str | None, Field(description="Why there will be no label")]
    resolved_at: datetime | None


class HistorySchema(_Exact):
    """The newest predictions of one market, oldest first."""

    symbol: str
    tf: str
    now: datetime
    recording: bool
    predictions: list[PastPredictionSchema]


class CountsSchema(_Exact):
    """Numbers of markets; a symbol counts once per timeframe."""

    configured: int
    with_bars: int
    stale: int
    failing: int
    frozen: Annotated[
        int, Field(description="Not looked at for a minute: older than what is known by now")
    ]


class TroubleSchema(_Exact):
    """One market with a problem."""

    symbol: str
    tf: str
    problem: str
    renewed: Annotated[
        datetime | None,
        Field(description="When the answer was last made, or found to be still right"),
    ]


class HealthSchema(_Exact):
    """The state of the server."""

    status: Literal["ok", "degraded", "starting"]
    version: str
    uptime_secs: float
    now: datetime
    markets: CountsSchema
    record: Annotated[
        Literal["ok", "failing", "off"], Field(description="Whether predictions are written down")
    ]
    oldest_renewal: Annotated[
        datetime | None,
        Field(description="When the answer that was looked at least recently was looked at"),
    ]
    failing: Annotated[
        list[TroubleSchema] | None,
        Field(description="The first ten; only for those who have the key"),
    ] = None


class ProblemDetailSchema(_Exact):
    """What is wrong with a request."""

    code: Annotated[str, Field(description="One word for programs", examples=["unknown_symbol"])]
    message: Annotated[str, Field(description="One line for people")]


class ProblemSchema(_Exact):
    """The response to every request that fails."""

    error: ProblemDetailSchema
