"""The expected move of a served version: that of its training, or none."""

import json
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace

import pytest
import test_regression_and_blend as combined
from builders import drop_bars
from exported_models import bars_to_learn_from, export, make_dataset, random_network

from percoin.bars.panel import with_panel
from percoin.evaluation.baselines import MOVES
from percoin.evaluation.fold_forecasts import JudgingRules, forecast_last_row
from percoin.evaluation.uncertainty import Bootstrap
from percoin.expected_move.fitting import MoveRows, choose_move
from percoin.expected_move.inputs import bars_needed
from percoin.expected_move.judging import JudgedMoveModel, fit_and_judge
from percoin.expected_move.model import RangeForecast
from percoin.features.levels import LevelUnit
from percoin.inference import Backend, Predictor
from percoin.inference.results import NoPrediction
from percoin.intervals import KnownInterval
from percoin.json_codec import one_line
from percoin.registry.judged import LEVELS, LEVELS_IN_MOVES
from percoin.registry.layout import EXPECTED_MOVE
from percoin.registry.manifest import Gate, StoredVerdict
from percoin.serving.discretion import Discretion
from percoin.serving.served_models import ServedModels
from percoin.signals.chain import ask
from percoin.signals.hold import HoldSource
from percoin.signals.market import SourcedBars
from percoin.signals.model import ModelSource
from percoin.signals.response import to_json
from percoin.types import LevelsReached, Signal, Source, Timeframe

BARS = bars_to_learn_from(1800)
DATASET = make_dataset(BARS.slice(0, 1700))
SOON = BARS.close_time().to_pydatetime() + timedelta(seconds=5)


@pytest.fixture(scope="module")
def judged():
    parts = (DATASET.rows("train"), DATASET.rows("validation"), DATASET.rows("test"))
    bootstrap = Bootstrap(3, repetitions=50)
    return fit_and_judge(DATASET.bars, 3, parts, bootstrap)


def served(root, sections, verdict=StoredVerdict.ACCEPTED) -> Predictor:
    export(root, random_network(), DATASET, verdict, sections=sections)
    return Predictor(root)


def test_it_is_that_of_the_training_on_the_same_bars(tmp_path, judged):
    predictor = served(tmp_path, {EXPECTED_MOVE: judged})
    move = predictor.predict(BARS, SOON).expected_move
    deviation = judged.model.deviations(BARS)[-1]
    close = BARS.column("close")[-1]
    assert move.percent == pytest.approx(100 * deviation, rel=1e-12)
    assert move.horizon_bars == 3
    assert [band.level for band in move.bands] == [50, 80, 95]
    for inner, outer in pairwise(move.bands):
        assert outer.lower < inner.lower < close < inner.upper < outer.upper
    [together] = predictor.predict_many([BARS], SOON)
    assert together.expected_move == move


class Momentum(HoldSource):
    """A rule before the model that always has an answer."""

    def answer(self, market):
        return replace(super().answer(market), source=Source.MOMENTUM, signal=Signal.LONG)


def test_a_model_behind_the_source_that_answers_is_asked_for_the_move_alone(
    tmp_path, judged, caplog
):
    predictor = served(tmp_path, {EXPECTED_MOVE: judged}, StoredVerdict.REJECTED)
    expected = predictor.predict(BARS, SOON).expected_move
    for require_accepted in (True, False):
        model = ModelSource(predictor, require_accepted=require_accepted)
        for prepared in ([], [BARS]):
            model.prepare(prepared)
            answer = ask([Momentum(), model, HoldSource()], SourcedBars(BARS), now=SOON)
            assert (answer.source, answer.passed) == (Source.MOMENTUM, ())
            assert answer.expected_move == expected
    late = SOON + timedelta(days=1)
    live = SourcedBars(replace(BARS, origin="binance spot: BTCUSDT"))
    assert ask([Momentum(), model, HoldSource()], live, now=late).expected_move is None
    simulated = SourcedBars(replace(BARS, origin="simulated: seed 1"))
    nothing = [
        (ModelSource(predictor, enabled=False), SourcedBars(BARS)),
        (ModelSource(Predictor(tmp_path / "empty")), SourcedBars(BARS)),
        (model, SourcedBars(BARS.slice(0, 5))),
        (model, simulated),
    ]
    for source, market in nothing:
        answer = ask([Momentum(), source, HoldSource()], market, now=SOON)
        assert (answer.source, answer.expected_move) == (Source.MOMENTUM, None)
    assert not caplog.records


def test_a_failure_of_the_move_alone_breaks_no_answer(caplog):
    class Broken(HoldSource):
        def expected_move(self, market):
            raise RuntimeError("broken")

    answer = ask([Momentum(), Broken()], SourcedBars(BARS), now=SOON)
    assert (answer.source, answer.expected_move) == (Source.MOMENTUM, None)
    assert "BTCUSDT 15m: no expected move is known" in caplog.text


def forecast_with_trees(fold) -> tuple[JudgedMoveModel, float]:
    """A forecast that the trees of the fold's model are a part of, and what it says now."""
    dataset = fold.dataset
    train, validation = dataset.rows("train"), dataset.rows("validation")
    rows = MoveRows.of(dataset.bars, 3, train, validation, fold.log_ranges())
    forecast = RangeForecast(MOVES, 0.5, -0.3)
    model = replace(choose_move(rows), range_forecast=forecast)
    return JudgedMoveModel(model), 100 * rows.deviations(model)[-1]


@pytest.fixture(scope="module")
def with_trees():
    """Folds of models with such a forecast."""
    folds = {kind: combined.judged(kind, Backend.TORCH) for kind in (MOVES, combined.COMBINATION)}
    return {kind: (fold, *forecast_with_trees(fold)) for kind, fold in folds.items()}


@pytest.mark.parametrize("kind", [MOVES, combined.COMBINATION])
@pytest.mark.parametrize("backend", list(Backend))
def test_where_trees_are_a_part_of_it_they_are_those_of_the_classifier(
    tmp_path, with_trees, kind, backend
):
    fold, judged, percent = with_trees[kind]
    combined.export(tmp_path, kind, fold, {EXPECTED_MOVE: judged})
    bars = fold.dataset.bars
    predictor = Predictor(tmp_path, backend=backend)
    move = predictor.predict(bars).expected_move
    # The indicators of the newest window begin at another bar.
    assert move.percent == pytest.approx(percent, rel=1e-4)
    assert predictor.model("BTCUSDT", Timeframe.M15).expected_move(bars) == move
    assert move != replace(judged.model, range_forecast=None).newest(bars)


def test_in_a_batch_each_has_the_forecast_that_it_has_alone(tmp_path, with_trees, judged):
    fold, of_trees, _ = with_trees[MOVES]
    for symbol in ("AUSDT", "BUSDT", "DUSDT"):
        combined.export(tmp_path, MOVES, fold, {EXPECTED_MOVE: of_trees}, symbol=symbol)
    combined.export(tmp_path, MOVES, fold, {EXPECTED_MOVE: judged}, symbol="CUSDT")
    bars = fold.dataset.bars
    asked = [
        replace(bars, symbol="AUSDT"),
        replace(bars_to_learn_from(1600, seed=9), symbol="BUSDT"),
        replace(bars, symbol="CUSDT"),
        replace(drop_bars(bars, [len(bars) - 20]), symbol="DUSDT"),
    ]
    predictor = Predictor(tmp_path)
    together = predictor.predict_many(asked)
    first, second, third = together[:3]
    assert isinstance(together[3], NoPrediction)
    alone = [predictor.predict(each).expected_move for each in asked[:3]]
    assert [each.expected_move for each in (first, second, third)] == alone
    assert len({each.percent for each in alone}) == 3


def test_a_rejected_model_that_compares_markets_says_it_with_their_bars(tmp_path):
    others = {
        name: bars_to_learn_from(1600, symbol=name, seed=seed)
        for seed, name in enumerate(("BTCUSDT", "ETHUSDT"))
    }
    bars = others["BTCUSDT"]
    known = with_panel(bars, others.values())
    dataset = make_dataset(known, extra=("market",), references=tuple(others))
    fold = forecast_last_row(dataset, MOVES, JudgingRules(repetitions=50, model_name=MOVES))
    judged, percent = forecast_with_trees(fold)
    rejected = Gate(StoredVerdict.REJECTED, ("for a test",))
    combined.export(tmp_path, MOVES, fold, {EXPECTED_MOVE: judged}, gate=rejected)
    source = ModelSource(Predictor(tmp_path))
    loaded = SimpleNamespace(load=lambda symbol, timeframe: others[symbol])
    passed = source.answer(SourcedBars(bars, loaded))
    assert passed.reason == "model_rejected"
    assert passed.expected_move.percent == pytest.approx(percent, rel=1e-4)
    alone = source.answer(SourcedBars(bars))
    assert (alone.reason, alone.expected_move) == ("model_rejected", None)


def test_without_a_window_the_trees_cannot_be_asked_and_none_is_said(tmp_path, with_trees):
    fold, judged, _ = with_trees[MOVES]
    combined.export(tmp_path, MOVES, fold, {EXPECTED_MOVE: judged})
    bars = fold.dataset.bars
    model = Predictor(tmp_path).model("BTCUSDT", Timeframe.M15)
    few = bars.slice(len(bars) - bars_needed(Timeframe.M15))
    broken = drop_bars(bars, [len(bars) - 20])
    regression = replace(judged.model, range_forecast=None)
    for asked in (few, broken):
        assert regression.newest(asked) is not None
        assert model.expected_move(asked) is None


def test_trees_that_the_classifier_does_not_hold_give_no_forecast(tmp_path, judged, with_trees):
    _, of_trees, _ = with_trees[MOVES]
    for name in ("moves", "network", "nobody"):
        forecast = replace(of_trees.model.range_forecast, part=name)
        model = replace(of_trees.model, range_forecast=forecast)
        predictor = served(tmp_path, {EXPECTED_MOVE: replace(judged, model=model)})
        assert predictor.predict(BARS, SOON).expected_move is None


def test_only_trees_that_are_served_are_offered(with_trees):
    fold = with_trees[combined.COMBINATION][0]
    assert list(fold.log_ranges()) == [MOVES]
    assert combined.with_weights(fold, 1.0).log_ranges() == {}


@pytest.mark.parametrize("section", [None, {}, {"model": {"horizon": 3}}, [1, 2]])
def test_a_version_without_one_or_with_a_broken_one_answers_without(tmp_path, section):
    sections = {} if section is None else {EXPECTED_MOVE: section}
    prediction = served(tmp_path, sections).predict(BARS, SOON)
    assert prediction.expected_move is None
    content = to_json(prediction, BARS, SOON)
    assert (content["expected_move"], content["bands"], content["bands_at"]) == (None, None, None)


def test_one_of_another_timeframe_is_none(tmp_path, judged):
    model = replace(judged.model, coefficients=judged.model.coefficients[:-1])
    predictor = served(tmp_path, {EXPECTED_MOVE: replace(judged, model=model)})
    assert predictor.predict(BARS, SOON).expected_move is None


@pytest.mark.parametrize(
    "changes", [{"intercept": -2000.0}, {"intercept": -200.0}, {"range_factor": 1e300}]
)
def test_one_that_nobody_could_score_is_none(judged, changes):
    assert replace(judged.model, **changes).newest(BARS) is None


def test_with_too_few_bars_there_is_none(judged):
    needed = bars_needed(Timeframe.M15)
    assert judged.model.newest(BARS.slice(1800 - needed)) is not None
    assert judged.model.newest(BARS.slice(1801 - needed)) is None


def test_on_5m_a_server_and_a_caller_load_enough_for_it(tmp_path):
    m5 = Timeframe.M5
    bars = bars_to_learn_from(3400, timeframe=m5)
    dataset = make_dataset(bars)
    parts = (dataset.rows("train"), dataset.rows("validation"), dataset.rows("test"))
    section = fit_and_judge(bars, 3, parts, Bootstrap(3, repetitions=50))
    export(tmp_path, random_network(), dataset, sections={EXPECTED_MOVE: section})
    predictor = Predictor(tmp_path)
    manifest = predictor.model("BTCUSDT", m5).manifest
    few, enough = (
        predictor.predict(bars.slice(len(bars) - n_bars)).expected_move
        for n_bars in (manifest.history_bars, manifest.bars_to_load)
    )
    assert (few, enough) == (None, section.model.newest(bars))
    models = ServedModels(tmp_path, [("BTCUSDT", m5)], Discretion([]))
    assert models.bars_to_hold(("BTCUSDT", m5)) == manifest.bars_to_load


def test_a_rejected_model_still_says_how_far_the_price_moves(tmp_path, judged):
    predictor = served(tmp_path, {EXPECTED_MOVE: judged}, StoredVerdict.REJECTED)
    sources = [ModelSource(predictor), HoldSource()]
    answer = ask(sources, SourcedBars(BARS), max_age_bars=2, now=SOON)
    assert answer.source is Source.HOLD
    assert answer.expected_move == judged.model.newest(BARS)
    content = json.loads(one_line(to_json(answer, BARS, SOON)))
    assert content["bands_at"] == (BARS.close_time() + timedelta(minutes=45)).isoformat()
    assert set(content["bands"]) == {"50", "80", "95"}


def test_on_a_bar_that_is_too_old_nothing_is_said_of_the_move(tmp_path, judged):
    predictor = served(tmp_path, {EXPECTED_MOVE: judged}, StoredVerdict.REJECTED)
    later = SOON + timedelta(hours=5)
    sources = [ModelSource(predictor), HoldSource()]
    assert ask(sources, SourcedBars(BARS), 2, later).expected_move is None


def test_levels_in_units_of_the_expected_move_with_how_often_they_were_reached(tmp_path, judged):
    shares = [KnownInterval(share, share - 0.01, share + 0.01) for share in (0.1, 0.6, 0.3, 0.2)]
    in_atr, in_moves = LevelsReached(90, *shares), LevelsReached(91, *shares)
    network = random_network(Signal.LONG)
    sections = {EXPECTED_MOVE: judged, LEVELS: in_atr, LEVELS_IN_MOVES: in_moves}
    export(tmp_path, network, DATASET, sections=sections)
    usual, moves = (
        ModelSource(Predictor(tmp_path), levels=unit).answer(SourcedBars(BARS))
        for unit in (LevelUnit.ATR, LevelUnit.BANDS)
    )
    assert (usual.worth.reached, moves.worth.reached) == (in_atr, in_moves)
    close = BARS.column("close")[-1]
    unit = close * moves.expected_move.percent / 100
    # Rounded away from the entry, by less than a tick of these prices.
    assert moves.levels.stop_loss == pytest.approx(close - 1.5 * unit, abs=1e-2)
    assert moves.levels.tp1 == pytest.approx(close + unit, abs=1e-2)
    assert moves.levels.tp3 == pytest.approx(close + 3 * unit, abs=1e-2)
    assert usual.levels != moves.levels


def test_without_an_expected_move_there_are_no_levels_in_its_units(tmp_path):
    export(tmp_path, random_network(Signal.LONG), DATASET)
    source = ModelSource(Predictor(tmp_path), levels=LevelUnit.BANDS)
    answer = source.answer(SourcedBars(BARS))
    assert answer.signal is Signal.LONG
    assert answer.levels is None
