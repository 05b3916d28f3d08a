"""What one market has wrong costs that market alone, and it is told by its name."""

import json
import shutil
import threading
from dataclasses import fields, replace
from datetime import UTC, datetime

import numpy as np
import pytest
from exported_models import export, make_dataset, random_network
from small_servers import M15, Market, ask, bring_up_to_date, exchange_bars, make_server

from percoin.errors import FetchError
from percoin.inference import Predictor, ServedModel
from percoin.labels import FixedHorizon
from percoin.monitoring.record import TrackRecord, sqlite_url
from percoin.registry import contents
from percoin.registry.manifest import Manifest, ManifestDraft
from percoin.serving import schemas
from percoin.serving.answer_board import Answer
from percoin.serving.bar_keeper import Held
from percoin.serving.each_market import EachMarket, Pauses
from percoin.signals.chain import ask as ask_chain
from percoin.signals.chain import build_chain
from percoin.signals.market import SourcedBars
from percoin.signals.model import ModelSource
from percoin.signals.response import to_json
from percoin.types import Signal, Source, Timeframe

BARS = exchange_bars()
BTC, ETH = ("BTCUSDT", M15), ("ETHUSDT", M15)
RULES = {M15: FixedHorizon(3, 0.0025)}
SPLIT_PAIR = "binance \ud800spot: BTCUSDT"


@pytest.fixture
def market() -> Market:
    return Market(BARS, n_closed=1290)


@pytest.fixture
def models_dir(tmp_path):
    """Two models that are whole."""
    for symbol in ("BTCUSDT", "ETHUSDT"):
        bars = replace(BARS, symbol=symbol, origin=f"binance spot: {symbol}")
        dataset = make_dataset(bars.slice(0, 1290))
        export(tmp_path / "models", random_network(Signal.LONG), dataset)
    return tmp_path / "models"


@pytest.fixture
def record(tmp_path):
    return TrackRecord(sqlite_url(tmp_path / "record.sqlite"))


def file_of(models_dir, name: str):
    """A file of BTCUSDT's served version."""
    return (models_dir / "per_coin" / "BTCUSDT" / "15m" / name).resolve(strict=True)


def plant(models_dir, metrics: bytes | None = None, **said) -> None:
    """Serve another version of BTCUSDT, sealed again after it was changed."""
    folder = file_of(models_dir, "meta.json").parent
    manifest = Manifest.from_json((folder / "meta.json").read_text(), *BTC)
    files = dict(manifest.files)
    if metrics is not None:
        files["metrics.json"] = contents.sha256(metrics)
    draft = {field.name: getattr(manifest, field.name) for field in fields(ManifestDraft)}
    changed = ManifestDraft(**draft | said).seal(datetime.now(UTC), files)
    planted = shutil.copytree(folder, folder.with_name(changed.version_id))
    (planted / "meta.json").write_text(changed.to_json())
    if metrics is not None:
        (planted / "metrics.json").write_bytes(metrics)
    link = models_dir / "per_coin" / "BTCUSDT" / "15m"
    link.unlink()
    link.symlink_to(planted.relative_to(link.parent))


def test_markets_that_are_due_together_are_asked_in_one_batch(models_dir, market, monkeypatch):
    together, alone = [], []
    predict_closed, predict = Predictor.predict_closed, ServedModel.predict

    def counted(self, asked):
        together.append([bars.symbol for bars in asked])
        return predict_closed(self, asked)

    def counted_alone(self, bars):
        alone.append(bars.symbol)
        return predict(self, bars)

    monkeypatch.setattr(Predictor, "predict_closed", counted)
    monkeypatch.setattr(ServedModel, "predict", counted_alone)
    server = make_server(models_dir, market)
    assert bring_up_to_date(server) == 2
    assert (together, alone) == ([["BTCUSDT", "ETHUSDT"]], [])
    # The same as from a chain that nobody prepared.
    chain = build_chain([Source.MODEL, Source.HOLD], ModelSource(Predictor(models_dir)))
    for symbol in ("BTCUSDT", "ETHUSDT"):
        bars = market.load(symbol, M15)
        expected = to_json(ask_chain(chain, SourcedBars(bars), None, market.now), bars, market.now)
        found = server.board.answer(symbol, M15)
        close = [expected.pop("probabilities"), expected.pop("confidence")]
        assert {name: found[name] for name in expected} == expected
        assert found["probabilities"] == pytest.approx(close[0], abs=1e-6)
        assert found["confidence"] == pytest.approx(close[1], abs=1e-6)


def test_a_version_that_comes_after_the_batch_gives_the_answer(models_dir, market):
    source = ModelSource(Predictor(models_dir))
    btc, eth = (market.load(symbol, M15) for symbol in ("BTCUSDT", "ETHUSDT"))
    source.prepare([btc, eth])
    dataset = make_dataset(replace(BARS, origin="binance spot: BTCUSDT"))
    export(models_dir, random_network(Signal.SHORT), dataset)
    assert source.answer(SourcedBars(btc)).signal is Signal.SHORT
    assert source.answer(SourcedBars(eth)).signal is Signal.LONG
    # Other bars of the same market are no longer those of the batch.
    source.prepare([btc, eth])
    earlier = eth.slice(0, len(eth) - 1)
    assert source.answer(SourcedBars(earlier)).ts == earlier.close_time()


def test_a_batch_that_fails_leaves_every_market_its_answer(models_dir, market, monkeypatch, caplog):
    def fail(self, asked):
        raise MemoryError

    monkeypatch.setattr(Predictor, "predict_closed", fail)
    server = make_server(models_dir, market)
    assert bring_up_to_date(server) == 2
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert server.board.answer(symbol, M15)["source"] == "ML_PER_COIN_V1"
    assert "ANSWERS are made one by one" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no JSON",
        b"\xff\xfe",
        b'{"evaluation": NaN}',
        b"[" * 10_000,
        b'{"train_rows":' + b'{"a":' * 100_000,
        b'{"evaluation": {"model": {"skill": {"value": ' + b"9" * 400 + b"}}}}",
    ],
    ids=["empty", "words", "bytes", "nan", "nested", "nested_objects", "huge"],
)
def test_metrics_that_cannot_be_read_cost_their_market_its_model_and_no_other(
    models_dir, market, caplog, content
):
    plant(models_dir, content)
    server = make_server(models_dir, market)
    for _ in range(4):
        bring_up_to_date(server)
        market.pass_time(minutes=15)
    market.pass_time(minutes=-15)
    btc, eth = (server.board.answer(symbol, M15) for symbol in ("BTCUSDT", "ETHUSDT"))
    assert eth["source"] == "ML_PER_COIN_V1"
    assert eth["ts"] == btc["ts"]
    if b"9999" not in content:  # Whether that number is read is the registry's decision.
        assert (btc["source"], btc["passed"][0]["reason"]) == ("FALLBACK_NEUTRAL", "model_invalid")
        told = [entry for entry in caplog.records if entry.getMessage().startswith("MODEL ")]
        assert len(told) == 1
        assert "BTCUSDT" in told[0].getMessage()
        assert "15m" in told[0].getMessage()
        first, second = ask(server, "/api/models").json()["models"]
        assert (first["status"], second["status"]) == ("invalid", "served")
    assert ask(server, "/health").json()["status"] == "ok"


def test_a_model_whose_file_was_away_for_a_moment_is_asked_again(models_dir, market):
    file = file_of(models_dir, "metrics.json")
    aside = models_dir.parent / "aside.json"
    file.rename(aside)
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    assert server.board.answer(*BTC)["passed"][0]["reason"] == "model_invalid"
    assert ask(server, "/api/models").json()["models"][0]["status"] == "invalid"
    aside.rename(file)
    market.pass_time(seconds=2)
    bring_up_to_date(server)
    assert server.board.answer(*BTC)["source"] == "ML_PER_COIN_V1"
    assert ask(server, "/api/models").json()["models"][0]["status"] == "served"


def test_weights_that_were_away_for_a_moment_are_asked_for_again(models_dir, market):
    """The status of a model is told without its weights: the answer itself has to be made again."""
    file = file_of(models_dir, "cnn_lstm_v1.pth")
    aside = models_dir.parent / "aside"
    file.rename(aside)
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    assert server.board.answer(*BTC)["passed"][0]["reason"] == "model_invalid"
    aside.rename(file)
    assert bring_up_to_date(server) == 0
    market.pass_time(seconds=2)
    assert bring_up_to_date(server) == 1
    assert server.board.answer(*BTC)["source"] == "ML_PER_COIN_V1"
    market.pass_time(seconds=200)
    assert bring_up_to_date(server) == 0


class OddMarket(Market):
    """Hands BTCUSDT out with another origin."""

    origin = ""

    def load(self, symbol, timeframe):
        bars = super().load(symbol, timeframe)
        return replace(bars, origin=self.origin) if symbol == "BTCUSDT" else bars


@pytest.mark.parametrize(
    "origin", [SPLIT_PAIR, "a\0b: x", "\x1b[2J: x", "x" * 5000, "simulated \udfff" + "y" * 3000]
)
def test_an_origin_that_cannot_be_encoded_silences_no_market(models_dir, record, origin):
    market = OddMarket(BARS, n_closed=1290)
    market.origin = origin
    server = make_server(models_dir, market, record=record, default_rules=RULES)
    for _ in range(5):
        bring_up_to_date(server)
        market.pass_time(minutes=15)
    market.pass_time(minutes=-15)
    for path in ("/api/predictions", "/api/history/BTCUSDT", "/api/models", "/api/scoreboard"):
        response = ask(server, path)
        assert response.status_code == 200, path
        assert response.text.isprintable()
        assert '"\\ud' not in response.text
        assert json.dumps(response.json(), ensure_ascii=False).encode()
    answers = ask(server, "/api/predictions").json()["predictions"]
    assert len({answer["ts"] for answer in answers}) == 1
    assert len(record.predictions(["ETHUSDT"])) == len(record.predictions(["BTCUSDT"])) == 5
    # What came of them is found by the same name.
    assert record.predictions(["BTCUSDT"])[0].resolved_at is not None
    assert ask(server, "/health").json()["record"] == "ok"


def test_what_no_database_can_keep_is_dropped_by_name_and_the_rest_is_written(
    models_dir, market, record, caplog
):
    server = make_server(models_dir, market, record=record, default_rules=RULES)
    note = server.recorder.note

    def note_without_a_price(prediction, *others):
        if prediction.symbol == "BTCUSDT":
            prediction = replace(prediction, confidence=float("nan"))
        note(prediction, *others)

    server.recorder.note = note_without_a_price
    for _ in range(3):
        bring_up_to_date(server)
        market.pass_time(minutes=15)
    assert {kept.symbol for kept in record.predictions()} == {"ETHUSDT"}
    assert len(record.predictions()) == 3
    assert "RECORD BTCUSDT tf=15m failed" in caplog.text
    assert ask(server, "/health").json()["record"] == "ok"
    assert 'percoin_record_total{event="dropped"} 3.0' in ask(server, "/metrics").text


def test_a_label_rule_of_a_newer_percoin_keeps_no_answer_back(models_dir, market, record):
    plant(models_dir, label_rule={"kind": "of_tomorrow", "horizon": 3})
    server = make_server(models_dir, market, record=record, default_rules=RULES)
    bring_up_to_date(server)
    assert server.board.answer(*BTC)["source"] == "ML_PER_COIN_V1"
    own, other = (record.predictions([symbol])[-1] for symbol in ("BTCUSDT", "ETHUSDT"))
    assert (own.label_rule, own.is_live) == ("", False)
    assert other.is_live


def test_outcomes_that_cannot_be_found_hold_up_those_of_no_other_market(
    models_dir, market, record, monkeypatch, caplog
):
    from percoin.serving import recorder

    resolve = recorder.resolve

    def resolve_all_but_one(database, bars, *others):
        if bars.symbol == "BTCUSDT":
            raise ZeroDivisionError("a bug")
        return resolve(database, bars, *others)

    monkeypatch.setattr(recorder, "resolve", resolve_all_but_one)
    server = make_server(models_dir, market, record=record, default_rules=RULES)
    for _ in range(5):
        bring_up_to_date(server)
        market.pass_time(minutes=15)
    assert record.predictions(["ETHUSDT"])[0].resolved_at is not None
    assert record.predictions(["BTCUSDT"])[0].resolved_at is None
    assert caplog.text.count("RECORD BTCUSDT tf=15m failed") == 1


def test_drift_that_cannot_be_measured_is_said_of_its_market(models_dir, market, monkeypatch):
    from percoin.serving import drift_watch

    measure = drift_watch.measure_drift

    def measure_all_but_one(manifest, bins, bars):
        if manifest.symbol == "BTCUSDT":
            raise ZeroDivisionError("a bug")
        return measure(manifest, bins, bars)

    monkeypatch.setattr(drift_watch, "measure_drift", measure_all_but_one)
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    first, second = ask(server, "/api/scoreboard").json()["drift"]
    assert first["unknown"] == "it cannot be measured; the log says why"
    assert second["unknown"] == "the model does not say where its train rows were"


def test_numbers_that_are_none_become_null(market):
    """Levels beyond the largest float: every answer is still JSON."""
    content = {"symbol": "BTCUSDT", "age_secs": 1.0, "stale": False, "close": float("inf")}
    odd = {"tp1": float("-inf"), "detail": "\ud800", "confidence": float("nan")}
    answer = Answer(content | odd, market.now, ())
    text = answer.text_at(M15, market.now)

    def refuse(word):
        raise AssertionError(word)

    found = json.loads(text, parse_constant=refuse)
    assert (found["close"], found["tp1"], found["confidence"]) == (None, None, None)
    assert found["detail"] == "\\ud800"


# -- health -----------------------------------------------------------------------------------


def test_health_tells_when_answers_are_not_renewed_any_more(models_dir, market):
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    renewed = market.now.isoformat()
    market.pass_time(seconds=55)
    assert ask(server, "/health").json()["status"] == "ok"
    market.pass_time(seconds=10)
    response = ask(server, "/health")
    content = schemas.HealthSchema.model_validate_json(response.content)
    assert (response.status_code, content.status) == (503, "degraded")
    assert content.markets.frozen == 2
    assert response.json()["oldest_renewal"] == response.json()["failing"][0]["renewed"] == renewed
    assert "has not been looked at since" in content.failing[0].problem
    # The same answer, looked at again, is well.
    assert server.board.update() == 0
    assert ask(server, "/health").status_code == 200


def test_health_is_degraded_while_one_market_is_frozen_and_others_go_on(models_dir, market):
    server = make_server(models_dir, market)
    bring_up_to_date(server)

    class Broken:
        def answer(self, bars):
            if bars.asked.symbol == "BTCUSDT":
                raise ZeroDivisionError("a bug")
            return chain.sources[-1].answer(bars)

    chain = server.board._chain
    server.board._chain = replace(chain, sources=[Broken(), chain.sources[-1]])
    market.pass_time(minutes=15)
    bring_up_to_date(server)
    market.pass_time(seconds=40)
    bring_up_to_date(server)
    response = ask(server, "/health")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    assert response.json()["markets"]["frozen"] == 1
    assert response.json()["failing"][0]["problem"].endswith(
        "no answer can be made (ZeroDivisionError)"
    )


def test_a_server_that_rarely_looks_is_not_frozen(models_dir, market):
    server = make_server(models_dir, market, check_secs=300.0)
    bring_up_to_date(server)
    market.pass_time(seconds=400)
    assert ask(server, "/health").json()["markets"]["frozen"] == 0


def test_a_broken_step_is_tried_again_after_a_while(models_dir, market):
    """What was broken by chance is not broken until the next bar."""
    server = make_server(models_dir, market)
    chain = server.board._chain

    class Broken:
        def answer(self, bars):
            raise OSError("no free file descriptor")

    server.board._chain = replace(chain, sources=[Broken()])
    assert bring_up_to_date(server) == 0
    server.board._chain = chain
    assert bring_up_to_date(server) == 0
    market.pass_time(seconds=1)
    assert bring_up_to_date(server) == 2
    assert server.board.failure(BTC) == ""


def test_health_names_ten_markets_at_most(models_dir, market):
    symbols = tuple(f"COIN{number}USDT" for number in range(12))
    server = make_server(models_dir, market, symbols)
    market.failure = FetchError("BTCUSDT", M15, "out of reach", "wait")
    bring_up_to_date(server)
    content = ask(server, "/health").json()
    assert (content["markets"]["failing"], len(content["failing"])) == (12, 10)
    assert content["oldest_renewal"] is content["failing"][0]["renewed"] is None


# -- the one place ------------------------------------------------------------------------------


def test_a_failure_is_told_once_until_it_changes_or_is_over(caplog):
    now = datetime(2025, 1, 1, tzinfo=UTC)
    steps = EachMarket("BARS", "the bars cannot be loaded", lambda: now)

    def fail(error):
        def step():
            raise error

        return step

    away = FetchError("BTCUSDT", M15, "out\nof reach", "wait")
    for _ in range(3):
        assert steps.run(BTC, fail(away), "nothing") == "nothing"
    assert caplog.text.count("out\\nof reach") == 1
    assert steps.failure(BTC) == "BTCUSDT 15m: out\\nof reach; wait"
    steps.run(BTC, fail(KeyError("x")), None)
    assert steps.failure(BTC) == "BTCUSDT 15m: the bars cannot be loaded (KeyError)"
    assert "BARS BTCUSDT tf=15m failed" in caplog.text
    assert not steps.may_try(BTC)
    assert steps.run(BTC, lambda: 7, None) == 7
    assert steps.failure(BTC) == ""
    assert steps.may_try(BTC)
    steps.run(BTC, fail(away), None)
    assert caplog.text.count("out\\nof reach") == 2


def test_what_128_markets_have_in_common_is_not_told_128_times(caplog):
    steps = EachMarket("BARS", "the bars cannot be loaded")
    for number in range(128):
        symbol = f"COIN{number}USDT"

        def fail(symbol=symbol):
            raise FetchError(symbol, M15, f"no file in klines holds {symbol}", "fetch them")

        steps.run((symbol, M15), fail, None)
        steps.run((symbol, M15), fail, None)
    told = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert len(told) == 4
    assert told[-1] == "BARS failed: further markets for the same reason"
    assert "COIN127USDT" in steps.failure(("COIN127USDT", M15))


def test_a_pause_doubles_up_to_a_minute_and_a_clock_set_back_ends_it():
    moment = [datetime(9999, 12, 31, 23, 50, tzinfo=UTC)]
    pauses = Pauses(lambda: moment[0])
    assert pauses.are_over(BTC)
    waits = []
    for _ in range(8):
        pauses.begin(BTC)
        began = moment[0]
        while not pauses.are_over(BTC):
            moment[0] = moment[0].fromtimestamp(moment[0].timestamp() + 0.5, UTC)
        waits.append((moment[0] - began).total_seconds())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    pauses.begin(BTC)
    moment[0] = datetime(2025, 1, 1, tzinfo=UTC)
    assert pauses.are_over(BTC)
    pauses.end(BTC)
    assert pauses.are_over(BTC)


# -- a queue that is written while others are written ------------------------------------------


def test_an_answer_cannot_be_read_before_it_is_recorded(models_dir, market, record):
    server = make_server(models_dir, market, record=record, default_rules=RULES)
    write_all, seen = record.write_all, []

    def write_and_look(entries):
        for entry in entries:
            seen.append(server.board.answer(entry.symbol, entry.tf)["ts"])
        written = write_all(entries)
        for entry in entries:
            seen.append(server.board.answer(entry.symbol, entry.tf)["ts"])
        return written

    record.write_all = write_and_look
    bring_up_to_date(server)
    assert seen == [None, None, None, None]
    assert not server.recorder._waiting
    assert server.board.answer(*BTC)["ts"] is not None


def test_a_full_queue_drops_the_oldest(models_dir, market, record, monkeypatch, tmp_path):
    from percoin.serving import recorder

    monkeypatch.setattr(recorder, "_MOST_WAITING", 3)
    monkeypatch.setattr(recorder, "_FIRST_PAUSE_SECS", 0.0)
    (tmp_path / "record.sqlite").mkdir()
    server = make_server(models_dir, market, record=record, default_rules=RULES)
    for _ in range(4):
        bring_up_to_date(server)
        newest = market.now
        market.pass_time(minutes=15)
    assert ask(server, "/health").json()["record"] == "failing"
    (tmp_path / "record.sqlite").rmdir()
    server.board.update()
    kept = sorted((entry.ts, entry.symbol) for entry in record.predictions())
    assert len(kept) == 3
    last = round(newest.timestamp() * 1000) - 10_000
    assert [ts for ts, _ in kept] == [last - 900_000, last, last]
    assert 'percoin_record_total{event="dropped"} 5.0' in ask(server, "/metrics").text


def test_two_threads_never_refresh_one_symbol_at_once():
    from percoin.serving.bar_keeper import BarKeeper, Rhythm

    bars = exchange_bars(20)
    now = bars.close_time().to_pydatetime()
    lock, under_way, overlaps, n_asked = threading.Lock(), set(), [], [0]

    def load(symbol, timeframe):
        with lock:
            n_asked[0] += 1
            if symbol in under_way:
                overlaps.append(symbol)
            under_way.add(symbol)
        threading.Event().wait(0.02)
        with lock:
            under_way.discard(symbol)
        # Fails, so that it is due again at once.
        raise FetchError(symbol, timeframe, "out of reach", "wait")

    rhythm = Rhythm(retry_secs=0.0, max_retry_secs=0.0)
    keeper = BarKeeper(load, ["BTCUSDT"], [M15], rhythm, lambda: now)
    keeper.start(4)
    until = 200
    while n_asked[0] < 8 and until:
        threading.Event().wait(0.02)
        until -= 1
    keeper.stop()
    assert n_asked[0] >= 8
    assert overlaps == []


def test_a_bar_source_without_a_bar_ends_no_thread(market, caplog):
    """No bars at all are no index error of the thread that asked for them."""
    from percoin.serving.bar_keeper import BarKeeper, Rhythm

    empty = replace(market.bars, frame=market.bars.frame.iloc[:0])
    keeper = BarKeeper(lambda symbol, tf: empty, ["BTCUSDT"], [M15], Rhythm(), market.clock)
    keeper.refresh("BTCUSDT")
    assert keeper.held("BTCUSDT")[M15].failure.startswith("BTCUSDT 15m: ")


def test_drift_is_that_of_the_version_it_is_shown_beside(models_dir, market):
    """The drift told beside a version is the one measured of that version."""
    from percoin.serving import drift_watch

    server = make_server(models_dir, market)
    bring_up_to_date(server)
    watch = drift_watch.DriftWatch(server.models, server.keeper)
    first = watch.contents(["BTCUSDT"], M15)[0]
    asked = []
    measure = drift_watch.measure_drift
    drift_watch.measure_drift = lambda *given: asked.append(given[0].version_id) or measure(*given)
    try:
        assert watch.contents(["BTCUSDT"], M15)[0] == first
        assert asked == []
        dataset = make_dataset(BARS.slice(0, 1200))
        export(models_dir, random_network(Signal.SHORT), dataset)
        server.models.look()
        second = watch.contents(["BTCUSDT"], M15)[0]
        assert second["version_id"] != first["version_id"]
        assert asked == [second["version_id"]]
        assert (first["n_bars"], second["n_bars"]) == (0, 90)
    finally:
        drift_watch.measure_drift = measure


def test_a_model_that_is_whole_again_is_asked_in_the_same_turn(models_dir, market):
    """However long the answer itself would still have waited."""
    file = file_of(models_dir, "metrics.json")
    aside = models_dir.parent / "aside.json"
    file.rename(aside)
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    aside.rename(file)
    market.pass_time(seconds=2)
    server.board._pauses.begin(BTC)
    assert server.board.update() == 1
    assert server.board.answer(*BTC)["source"] == "ML_PER_COIN_V1"


def test_bars_of_another_origin_make_another_answer(models_dir):
    market = OddMarket(BARS, n_closed=1290)
    market.origin = "binance spot: BTCUSDT"
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    market.origin, market.held_back = "binance perpetual: BTCUSDT", 1
    market.pass_time(minutes=15)
    assert bring_up_to_date(server) == 1
    assert server.board.answer(*BTC)["bars"] == "binance perpetual: BTCUSDT"


def test_bars_that_closed_after_the_asked_one_make_no_other_answer(models_dir, market):
    server = make_server(models_dir, market)
    bring_up_to_date(server)
    asked = server.keeper.held("BTCUSDT")[M15]
    closed = int(asked.close_times[-1])

    def basis(*later_closes):
        times = np.array([closed - 10, *later_closes], dtype=np.int64)
        held = {M15: asked, Timeframe.H1: Held(asked.bars, times)}
        return server.board._basis(BTC, asked.bars, held, market.now)

    assert basis() == basis(closed + 10) == basis(closed + 10, closed + 20)
    assert basis() != basis(closed)


def test_the_thread_of_answers_rests_between_turns_and_outlives_a_bug(models_dir, market, caplog):
    server = make_server(models_dir, market)
    turns = []

    def turn():
        turns.append(1)
        raise ZeroDivisionError("a bug")

    server.board.update = turn
    server.board.start(every_secs=60.0)
    try:
        for wanted in (1, 2):
            for _ in range(500):
                if len(turns) >= wanted:
                    break
                threading.Event().wait(0.01)
            threading.Event().wait(0.05)
            assert len(turns) == wanted
            server.board.wake()
        assert server.board.is_working
    finally:
        assert server.board.stop(10)
    assert "ANSWERS cannot be updated" in caplog.text
    assert not server.board.is_working


def test_outcomes_are_looked_for_once_a_bar(models_dir, market, record, monkeypatch):
    from percoin.serving import recorder

    resolve, asked = recorder.resolve, []
    monkeypatch.setattr(
        recorder, "resolve", lambda *given: asked.append(given[1].symbol) or resolve(*given)
    )
    server = make_server(models_dir, market, record=record, default_rules=RULES)
    for _ in range(3):
        bring_up_to_date(server)
    assert sorted(asked) == ["BTCUSDT", "ETHUSDT"]
    market.pass_time(minutes=15)
    bring_up_to_date(server)
    assert len(asked) == 4
