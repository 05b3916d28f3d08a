"""A machine whose clock says the year 9998: everything is stale, and nothing breaks."""

from datetime import UTC, datetime

import pytest
from exported_models import export, make_dataset, random_network
from small_servers import M15, Market, ask, bring_up_to_date, exchange_bars, make_server

from percoin.labels import FixedHorizon
from percoin.monitoring.record import TrackRecord, sqlite_url
from percoin.serving import schemas
from percoin.types import Signal

BARS = exchange_bars(1300)


class StoppedMarket(Market):
    """Hands out all its bars, whatever the time is."""

    def load(self, symbol, timeframe):
        self.n_questions += 1
        return self.bars


@pytest.mark.parametrize(
    "now",
    [
        datetime(9998, 7, 1, 12, 0, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2262, 4, 12, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
    ],
)
def test_a_clock_that_is_far_off_ends_in_no_traceback(tmp_path, now, caplog):
    export(tmp_path / "models", random_network(Signal.LONG), make_dataset(BARS))
    market = StoppedMarket(BARS, n_closed=1300)
    market.now = now
    record = TrackRecord(sqlite_url(tmp_path / "record.sqlite"))
    rules = {M15: FixedHorizon(3, 0.0025)}
    server = make_server(
        tmp_path / "models", market, ("BTCUSDT",), record=record, default_rules=rules
    )
    for _ in range(2):
        bring_up_to_date(server)
    content = ask(server, "/api/predictions/BTCUSDT").json()
    answer = schemas.PredictionSchema.model_validate(content)
    assert answer.ts == BARS.close_time().to_pydatetime()
    is_later = now.year > 2000
    assert answer.stale is is_later
    assert [passed.reason for passed in answer.passed] == ["stale_data"] * is_later
    for path in ("/api/history/BTCUSDT", "/api/scoreboard", "/api/models", "/metrics"):
        assert ask(server, path).status_code == 200, path
    health = ask(server, "/health")
    assert health.status_code == 200
    assert health.json()["record"] == "ok"
    assert [entry for entry in caplog.records if entry.exc_info] == []
    assert "Traceback" not in caplog.text
