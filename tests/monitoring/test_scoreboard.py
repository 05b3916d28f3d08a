from dataclasses import replace

import numpy as np
import pytest
from made_up_predictions import RULE, bars_of, prediction_on, soon_after, walk

from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap
from percoin.monitoring.record import Kept, PredictionOutcome, TrackRecord, sqlite_url
from percoin.monitoring.resolution import make_entry, resolve
from percoin.monitoring.scoreboard import Scoreboard, _stand, make_scoreboard
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
            Kept(**vars(entry) | {"id": k, "label": int(labels[k]), "ts": k, "forward_return": 0.0})
            for k in range(n_rows)
        ]
        _stand(rows, 100)
        # The first are of skills, the hit rates in between have no days.
        assert asked[0] == block


def test_with_few_rows_there_is_no_number_and_it_is_said(record):
    play(record, range(100, 110), knowing)
    [standing] = make_scoreboard(record)
    assert (standing.n_resolved, standing.skill, standing.hit_rate) == (10, None, None)
    assert standing.too_few.startswith("10 resolved predictions are too few")
    assert all(score.skill is None for score in standing.baselines.values())


def test_a_source_is_scored_by_what_followed_its_answer_before(record):
    play(record, range(100, 300), lambda row: (Signal.LONG, None), source=Source.RSI_MA)
    [standing] = make_scoreboard(record)
    assert standing.model_version is None
    assert standing.skill == standing.baselines["rsi_ma"].skill
    hits = LABELS[99:299]
    assert standing.hit_rate.value == pytest.approx((hits == 2).sum() / (hits != 1).sum())
    assert standing.hit_rate.lower < standing.hit_rate.value < standing.hit_rate.upper


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
