import logging
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from builders import bars_from_closes, make_bars
from exported_models import bars_to_learn_from, export, make_dataset, random_network

from percoin.bars.schema import Bars
from percoin.errors import InvalidArtifactError
from percoin.evaluation.hit_rate import HitRate
from percoin.inference import Predictor
from percoin.intervals import KnownInterval
from percoin.registry.layout import SERVED_WEIGHTS_FILE
from percoin.registry.manifest import StoredVerdict
from percoin.signals.chain import HoldSource, ModelSource, ask, build_chain
from percoin.signals.market import SourcedBars
from percoin.signals.protocol import MarketBars
from percoin.signals.response import to_json
from percoin.types import LevelsReached, Passed, Prediction, Signal, Source, Worth

BARS = bars_to_learn_from(1600)
MARKET = SourcedBars(BARS)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    export(root, random_network(Signal.LONG), make_dataset(BARS))
    return root


def reason(source: ModelSource, bars: Bars = BARS) -> str:
    answer = source.answer(SourcedBars(bars))
    assert isinstance(answer, Passed), answer
    assert answer.source is Source.MODEL
    assert answer.detail
    return answer.reason


class Never:
    """Has no answer, ever."""

    def __init__(self, reason: str) -> None:
        self.passed = Passed(Source.MODEL, reason, "by a test")

    def answer(self, market: MarketBars) -> Passed:
        return self.passed


def test_the_first_that_has_an_answer_gives_it_and_nobody_after_it_is_asked(models):
    class Unasked:
        def answer(self, market: MarketBars) -> Prediction:
            pytest.fail("asked after an answer was there")

    prediction = ask([ModelSource(Predictor(models)), Unasked()], MARKET)

    assert (prediction.source, prediction.signal) == (Source.MODEL, Signal.LONG)
    assert prediction.passed == ()


def test_who_passed_and_why_is_told_in_order():
    first, second = Never("model_missing"), Never("insufficient_data")
    prediction = ask([first, second, HoldSource()], MARKET)

    assert prediction.source is Source.HOLD
    assert prediction.passed == (first.passed, second.passed)


def test_no_trade_of_a_model_is_an_answer(tmp_path):
    export(tmp_path, random_network(Signal.NO_TRADE), make_dataset(BARS))
    prediction = ask([ModelSource(Predictor(tmp_path)), HoldSource()], MARKET)

    assert (prediction.source, prediction.signal) == (Source.MODEL, Signal.NO_TRADE)
    assert prediction.confidence > 0.99


def test_the_answer_of_a_model_says_what_its_test_has_shown(tmp_path):
    hits = {"value": 0.53, "lower": 0.51, "upper": 0.55, "n_moves": 700}
    dataset = make_dataset(BARS)
    export(tmp_path, random_network(Signal.LONG), dataset, sections={"hit_rate": hits})
    worth = ask([ModelSource(Predictor(tmp_path)), HoldSource()], MARKET).worth

    assert (worth.verdict, worth.n_moves) == ("accepted", 700)
    assert worth.hit_rate == HitRate(**hits)
    last = dataset.rows("test")[-1]
    assert worth.until == BARS.close_time(last).to_pydatetime()


SHARE = {"value": 0.25, "lower": 0.2, "upper": 0.3}
LEVELS = {"n_signals": 700} | dict.fromkeys(("stop_loss", "tp1", "tp2", "tp3"), SHARE)


def test_the_answer_of_a_model_says_what_was_judged_of_trading_it(tmp_path):
    dataset, judging = make_dataset(BARS), {"threshold": 0.5, "folds": 1}
    sections = {"judging": judging, "levels": LEVELS}
    export(tmp_path, random_network(Signal.LONG), dataset, sections=sections)
    prediction = ask([ModelSource(Predictor(tmp_path)), HoldSource()], MARKET)

    assert prediction.horizon_bars == dataset.label_rule.horizon
    assert prediction.valid_until == prediction.ts + prediction.horizon_bars * timedelta(minutes=15)
    assert prediction.would_trade is True
    worth, share = prediction.worth, KnownInterval(**SHARE)
    assert (worth.threshold, worth.reached) == (0.5, LevelsReached(700, *[share] * 4))
    assert worth.hit_rate is None
    assert worth.until == BARS.close_time(dataset.rows("test")[-1]).to_pydatetime()


@pytest.mark.parametrize(
    "levels",
    [
        None,
        LEVELS | {"tp1": SHARE | {"upper": 1.5}},
        LEVELS | {"tp1": SHARE | {"lower": 0.26}},
        LEVELS | {"tp1": 0.25},
        {"n_signals": 700},
    ],
)
def test_levels_that_cannot_be_read_are_not_told(tmp_path, levels):
    sections = {"levels": levels}
    export(tmp_path, random_network(Signal.LONG), make_dataset(BARS), sections=sections)
    prediction = ask([ModelSource(Predictor(tmp_path)), HoldSource()], MARKET)

    assert prediction.worth == Worth("accepted")
    assert prediction.would_trade is None
    assert to_json(prediction, BARS, prediction.ts)["levels_reached"] is None


@pytest.mark.parametrize("section", [{}, {"hit_rate": None}, {"hit_rate": {"value": "0.5"}}])
def test_an_older_model_answers_with_its_verdict_alone(tmp_path, section):
    export(tmp_path, random_network(Signal.LONG), make_dataset(BARS), sections=section)
    prediction = ask([ModelSource(Predictor(tmp_path)), HoldSource()], MARKET)
    assert prediction.worth == Worth("accepted")


def test_a_model_whose_version_was_replaced_answers_with_its_verdict_alone(
    models, caplog, monkeypatch
):
    def of_another_version(root, manifest):
        raise InvalidArtifactError("BTCUSDT", "15m", "metrics.json is of another one", "wait")

    monkeypatch.setattr("percoin.signals.model.judged_hit_rate", of_another_version)
    source = ModelSource(Predictor(models))
    for _ in range(2):
        assert ask([source, HoldSource()], MARKET).worth == Worth("accepted")
    # It is read once.
    assert caplog.messages.count("BTCUSDT 15m: metrics.json is of another one; wait") == 1


def test_the_log_lines_are_those_that_operators_grep_for(models, caplog):
    caplog.set_level(logging.INFO)
    ask([ModelSource(Predictor(models)), HoldSource()], MARKET)
    ask([Never("model_missing"), HoldSource()], MARKET)

    assert caplog.messages == [
        "Loaded metadata: BTCUSDT 15m",
        "Loaded model: BTCUSDT 15m (features=15)",
        "Loaded scaler: BTCUSDT 15m",
        "PREDICT BTCUSDT tf=15m pred=LONG conf=1.00 source=ML_PER_COIN_V1",
        "FALLBACK BTCUSDT reason=model_missing",
        "PREDICT BTCUSDT tf=15m pred=NO_TRADE conf=0.00 source=FALLBACK_NEUTRAL",
    ]


def test_a_chain_without_a_last_word_is_a_mistake_of_the_program():
    with pytest.raises(ValueError, match="last source of a chain"):
        ask([Never("model_missing")], MARKET)


def test_hold_never_claims_anything():
    prediction = HoldSource().answer(MARKET)

    assert (prediction.signal, prediction.confidence) == (Signal.NO_TRADE, 0.0)
    assert (prediction.probabilities, prediction.levels, prediction.model_version) == (None,) * 3
    assert prediction.ts == BARS.close_time()


def test_a_switched_off_model_is_not_even_loaded(tmp_path):
    assert reason(ModelSource(Predictor(tmp_path), enabled=False)) == "ml_disabled"


def test_no_model(tmp_path):
    assert reason(ModelSource(Predictor(tmp_path))) == "model_missing"


def test_a_changed_model(tmp_path):
    folder = export(tmp_path, random_network(), make_dataset(BARS))
    (folder / SERVED_WEIGHTS_FILE).write_bytes(b"something else")
    assert reason(ModelSource(Predictor(tmp_path))) == "model_invalid"


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [(StoredVerdict.REJECTED, "model_rejected"), (StoredVerdict.NOT_JUDGED, "model_not_judged")],
)
def test_a_model_that_the_gate_did_not_accept(tmp_path, verdict, expected):
    export(tmp_path, random_network(Signal.SHORT), make_dataset(BARS), verdict)

    assert reason(ModelSource(Predictor(tmp_path))) == expected
    asked = ModelSource(Predictor(tmp_path), require_accepted=False).answer(MARKET)
    assert isinstance(asked, Prediction)


def test_too_few_bars(models):
    assert reason(ModelSource(Predictor(models)), BARS.slice(800)) == "insufficient_data"


@pytest.mark.parametrize(("minimum", "passes"), [(0.0, False), (0.99, False), (1.0, True)])
def test_a_signal_less_probable_than_asked_for(tmp_path, minimum, passes):
    network = random_network()
    # Probable, not certain: e^6 to 1 at most after the temperature.
    network.head[-1].weight.data.mul_(0.0)
    network.head[-1].bias.data.copy_(network.head[-1].bias.data.new_tensor([0.0, 0.0, 10.0]))
    export(tmp_path, network, make_dataset(BARS))
    answer = ModelSource(Predictor(tmp_path), min_confidence=minimum).answer(MARKET)

    assert isinstance(answer, Passed) == passes
    if isinstance(answer, Passed):
        assert answer.reason == "low_confidence"


def test_a_model_of_real_bars_is_not_asked_about_simulated_ones_nor_the_reverse(models, tmp_path):
    simulated = replace(BARS, origin="simulated: seed=0")
    assert reason(ModelSource(Predictor(models)), simulated) == "other_data"

    export(tmp_path, random_network(), make_dataset(simulated))
    assert reason(ModelSource(Predictor(tmp_path)), BARS) == "other_data"
    assert isinstance(ModelSource(Predictor(tmp_path)).answer(SourcedBars(simulated)), Prediction)


def test_each_market_has_its_own_model(models):
    other = make_bars(1600, symbol="ETHUSDT")
    source = ModelSource(Predictor(models))

    assert isinstance(source.answer(MARKET), Prediction)
    assert reason(source, other) == "model_missing"


def historical(bars: Bars) -> Bars:
    """Bars of a source that nobody takes for the present."""
    return replace(bars, origin="files: test/BTCUSDT-15m.csv")


def history(closes: list[float]) -> Bars:
    """Forty days of a price that hardly moves, then these closes of 15m."""
    still = 100 * (1 + 0.0002 * (np.arange(3840) % 2))
    return historical(bars_from_closes([*still, *closes]))


def climbing() -> Bars:
    """Three bars up, one down, and ever faster: every part of the analysis points up."""
    bar = np.arange(4000)
    moves = np.where(bar % 4 == 3, -0.0004, 0.0004 * (1 + bar / 4000))
    bars = bars_from_closes(100 * np.exp(np.cumsum(moves)))
    frame = bars.frame.assign(volume=np.where(moves > 0, 2.0, 1.0))
    return historical(replace(bars, frame=frame))


CLIMBING = climbing()
CRASHED = history([50 + 0.0125 * bar for bar in range(104)])
JUMPED = history([103.0])
SILENT = history([])


@pytest.mark.parametrize(
    ("bars", "source", "signal", "reasons"),
    [
        (CLIMBING, Source.PRO, Signal.LONG, ["model_missing"]),
        (CRASHED, Source.RSI_MA, Signal.LONG, ["model_missing", "no_confluence"]),
        (JUMPED, Source.MOMENTUM, Signal.LONG, ["model_missing", "no_confluence", "no_signal"]),
        (
            SILENT,
            Source.HOLD,
            Signal.NO_TRADE,
            ["model_missing", "no_confluence", "no_signal", "no_signal"],
        ),
    ],
)
def test_every_source_is_reached_and_says_why_those_before_it_passed(
    tmp_path, caplog, bars, source, signal, reasons
):
    caplog.set_level(logging.INFO, logger="percoin.signals.chain")
    chain = build_chain(list(Source), ModelSource(Predictor(tmp_path)))
    prediction = ask(chain, SourcedBars(bars))

    assert (prediction.source, prediction.signal) == (source, signal)
    assert [passed.reason for passed in prediction.passed] == reasons
    assert [passed.source for passed in prediction.passed] == list(Source)[: len(reasons)]
    assert all(passed.detail for passed in prediction.passed)
    assert (prediction.levels is None) == (signal is Signal.NO_TRADE)
    confidence = f"{prediction.confidence:.2f}"
    assert caplog.messages == [
        *(f"FALLBACK BTCUSDT reason={reason}" for reason in reasons),
        f"PREDICT BTCUSDT tf=15m pred={signal.name} conf={confidence} source={source.value}",
    ]


def test_a_chain_asks_whom_it_is_told_in_that_order(tmp_path):
    sources = [Source.MOMENTUM, Source.MODEL, Source.HOLD]
    prediction = ask(build_chain(sources, ModelSource(Predictor(tmp_path))), SourcedBars(SILENT))
    assert [passed.source for passed in prediction.passed] == [Source.MOMENTUM, Source.MODEL]


def test_the_switch_of_the_professional_leaves_the_others_alone(tmp_path):
    chain = build_chain(list(Source), ModelSource(Predictor(tmp_path)), use_pro=False)
    prediction = ask(chain, SourcedBars(CLIMBING))
    assert prediction.source is not Source.PRO
    assert [passed.reason for passed in prediction.passed[:3]] == [
        "model_missing",
        "pro_disabled",
        "no_signal",
    ]
