"""Alerts: what makes one, that each is noted once, and how it is sent."""

import logging

import pytest
from alert_receiver import receiving
from exported_models import export, make_dataset, random_network
from small_servers import M15, Market, bring_up_to_date, exchange_bars, make_server

from percoin import whole_file
from percoin.errors import ConfigError, FetchError
from percoin.registry.layout import MarketFolder
from percoin.registry.publish import served_id
from percoin.registry.revision import demote
from percoin.serve import make_alerts, read_settings
from percoin.serving import alert_book
from percoin.serving.alert_book import AlertBook
from percoin.serving.alerting import ALERTS_FILE, AlertSettings
from percoin.serving.alerts import AlertKind
from percoin.serving.receivers import Sender, message, webhook
from percoin.types import Signal

SECRET = "token-nobody-may-see"
BARS = exchange_bars(1300)
# It looks for a module of Python that is on its way out.
APPRISE = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")


class Watched:
    """A server of this process, and what a look at it finds."""

    def __init__(self, folder, kinds=frozenset(AlertKind)) -> None:
        self.folder = folder
        self.market = Market(BARS, n_closed=1280)
        settings = AlertSettings({"webhook": lambda alerts: ""}, folder, kinds)
        self.server = make_server(folder / "models", self.market, ("BTCUSDT",), alerts=settings)
        self.book = AlertBook(folder / ALERTS_FILE, ["webhook"])

    def serve(self, signal: Signal) -> None:
        export(self.folder / "models", random_network(signal), make_dataset(BARS.slice(0, 1250)))

    def look(self) -> list[str]:
        """The kinds of the alerts of one look."""
        bring_up_to_date(self.server)
        n_found = self.server.alerting.look(self.book)
        waiting = self.book.waiting("webhook")
        return [alert.kind for alert in waiting[len(waiting) - n_found :]]


@pytest.fixture
def watched(tmp_path) -> Watched:
    found = Watched(tmp_path)
    found.serve(Signal.LONG)
    return found


def test_a_first_signal_is_no_change_and_another_one_is_told_once(watched):
    assert watched.look() == []
    watched.serve(Signal.SHORT)
    assert watched.look() == ["signal_changed"]
    assert watched.look() == []

    [alert] = watched.book.waiting("webhook")
    assert alert.text.startswith("BTCUSDT 15m: SHORT, was LONG, confidence ")
    assert (alert.details["before"], alert.details["pred"]) == ("LONG", "SHORT")
    assert alert.details["ts"] == BARS.close_time(1279).isoformat()


def test_what_was_seen_is_seen_by_the_next_process(watched, tmp_path):
    watched.look()
    watched.serve(Signal.SHORT)
    next_process = Watched(tmp_path)

    assert next_process.look() == ["signal_changed"]
    assert Watched(tmp_path).look() == []
    assert len(Watched(tmp_path).book.waiting("webhook")) == 1


def test_a_demoted_model_is_told_with_the_reason(watched, tmp_path):
    watched.look()
    models = tmp_path / "models"
    served = served_id(MarketFolder(models, "BTCUSDT", M15))
    demote(models, "BTCUSDT", M15, served, "its live skill is gone")

    assert watched.look() == ["signal_changed", "model_demoted"]
    assert watched.look() == []
    demoted = watched.book.waiting("webhook")[-1]
    assert demoted.text == "BTCUSDT 15m: its model is not accepted any more: its live skill is gone"


def test_bars_are_told_stale_once_until_they_have_come_again(watched):
    assert watched.look() == []
    watched.market.failure = FetchError("BTCUSDT", M15, "no answer", "wait")
    watched.market.pass_time(minutes=31)
    # On bars that old no model answers.
    assert watched.look() == ["signal_changed", "bars_stale"]
    watched.market.pass_time(hours=1)
    assert watched.look() == []

    watched.market.failure = None
    watched.market.pass_time(minutes=6)
    assert watched.look() == ["signal_changed"]
    watched.market.failure = FetchError("BTCUSDT", M15, "no answer", "wait")
    watched.market.pass_time(minutes=31)
    assert "bars_stale" in watched.look()


def test_bars_that_were_stale_before_a_restart_are_not_told_again(watched, tmp_path):
    watched.look()
    watched.market.failure = FetchError("BTCUSDT", M15, "no answer", "wait")
    watched.market.pass_time(minutes=31)
    assert "bars_stale" in watched.look()

    restarted = Watched(tmp_path)
    restarted.market.pass_time(minutes=31)
    restarted.market.held_back = 2
    # Before the bars have come.
    assert restarted.server.alerting.look(restarted.book) == 0
    assert restarted.look() == []


def test_bars_that_never_came_are_stale_too(watched):
    watched.market.failure = FetchError("BTCUSDT", M15, "no answer", "wait")
    assert watched.look() == []
    watched.market.pass_time(minutes=31)

    assert watched.look() == ["bars_stale"]
    assert watched.book.waiting("webhook")[0].text == "BTCUSDT 15m: no bar has come yet"


def test_only_what_is_wanted_is_told(tmp_path):
    watched = Watched(tmp_path, frozenset({AlertKind.BARS_STALE}))
    watched.serve(Signal.LONG)
    watched.look()
    watched.serve(Signal.SHORT)

    assert watched.look() == []


def test_a_look_that_cannot_be_written_is_made_again(watched, monkeypatch):
    watched.look()
    watched.serve(Signal.SHORT)
    bring_up_to_date(watched.server)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", "alerts.json")

    with monkeypatch.context() as patched:
        patched.setattr(alert_book, "write_whole", full)
        with pytest.raises(OSError, match="No space"):
            watched.server.alerting.look(watched.book)
        assert watched.book.waiting("webhook") == ()
    assert alert_book.write_whole is whole_file.write_whole
    assert watched.look() == ["signal_changed"]


def test_a_broken_file_begins_anew(tmp_path, caplog):
    (tmp_path / ALERTS_FILE).write_text('{"seen": 3}')

    assert AlertBook(tmp_path / ALERTS_FILE, ["webhook"]).waiting("webhook") == ()
    assert "alerts.json is broken and begins anew" in caplog.text


def test_the_oldest_go_if_a_receiver_takes_none_for_long(watched, monkeypatch):
    monkeypatch.setattr(alert_book, "_MOST_WAITING", 2)
    watched.look()
    for signal in (Signal.SHORT, Signal.LONG, Signal.SHORT):
        watched.serve(signal)
        watched.look()

    told = [alert.details["pred"] for alert in watched.book.waiting("webhook")]
    assert told == ["LONG", "SHORT"]


def some_alerts(watched: Watched):
    watched.look()
    watched.serve(Signal.SHORT)
    watched.look()
    return watched.book.waiting("webhook")


@pytest.mark.parametrize(
    ("status", "problem"), [(200, ""), (204, ""), (302, "status 302"), (500, "status 500")]
)
def test_a_webhook_takes_with_a_status_of_2xx_alone(watched, status, problem):
    alerts = some_alerts(watched)
    with receiving() as receiver:
        receiver.status = status
        assert webhook(f"{receiver.url}/hook/{SECRET}", 5)(alerts) == problem
        assert receiver.n_requests == 1
        assert len(receiver.alerts) == (0 if problem else 1)


def test_a_webhook_that_does_not_answer_is_given_up_without_its_address(watched, caplog):
    alerts = some_alerts(watched)
    with receiving() as receiver:
        receiver.status = 0
        assert webhook(f"{receiver.url}/hook/{SECRET}", 0.2)(alerts) == "ReadTimeout"
    assert webhook(f"{receiver.url}/hook/{SECRET}", 0.2)(alerts) == "ConnectionError"
    assert SECRET not in caplog.text


def test_a_webhook_with_broken_headers_does_not_bring_its_address_into_the_log(watched, caplog):
    alerts = some_alerts(watched)
    with receiving() as receiver:
        receiver.is_garbled = True
        assert webhook(f"{receiver.url}/hook/{SECRET}", 5)(alerts) == ""
    assert SECRET not in caplog.text


@APPRISE
def test_a_message_goes_through_apprise(watched, caplog):
    pytest.importorskip("apprise")
    alerts = some_alerts(watched)
    with receiving() as receiver:
        send = message(f"{receiver.url.replace('http', 'json')}/{SECRET}")
        assert send(alerts) == ""
        receiver.status = 500
        assert send(alerts) == "not delivered"
    assert send(alerts) == "not delivered"
    [taken] = receiver.messages
    assert taken["title"] == "percoin: 1 alert"
    assert taken["message"] == alerts[0].text
    assert SECRET not in caplog.text


def test_a_sender_tries_again_after_pauses_that_double_and_sends_each_once(watched, caplog):
    caplog.set_level(logging.INFO)
    some_alerts(watched)
    calls, events = [], []

    def send(alerts) -> str:
        calls.append([alert.id for alert in alerts])
        return "status 500" if len(calls) < 4 else ""

    sender = Sender("webhook", send, watched.book, 0.01, 0.02, lambda *event: events.append(event))
    while watched.book.waiting("webhook"):
        sender._stopped.wait(0.005)
    sender.stop()

    assert calls == [calls[0]] * 4
    assert events == [("failed", 1)] * 3 + [("sent", 1)]
    assert caplog.text.count("ALERTS to webhook failed: status 500; 1 wait") == 1
    assert "ALERTS are sent again to webhook" in caplog.text
    assert AlertBook(watched.folder / ALERTS_FILE, ["webhook"]).waiting("webhook") == ()


@APPRISE
@pytest.mark.parametrize(
    "environment",
    [
        {"PERCOIN_ALERT_WEBHOOK": SECRET},
        {"PERCOIN_ALERT_WEBHOOK": f"https://{SECRET}:no-port/"},
        {"PERCOIN_ALERT_WEBHOOK": f"ftp://host/{SECRET}"},
        {"PERCOIN_ALERT_MESSAGES": f"nonsense://{SECRET}"},
    ],
)
def test_a_wrong_address_is_refused_without_being_shown(environment, caplog):
    pytest.importorskip("apprise")
    with pytest.raises(ConfigError, match="PERCOIN_ALERT_") as refused:
        make_alerts(read_settings([]), environment)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert SECRET not in caplog.text


def test_without_an_address_nothing_is_looked_for():
    assert make_alerts(read_settings([]), {}) is None


def test_unknown_alerts_are_refused_by_name():
    with pytest.raises(ConfigError, match="'rain' is none of signal_changed, model_demoted"):
        read_settings(["alerts.tell=[rain]"])
