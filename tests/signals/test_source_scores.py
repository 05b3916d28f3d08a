from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders import drop_bars, make_bars
from exported_models import bars_to_learn_from, export, make_dataset, random_network
from market_judgements import RULE, dataset_of

from percoin.bars.panel import with_panel
from percoin.bars.schema import Bars
from percoin.bars.sources.base import BarSource
from percoin.evaluation.backtest import Costs
from percoin.evaluation.baselines import RollingPrior, default_baselines
from percoin.evaluation.evaluate import Forecast, assess
from percoin.evaluation.fold_forecasts import baseline_inputs
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.rules import read_momentum
from percoin.inference import Predictor
from percoin.intervals import KnownInterval
from percoin.labels import Relative
from percoin.signals.market import SourcedBars
from percoin.signals.market_scores import RULES_IN_ORDER, SourceTable, first_direction, score_market
from percoin.signals.measure import measure_worth
from percoin.signals.score_table import format_table, to_json
from percoin.signals.scores import Scorer
from percoin.signals.worth import SourceVerdict, SourceWorth
from percoin.types import UNKNOWN_LABEL, Signal, Source, Timeframe

BARS = make_bars(1500, seed=4)
DATASET = dataset_of(BARS)
BOOTSTRAP = Bootstrap(RULE.horizon, seed=0, repetitions=200)
SCORER = Scorer(DATASET, Costs(), BOOTSTRAP, n_trials=4)
ROWS = np.concatenate([DATASET.rows(part) for part in ("train", "validation", "test")])


def random_answers(seed: int = 0) -> np.ndarray:
    chances = [0.1, 0.1, 0.7, 0.1]
    return np.random.default_rng(seed).choice([-1, 0, 1, 2], size=len(BARS), p=chances)


def test_a_tally_against_a_slow_loop():
    answers = random_answers()
    tally = SCORER.score_rule("random", answers).test
    n_answers = n_moves = n_right = 0
    for row in DATASET.rows("test"):
        if answers[row] in (Signal.LONG, Signal.SHORT):
            n_answers += 1
            if DATASET.label[row] != Signal.NO_TRADE:
                n_moves += 1
                n_right += DATASET.label[row] == answers[row]
    assert (tally.n_rows, tally.n_answers) == (len(DATASET.rows("test")), n_answers)
    assert tally.n_moves == n_moves
    assert tally.hit_rate.value == pytest.approx(n_right / n_moves)


def test_a_rule_is_counted_on_all_rows_and_a_model_on_test_rows_alone():
    rule = SCORER.score_rule("random", random_answers())
    model = SCORER.score_model("model", np.full((len(DATASET.rows("test")), 3), 1 / 3))
    assert rule.everywhere.n_rows == len(ROWS) > rule.test.n_rows
    assert model.everywhere is None


def test_who_knows_the_answer_is_better_than_a_coin_and_who_knows_the_opposite_worse():
    known = SCORER.score_rule("oracle", DATASET.label)
    upside_down = np.where(DATASET.label < 0, DATASET.label, 2 - DATASET.label)
    opposite = SCORER.score_rule("opposite", upside_down)
    assert known.test.hit_rate.value == 1
    # The test rows are two days, too few for an interval.
    assert SourceVerdict.of(known.everywhere.hit_rate) == SourceVerdict.BETTER
    assert known.test.money.net_return > 0
    assert known.assessment.skill.value > 0.5
    assert opposite.test.hit_rate.value == 0
    assert SourceVerdict.of(opposite.everywhere.hit_rate) == SourceVerdict.WORSE
    assert opposite.test.money.net_return < 0


def test_a_coin_is_not_told_from_a_coin():
    coin = np.random.default_rng(1).choice([0, 2], size=len(BARS))
    score = SCORER.score_rule("coin", coin)
    assert SourceVerdict.of(score.everywhere.hit_rate) == SourceVerdict.LEVEL
    assert score.assessment.skill.upper < 0.01


def test_too_few_answers_tell_nothing():
    answers = np.full(len(BARS), Signal.NO_TRADE)
    assert SCORER.score_rule("silent", answers).test.hit_rate is None
    answers[DATASET.rows("test")[:4]] = Signal.LONG
    assert (
        SourceVerdict.of(SCORER.score_rule("quiet", answers).test.hit_rate) == SourceVerdict.TOO_FEW
    )


def recent_prior() -> np.ndarray:
    """What the baseline of that name says on the test rows."""
    prior, inputs = RollingPrior(), baseline_inputs(DATASET)
    train = DATASET.rows("train")
    prior.fit(inputs.take(train), DATASET.label[train])
    return prior.predict_proba(inputs.take(DATASET.rows("test")))


def test_a_source_is_scored_as_the_baseline_of_the_same_rule():
    baseline = next(b for b in default_baselines() if b.name == "momentum")
    inputs, train, test = baseline_inputs(DATASET), DATASET.rows("train"), DATASET.rows("test")
    baseline.fit(inputs.take(train), DATASET.label[train])
    asked = inputs.take(test)
    forecast = Forecast("momentum", baseline.predict_proba(asked), baseline.predict(asked))
    prior = default_baselines()[1]
    prior.fit(inputs.take(train), DATASET.label[train])
    shares = prior.predict_proba(asked)
    expected = assess(forecast, DATASET.label[test], shares, BOOTSTRAP, recent_prior())
    assert SCORER.score_rule("momentum", read_momentum(BARS).signal).assessment == expected


def test_probabilities_come_from_the_train_rows():
    answers = random_answers()
    label = DATASET.label.copy()
    later = np.concatenate([DATASET.rows("validation"), DATASET.rows("test")])
    label[later] = np.random.default_rng(2).permutation(label[later])
    shuffled = replace(SCORER, dataset=replace(DATASET, label=label))
    there, here = (scorer.score_rule("random", answers).assessment for scorer in (SCORER, shuffled))
    assert there.scores.log_loss != here.scores.log_loss
    # The same forecasts: the rows of each answer share one set of probabilities.
    assert there.scores.confusion_matrix != here.scores.confusion_matrix
    assert np.sum(there.scores.confusion_matrix, axis=0).tolist() == (
        np.sum(here.scores.confusion_matrix, axis=0).tolist()
    )


def test_money_is_made_between_the_first_row_and_the_last_label():
    first, last = int(ROWS[0]), int(ROWS[-1])
    answers = np.full(len(BARS), Signal.NO_TRADE)
    answers[first] = answers[last] = Signal.LONG
    money = SCORER.score_rule("two", answers).everywhere.money
    assert money.n_trades == 2
    close, opened = BARS.column("close"), BARS.column("open")
    gained = [
        close[row + RULE.horizon] * (1 - 0.0007) / opened[row + 1] - 1 - 0.0007
        for row in (first, last)
    ]
    assert money.net_return == pytest.approx(np.prod([1 + gain for gain in gained]) - 1, abs=1e-9)


def table_of(
    bars: Bars,
    models: Path,
    sources: tuple[Source, ...] = tuple(Source),
    source: BarSource | None = None,
) -> SourceTable:
    scorer = Scorer(make_dataset(bars), Costs(), BOOTSTRAP, n_trials=len(sources))
    return score_market(scorer, SourcedBars(bars, source), sources, models)


def test_every_source_has_a_score_or_a_reason(tmp_path):
    table = table_of(bars_to_learn_from(1600), tmp_path)
    assert [score.name for score in table.scores] == ["pro", "rsi_ma", "momentum", RULES_IN_ORDER]
    assert table.missing.keys() == {"ml"}
    assert "no model exported" in table.missing["ml"]


def test_a_missing_timeframe_is_a_reason(tmp_path):
    hours = replace(make_bars(900, timeframe=Timeframe.H1), origin="simulated: x")
    table = table_of(hours, tmp_path, (Source.PRO, Source.RSI_MA, Source.MOMENTUM, Source.HOLD))
    assert [score.name for score in table.scores] == ["rsi_ma"]
    assert table.missing.keys() == {"pro", "momentum"}
    assert "a market of their own" in table.missing["pro"]


def test_the_model_is_scored_on_the_test_rows_that_it_was_judged_on(tmp_path):
    bars = bars_to_learn_from(1600)
    dataset = make_dataset(bars)
    export(tmp_path, random_network(), dataset)
    table = table_of(bars, tmp_path, (Source.MODEL, Source.HOLD))
    rows, probabilities = Predictor(tmp_path).model("BTCUSDT", bars.timeframe).probabilities(bars)
    asked = probabilities[np.isin(rows, dataset.rows("test"))]
    [score] = table.scores
    decided, label = asked.argmax(axis=1), dataset.label[dataset.rows("test")]
    assert score.assessment.scores.accuracy == pytest.approx((decided == label).mean())
    assert score.test.n_answers == (decided != Signal.NO_TRADE).sum()


def test_a_model_is_not_scored_on_bars_that_it_learnt_from(tmp_path):
    bars = bars_to_learn_from(2000)
    export(tmp_path, random_network(), make_dataset(bars))
    table = table_of(bars.slice(0, 1600), tmp_path, (Source.MODEL, Source.HOLD))
    assert table.scores == ()
    assert "give the settings and bars that it was trained with" in table.missing["ml"]


def test_a_model_of_real_bars_is_not_scored_on_simulated_ones(tmp_path):
    bars = bars_to_learn_from(1600)
    export(tmp_path, random_network(), make_dataset(bars))
    simulated = replace(bars, origin="simulated: seed=0")
    assert "learnt from" in table_of(simulated, tmp_path, (Source.MODEL, Source.HOLD)).missing["ml"]


def test_a_model_that_compares_markets_is_scored_with_their_bars(tmp_path):
    others = {
        name: bars_to_learn_from(1600, symbol=name, seed=seed)
        for seed, name in enumerate(("BTCUSDT", "ETHUSDT"))
    }
    bars = others["BTCUSDT"]
    known = with_panel(bars, others.values()).slice(0, 1500)
    dataset = make_dataset(known, extra=("market",), references=tuple(others))
    network = random_network(n_features=len(dataset.feature_names))
    export(tmp_path, network, dataset)
    source = SimpleNamespace(load=lambda symbol, timeframe: others[symbol])
    [score] = table_of(bars, tmp_path, (Source.MODEL, Source.HOLD), source).scores
    assert score.name == "ml"
    alone = table_of(bars, tmp_path, (Source.MODEL, Source.HOLD))
    assert "the market ETHUSDT, which it is compared with, is missing" in alone.missing["ml"]


def test_a_relative_model_is_not_scored_on_labels_of_the_price(tmp_path):
    bars = bars_to_learn_from(1600)
    dataset = make_dataset(bars)
    relative = Relative(3, 0.4, 50, 1.0, 0.5, ("BTCUSDT", "ETHUSDT"))
    spec = replace(dataset.spec, label_rule=relative)
    export(tmp_path, random_network(), replace(dataset, spec=spec))
    table = table_of(bars, tmp_path, (Source.MODEL, Source.HOLD))
    assert table.scores == ()
    assert "beside the others of its pool" in table.missing["ml"]


def test_the_rules_in_order_give_the_first_direction(tmp_path):
    bars = bars_to_learn_from(1600)
    sources = (Source.MOMENTUM, Source.RSI_MA, Source.HOLD)
    table = table_of(bars, tmp_path, sources)
    momentum, rsi_ma, together = table.scores
    # RSI+MA is silent on a random walk.
    assert rsi_ma.everywhere.n_answers == 0
    assert together.test == replace(
        momentum.test,
        money=replace(momentum.test.money, name=RULES_IN_ORDER, equity=together.test.money.equity),
    )


def test_a_later_rule_speaks_only_where_no_earlier_one_does():
    first = np.array([0, 2, 1, 1, -1, 2])
    second = np.array([2, 2, 0, 1, 1, -1])
    third = np.array([1, 0, 2, 2, -1, 0])
    assert first_direction([first, second, third]).tolist() == [0, 2, 0, 2, -1, 2]


def test_answers_belong_to_their_bars_where_the_dataset_uses_the_last_of_them(tmp_path):
    """The rules see all bars, the dataset only those of its history, and some are missing."""
    bars = drop_bars(bars_to_learn_from(4000), [2500, 2501])
    scorer = Scorer(dataset_of(bars), Costs(), BOOTSTRAP, n_trials=2)
    later = dataset_of(bars.slice(1500))
    scorer_later = Scorer(later, Costs(), BOOTSTRAP, n_trials=2)
    [score] = score_market(
        scorer_later, SourcedBars(bars), (Source.MOMENTUM, Source.HOLD), tmp_path
    ).scores
    expected = scorer_later.score_rule("momentum", read_momentum(bars).signal[1500:])
    assert score.test.n_answers == expected.test.n_answers > 0
    assert score.test.hit_rate == expected.test.hit_rate
    assert scorer.dataset.rows("test")[0] > 1500


def test_unknown_answers_count_as_the_prior_and_trade_nothing():
    unknown = SCORER.score_rule("unknown", np.full(len(BARS), UNKNOWN_LABEL))
    assert unknown.assessment.skill.value == pytest.approx(0)
    assert unknown.test.n_answers == unknown.test.money.n_trades == 0


def test_text_and_json_name_every_source(tmp_path):
    bars = bars_to_learn_from(1600)
    table = table_of(bars, tmp_path)
    worth = measure_worth(SourcedBars(bars), RULE, repetitions=200)
    text, content = format_table(table, worth), to_json(table, worth)
    assert "no score for ml: BTCUSDT 15m: no model exported" in text
    names = ["pro", "rsi_ma", "momentum", RULES_IN_ORDER]
    for name in names:
        # Skill, hits and money on the test rows, hits and money on all rows.
        assert sum(line.startswith(f"{name}  ") for line in text.splitlines()) == 5
    assert [entry["name"] for entry in content["sources"]] == names
    dataset, rows = table.dataset, table.dataset.rows("test")
    closed = [dataset.bars.close_time(int(row)).isoformat() for row in (rows[0], rows[-1])]
    assert [content["test_from"], content["test_until"]] == closed
    assert "equity" not in str(content)
    assert (
        "all 1,600 bars, which decide who may answer: (96.7% interval, for 3 sources)\n  pro: "
        in text
    )
    assert list(content["worth"]["sources"]) == ["pro", "rsi_ma", "momentum"]


def test_sources_and_models_are_measured_with_both_rulers():
    model = SCORER.score_model("model", np.full((len(DATASET.rows("test")), 3), 1 / 3))
    rule = SCORER.score_rule("momentum", baseline_inputs(DATASET).momentum)
    recent = row_log_loss(recent_prior(), DATASET.label[DATASET.rows("test")]).mean()
    for score in (model, rule):
        expected = 1 - score.assessment.scores.log_loss / recent
        assert score.assessment.recent_skill.value == pytest.approx(expected)


def test_a_rule_that_is_worse_than_a_coin_is_said_to_give_no_answers(tmp_path):
    bars = bars_to_learn_from(1600)
    measured = measure_worth(SourcedBars(bars), RULE, repetitions=200)
    bad = SourceWorth(SourceVerdict.WORSE, 900, 500, KnownInterval(0.41, 0.37, 0.45))
    worth = replace(measured, sources=measured.sources | {"momentum": bad})
    text = format_table(table_of(bars, tmp_path), worth)
    assert text.splitlines()[-1] == (
        "  momentum: worse than a coin (500 moves after them, 0.410 [0.370, 0.450] right); "
        "it gives no answers here"
    )
