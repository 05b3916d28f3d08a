import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_predictions import RULE, bars_of, prediction_on, soon_after, walk

from percoin.errors import RecordError
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap
from percoin.monitoring.record import Kept, PredictionOutcome, TrackRecord, sqlite_url
from percoin.monitoring.resolution import make_entry, resolve
from percoin.monitoring.scoreboard import Scoreboard, _stand, make_scoreboard
from percoin.monitoring.scored_rows import ForecasterRows
from percoin.types import Signal, Source, Timeframe

BARS = bars_of(walk(400))
LABELS = RULE.label(BARS).label


@pytest.fixture
def record(tmp_path):
    return TrackRecord(sqlite_url(tmp_path / "record.sqlite"))


def play(record, rows, say, **prediction):
    entries = []
    for n_bars in rows:
        seen = BARS.slice(0, n_bars)
        signal, probabilities = say(n_bars - 1)
        made = prediction_on(seen, signal, probabilities, **prediction)
        entries.append(make_entry(made, seen, RULE, soon_after(seen)))
    record.write_all(entries)
    resolve(record, BARS, soon_after(BARS))
    return entries


def knowing(row):
    probabilities = [0.2, 0.2, 0.2]
    probabilities[LABELS[row]] = 0.6
    return Signal(LABELS[row]), tuple(probabilities)


def test_one_that_knows_has_skill_and_hits_beside_the_baselines(record):
    entries = play(record, range(100, 300), knowing)
    [standing] = make_scoreboard(record)
    assert (standing.n_written, standing.n_resolved, standing.n_void) == (200, 200, 0)
    prior = np.array([entry.baselines["rolling_prior"].probabilities for entry in entries])
    labels = LABELS[99:299]
    expected = 1 - np.log(1 / 0.6) / row_log_loss(prior, labels).mean()
    assert standing.skill.value == pytest.approx(expected)
    assert 0 < standing.skill.lower < standing.skill.value < standing.skill.upper
    # Always right: rows that do not vary have no interval, and so no number.
    assert standing.hit_rate is None
    assert standing.n_moves == int((labels != Signal.NO_TRADE).sum())
    names = {"prior", "rolling_prior", "persistence", "rsi_ma", "momentum"}
    assert set(standing.baselines) == names
    assert standing.ruler == "rolling_prior"
    # The ruler against itself has no error to speak of.
    assert standing.baselines["rolling_prior"].skill is None
    assert standing.baselines["persistence"].skill.upper < standing.skill.lower
    assert standing.baselines["persistence"].hit_rate.lower < 0.75
    assert (standing.since, standing.until) == (
        BARS.close_time(99).to_pydatetime(),
        BARS.close_time(298).to_pydatetime(),
    )


def test_rows_from_before_the_rolling_prior_are_held_against_the_prior(record):
    entries = []
    for n_bars in range(100, 300):
        seen = BARS.slice(0, n_bars)
        signal, probabilities = knowing(n_bars - 1)
        made = make_entry(prediction_on(seen, signal, probabilities), seen, RULE, soon_after(seen))
        old = n_bars < 150
        known = {k: v for k, v in made.baselines.items() if not (old and k == "rolling_prior")}
        entries.append(replace(made, baselines=known))
    record.write_all(entries)
    resolve(record, BARS, soon_after(BARS))
    [standing] = make_scoreboard(record)
    assert standing.ruler == "prior"
    prior = np.array([entry.baselines["prior"].probabilities for entry in entries])
    expected = 1 - np.log(1 / 0.6) / row_log_loss(prior, LABELS[99:299]).mean()
    assert standing.skill.value == pytest.approx(expected)


def test_from_eight_days_on_blocks_are_a_day_long(monkeypatch):
    asked = []
    estimate = Bootstrap.estimate

    def spy(self, values, null=0.0):
        asked.append(self.shortest_block)
        return estimate(self, values, null)

    monkeypatch.setattr(Bootstrap, "estimate", spy)
    entry = make_entry(prediction_on(BARS), BARS, RULE, soon_after(BARS))
    labels = np.random.default_rng(0).integers(0, 3, 8 * 96)
    for n_rows, block in ((8 * 96 - 1, 3), (8 * 96, 96)):
        asked.clear()
        rows = [
            Kept(
                **vars(entry)
                | {"id": k, "label": int(labels[k]), "ts": k, "forward_return": 0.0}
                | {"resolved_at": k}
            )
            for k in range(n_rows)
        ]
        forecaster = ForecasterRows(rows[0])
        for row in rows:
            forecaster.add(row)
        _stand(forecaster, 100)
        # The first are of skills, the hit rates in between have no days.
        assert asked[0] == block


def test_the_hit_rate_of_a_long_record_comes_from_fewer_blocks_and_says_the_same():
    entry = make_entry(prediction_on(BARS), BARS, RULE, soon_after(BARS))
    labels = np.random.default_rng(0).choice([0, 2], 6000)
    shared = vars(entry) | {"forward_return": 0.0, "signal": Signal.LONG}
    rows = [
        Kept(**shared | {"id": k, "label": int(label), "ts": k, "resolved_at": k})
        for k, label in enumerate(labels)
    ]
    forecaster = ForecasterRows(rows[0])
    for row in rows:
        forecaster.add(row)
    standing = _stand(forecaster, 1000)
    of_all = Bootstrap(RULE.horizon, 0, 1000).estimate_share(labels == Signal.LONG)
    assert standing.n_moves == 6000
    assert standing.hit_rate.value == of_all.value
    assert 6000 // of_all.block_length > 1000
    widths = [known.upper - known.lower for known in (standing.hit_rate, of_all)]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_with_few_rows_there_is_no_number_and_it_is_said(record):
    play(record, range(100, 110), knowing)
    [standing] = make_scoreboard(record)
    assert (standing.n_resolved, standing.skill, standing.hit_rate) == (10, None, None)
    assert standing.too_few.startswith("10 resolved predictions are too few")
    assert all(score.skill is None for score in standing.baselines.values())


def test_a_source_is_scored_by_what_followed_its_answer_before(record):
    play(record, range(100, 300), lambda row: (Signal.LONG, None), source=Source.MOMENTUM)
    [standing] = make_scoreboard(record)
    assert standing.model_version is None
    assert standing.skill == standing.baselines["momentum"].skill
    hits = LABELS[99:299]
    assert standing.hit_rate.value == pytest.approx((hits == 2).sum() / (hits != 1).sum())
    assert standing.hit_rate.lower < standing.hit_rate.value < standing.hit_rate.upper


def test_a_source_that_reads_other_bars_than_the_baseline_has_a_hit_rate_and_no_skill(record):
    # RSI and averages are those of 1h bars, whatever is asked about; the baseline's those of 15m.
    play(record, range(100, 300), lambda row: (Signal.LONG, None), source=Source.RSI_MA)
    [standing] = make_scoreboard(record)
    assert standing.skill is None
    assert standing.baselines["rsi_ma"].skill is not None
    assert standing.hit_rate is not None


def test_late_predictions_are_counted_and_not_scored(record):
    seen = BARS.slice(0, 200)
    late = make_entry(prediction_on(seen), seen, RULE, soon_after(BARS))
    record.write(late)
    resolve(record, BARS, soon_after(BARS))
    [standing] = make_scoreboard(record)
    assert (standing.n_written, standing.n_late, standing.n_resolved) == (0, 1, 0)
    assert standing.since is None
    assert record.predictions()[0].label is not None


def test_models_sources_and_markets_are_told_apart(record):
    seen = BARS.slice(0, 200)
    entry = make_entry(prediction_on(seen), seen, RULE, soon_after(seen))
    others = [
        {"symbol": "ETHUSDT"},
        {"source": "PRO", "version_id": ""},
        {"version_id": "another"},
        {"tf": Timeframe.D1},
        {"bars": "files"},
    ]
    record.write_all([entry, *(replace(entry, **other) for other in others)])
    standings = make_scoreboard(record)
    assert len(standings) == 6
    assert {standing.symbol for standing in make_scoreboard(record, ["ETHUSDT"])} == {"ETHUSDT"}
    assert len(make_scoreboard(record, timeframe=Timeframe.D1)) == 1


def test_a_standing_is_computed_again_only_when_its_rows_change(record):
    play(record, range(100, 200), knowing)
    board = Scoreboard(record)
    [first] = board.standings()
    assert board.standings()[0] is first
    seen = BARS.slice(0, 220)
    record.write(make_entry(prediction_on(seen), seen, RULE, soon_after(seen)))
    [second] = board.standings()
    assert (first.n_written, second.n_written) == (100, 101)
    record.resolve([PredictionOutcome(record.predictions()[-1].id, 2, 0.1)], 1)
    assert board.standings()[0].n_resolved == 101
    assert second.to_json()["tf"] == "15m"


def test_only_live_predictions_count_as_void(record):
    seen = BARS.slice(0, 50)
    live = make_entry(prediction_on(seen), seen, RULE, soon_after(seen))
    late = replace(live, ts=live.ts + 900_000, is_live=False)
    record.write_all([live, late])
    record.resolve(
        [PredictionOutcome(kept.id, None, None, "a gap") for kept in record.predictions()], 5
    )
    [standing] = make_scoreboard(record)
    assert (standing.n_void, standing.n_late, standing.n_written) == (1, 1, 1)


@pytest.mark.slow
@settings(max_examples=8)
@given(data=st.data())
def test_running_columns_give_what_all_rows_at_once_give(data):
    """Rows may come and be resolved in any order, and a reader may look in between."""
    n_rows = 120
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    order = random.permutation(n_rows)
    with tempfile.TemporaryDirectory() as folder:
        record = TrackRecord(sqlite_url(Path(folder) / "record.sqlite"))
        board = Scoreboard(record, repetitions=50, kept=Path(folder) / "scores.bin")
        entries = []
        for row in order:
            seen = BARS.slice(0, 100 + int(row))
            signal, probabilities = knowing(99 + int(row))
            said = probabilities if data.draw(st.booleans()) else (0.3, 0.4, 0.3)
            symbol = data.draw(st.sampled_from(["BTCUSDT", "ETHUSDT"]))
            made = make_entry(prediction_on(seen, signal, said), seen, RULE, soon_after(seen))
            is_live = data.draw(st.sampled_from([True, True, True, False]))
            entries.append(replace(made, symbol=symbol, is_live=is_live))
        for part in np.array_split(np.arange(n_rows), data.draw(st.integers(1, 5))):
            record.write_all([entries[k] for k in part])
            if data.draw(st.booleans()):
                board.standings(timeframe=Timeframe.M15)
                board.keep()
            if data.draw(st.booleans()):
                # The process ends here, with or without the newest rows in its file.
                board = Scoreboard(record, repetitions=50, kept=Path(folder) / "scores.bin")
                board.recall()
            open_ones = [kept for kept in record.predictions() if kept.resolved_at is None]
            random.shuffle(open_ones)
            outcomes = [
                PredictionOutcome(kept.id, None, None, "a gap")
                if random.random() < 0.1
                else PredictionOutcome(kept.id, int(random.integers(3)), 0.001)
                for kept in open_ones[: len(open_ones) * 2 // 3]
            ]
            record.resolve(outcomes, int(random.integers(1, 10**9)))
        assert board.standings() == make_scoreboard(record, repetitions=50)
        assert board.standings(["ETHUSDT"]) == make_scoreboard(record, ["ETHUSDT"], repetitions=50)
        by_hand = [kept for kept in record.predictions(["BTCUSDT"]) if kept.is_live]
        if by_hand:
            [standing] = board.standings(["BTCUSDT"])
            scored = [kept for kept in by_hand if kept.label is not None]
            assert (standing.n_written, standing.n_resolved) == (len(by_hand), len(scored))
            if standing.skill is not None:
                labels = np.array([kept.label for kept in scored])
                own, ruler = (
                    row_log_loss(np.array(said), labels).mean()
                    for said in (
                        [kept.probabilities for kept in scored],
                        [kept.baselines["rolling_prior"].probabilities for kept in scored],
                    )
                )
                assert standing.skill.value == pytest.approx(1 - own / ruler, abs=1e-12)
        record.close()


def check_next_start(record, kept, monkeypatch):
    """A first process reads 100 rows; the next one only what is new, to the same standings."""
    first = Scoreboard(record, kept=kept)
    assert not first.recall()
    play(record, range(100, 200), knowing)
    assert first.standings() == make_scoreboard(record)
    monkeypatch.setattr("percoin.monitoring.scoreboard._LATE_ROWS", 5)
    first.keep()
    # Written and resolved while no process looks.
    play(record, range(200, 230), knowing)
    expected = make_scoreboard(record)
    read, after = [], TrackRecord.after
    with monkeypatch.context() as patch:
        patch.setattr(
            TrackRecord, "after", lambda *asked: (read.append(k) or k for k in after(*asked))
        )
        second = Scoreboard(record, kept=kept)
        assert second.recall()
        assert second.standings() == expected
    assert len(read) == 35
    second.keep()
    third = Scoreboard(record, kept=kept)
    assert third.recall()
    assert third.standings() == expected


def test_the_next_start_reads_only_what_is_new(record, tmp_path, monkeypatch):
    check_next_start(record, tmp_path / "data" / "scores.bin", monkeypatch)


@pytest.mark.parametrize("change", ["deleted", "other", "older", "damaged", "cut", "foreign"])
def test_what_was_kept_of_another_record_is_not_used(record, tmp_path, monkeypatch, change):
    kept = tmp_path / "scores.bin"
    monkeypatch.setattr("percoin.monitoring.scoreboard._LATE_ROWS", 5)
    play(record, range(100, 150), knowing)
    board = Scoreboard(record, kept=kept)
    board.standings()
    board.keep()
    content = kept.read_bytes()
    if change == "deleted":
        run_sql(record, "DELETE FROM percoin_predictions WHERE id = 3")
    if change == "other":
        run_sql(record, "UPDATE percoin_predictions SET written_at = written_at - 1")
    if change == "older":
        run_sql(record, "UPDATE percoin_predictions SET resolved_at = NULL WHERE id = 3")
    if change == "damaged":
        kept.write_bytes(content[:-400] + bytes([content[-400] ^ 1]) + content[-399:])
    if change == "cut":
        kept.write_bytes(content[:-1])
    if change == "foreign":
        kept.write_bytes(b"")
    again = Scoreboard(record, kept=kept)
    assert not again.recall()
    assert again.standings() == make_scoreboard(record)
    again.keep()
    assert Scoreboard(record, kept=kept).recall()


def run_sql(record, statement):
    with closing(sqlite3.connect(record.place)) as connection, connection:
        connection.execute(statement)


def test_a_board_that_cannot_keep_its_rows_goes_on(record, tmp_path, caplog):
    play(record, range(100, 120), knowing)
    (tmp_path / "file").write_text("no folder")
    board = Scoreboard(record, kept=tmp_path / "file" / "scores.bin")
    assert not board.recall()
    board.standings()
    board.keep()
    assert "the next start reads the whole record" in caplog.text
    assert board.standings() == make_scoreboard(record)


def test_the_thread_keeps_what_it_read_and_begins_with_it(record, tmp_path, monkeypatch):
    monkeypatch.setattr("percoin.monitoring.scoreboard._ROWS_UNKEPT", 10)
    kept = tmp_path / "scores.bin"
    play(record, range(100, 150), knowing)
    board = Scoreboard(record, kept=kept)
    board.start(every_secs=0.02)
    until = time.monotonic() + 60
    while not kept.exists() and time.monotonic() < until:
        time.sleep(0.02)
    board.stop()
    monkeypatch.setattr(ForecasterRows, "add", lambda *_: pytest.fail("it reads all"))
    again = Scoreboard(record, kept=kept)
    again.start(every_secs=60)
    assert again.latest() == board.latest()
    again.stop()


def test_a_thread_keeps_the_standings_that_requests_read(record):
    board = Scoreboard(record)
    play(record, range(100, 150), knowing)
    board.start(every_secs=0.02)
    assert board.latest() == make_scoreboard(record)
    assert board.latest(["ETHUSDT"]) == board.latest(timeframe=Timeframe.D1) == []
    first = board.latest()
    play(record, range(150, 160), knowing)
    until = time.monotonic() + 60
    while board.latest() == first and time.monotonic() < until:
        time.sleep(0.02)
    board.stop()
    assert board.latest()[0].n_written == 60


def test_a_thread_whose_record_is_away_says_so_and_goes_on(record, monkeypatch):
    board = Scoreboard(record)
    away = RecordError("the record", "it is away")
    with monkeypatch.context() as patch:
        patch.setattr(TrackRecord, "after", lambda *_: (_ for _ in ()).throw(away))
        board.start(every_secs=0.02)
        with pytest.raises(RecordError, match="it is away"):
            board.latest()
        assert board.is_failing
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(RecordError):
            assert board.latest() == []
            break
    assert not board.is_failing
    board.stop()


def test_a_warm_board_reads_no_row_that_it_knows(record, monkeypatch):
    play(record, range(100, 200), knowing)
    board = Scoreboard(record)
    monkeypatch.setattr("percoin.monitoring.scoreboard._LATE_ROWS", 5)
    board.standings()
    read = []
    after = TrackRecord.after
    monkeypatch.setattr(
        TrackRecord, "after", lambda *asked: (read.append(k) or k for k in after(*asked))
    )
    monkeypatch.setattr(TrackRecord, "predictions", lambda *_: pytest.fail("it reads all"))
    board.standings()
    assert len(read) == 5
