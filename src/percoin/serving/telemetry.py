"""Counters and timings for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from percoin.monitoring.scoreboard import MoveScore, Standing
from percoin.types import Signal, Source, Timeframe


@dataclass(frozen=True)
class WatchedMarket:
    """What one market's newest answer says.

    Attributes:
        symbol: Market.
        timeframe: Bar length.
        age_secs: Since the close of the bar behind the answer.
        answer: The answer as a JSON object.
        standing: Live track record of whoever gave it; None without one.
    """

    symbol: str
    timeframe: Timeframe
    age_secs: float
    answer: Mapping[str, object]
    standing: Standing | None = None


States = Callable[[], Iterable[WatchedMarket]]

# SHORT is -1, so that a line above or below 0 shows the way.
_SIGNALS = {signal.name: float(signal - Signal.NO_TRADE) for signal in Signal}

RECORD_EVENTS = ("written", "resolved", "failed", "dropped")
LOAD_OUTCOMES = ("ok", "failed")
ALERT_EVENTS = ("raised", "sent", "failed", "dropped")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# Other methods count as "other", so that invented names make no new time series.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Telemetry:
    """All metrics of one server.

    Args:
        timeframes: Of the bars that it loads.
    """

    def __init__(self, timeframes: Iterable[Timeframe] = ()) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._requests = Counter(
            "percoin_http_requests",
            "Requests",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "percoin_http_request_seconds",
            "Time to the end of the response",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._answers = Counter(
            "percoin_answers", "Answers made, by source", ["source"], registry=self._registry
        )
        self._loads = Counter(
            "percoin_bar_loads",
            "Requests for bars",
            ["tf", "outcome"],
            registry=self._registry,
        )
        self._record = Counter(
            "percoin_record", "Predictions of the track record", ["event"], registry=self._registry
        )
        self._alerts = Counter("percoin_alerts", "Alerts", ["event"], registry=self._registry)
        # From 0 on: Prometheus sees no increase in a counter's first value.
        for timeframe in timeframes:
            for outcome in LOAD_OUTCOMES:
                self._loads.labels(timeframe.value, outcome)
        for event in ALERT_EVENTS:
            self._alerts.labels(event)
        for event in RECORD_EVENTS:
            self._record.labels(event)
        for source in Source:
            self._answers.labels(source.value)

    def watch_markets(self, states: States) -> None:
        """Report what every market's answer says; ``states`` is called at each scrape."""
        self._registry.register(_MarketCollector(states))

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request.

        Args:
            route: Route template, never the requested path.
            method: HTTP method.
            status: HTTP status of the response.
            seconds: Time from the request to the end of the response.
        """
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_answer(self, source: Source) -> None:
        """Count one new answer."""
        self._answers.labels(source.value).inc()

    def count_record(self, event: str, count: int) -> None:
        """Add ``count`` to an event of the track record; see ``RECORD_EVENTS``."""
        self._record.labels(event).inc(count)

    def count_alerts(self, event: str, count: int) -> None:
        """Add ``count`` to an event of the alerts; see ``ALERT_EVENTS``."""
        self._alerts.labels(event).inc(count)

    def count_load(self, timeframe: Timeframe, failed: bool) -> None:
        """Count one try to load bars."""
        self._loads.labels(timeframe.value, "failed" if failed else "ok").inc()

    def exposition(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


class _MarketCollector(Collector):
    def __init__(self, states: States) -> None:
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        market = ["symbol", "tf"]
        age = GaugeMetricFamily(
            "percoin_bar_age_seconds",
            "Since the newest bar closed that was answered on",
            labels=market,
        )
        signal = GaugeMetricFamily(
            "percoin_signal", "SHORT is -1, NO_TRADE 0, LONG 1", labels=[*market, "source"]
        )
        confidence = GaugeMetricFamily(
            "percoin_confidence", "Confidence of the answer, from 0 to 1", labels=market
        )
        move = GaugeMetricFamily(
            "percoin_expected_move_percent",
            "Forecast standard deviation of the return over the horizon",
            labels=market,
        )
        verdict = GaugeMetricFamily(
            "percoin_verdict",
            "1 for what the source that answers was found to be worth",
            labels=[*market, "verdict"],
        )
        skill = [
            GaugeMetricFamily(f"percoin_live_skill{end}", text, labels=[*market, "source"])
            for end, text in (
                ("", "Share of the log-loss of the ruler that live answers removed"),
                ("_lower", "Lower end of its 95 % interval"),
                ("_upper", "Upper end of its 95 % interval"),
            )
        ]
        coverage = GaugeMetricFamily(
            "percoin_band_coverage",
            "Share of prices within the expected move's band, live",
            labels=[*market, "level"],
        )
        loss = GaugeMetricFamily(
            "percoin_expected_move_qlike",
            "Mean loss of the expected move's variances (QLIKE), live; 0 is the best",
            labels=market,
        )
        for state in self._states():
            named, answer = [state.symbol, state.timeframe.value], state.answer
            age.add_metric(named, state.age_secs)
            signal.add_metric([*named, str(answer["source"])], _SIGNALS[str(answer["pred"])])
            for family, value in (
                (confidence, answer["confidence"]),
                (move, answer["expected_move"]),
            ):
                if isinstance(value, float):
                    family.add_metric(named, value)
            if answer["verdict"] is not None:
                verdict.add_metric([*named, str(answer["verdict"])], 1.0)
            standing = state.standing
            if standing is not None and (live := standing.skill) is not None:
                for family, value in zip(skill, (live.value, live.lower, live.upper), strict=True):
                    family.add_metric([*named, standing.source], value)
            if standing is not None and standing.move is not None:
                _add_move(standing.move, named, loss, coverage)
        yield from (age, signal, confidence, move, verdict, *skill, coverage, loss)


def _add_move(
    score: MoveScore, named: list[str], loss: GaugeMetricFamily, coverage: GaugeMetricFamily
) -> None:
    loss.add_metric(named, score.qlike.value)
    for level, share in score.coverage.items():
        coverage.add_metric([*named, level], share.value)
