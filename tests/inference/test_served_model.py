from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import bars_from_closes, drop_bars, make_bars
from exported_models import (
    LOOKBACK,
    SMALL,
    TEMPERATURE,
    bars_to_learn_from,
    export,
    make_dataset,
    random_network,
    serve,
)

from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.dataset import MarketDataset
from percoin.errors import (
    ConfigError,
    InvalidArtifactError,
    ModelNotFoundError,
    NotEnoughBarsError,
)
from percoin.features.feature_set import (
    WARM_UP_BARS,
    FeatureDefinition,
    FeatureSet,
    history_bars,
)
from percoin.inference import Predictor, ServedModel, find_levels
from percoin.network import CnnLstm
from percoin.types import Signal, Source, Timeframe

HISTORY = history_bars(LOOKBACK)
EXTRA = FeatureSet(extra=("volatility", "clock"))
FEATURE_SETS = [*map(FeatureSet, FeatureDefinition), EXTRA]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.inference_mode()
def answers_in_training(network: CnnLstm, dataset: MarketDataset, rows: np.ndarray) -> np.ndarray:
    """What the network says of the very windows it would be trained on, float64 softmax."""
    windows = torch.tensor(dataset.windows[rows - dataset.lookback + 1])
    return torch.softmax(network(windows).double() / TEMPERATURE, dim=1).numpy()


def rows_of(dataset: MarketDataset) -> np.ndarray:
    return np.concatenate([dataset.rows(part) for part in ("train", "validation", "test")])


def answer_live(model: ServedModel, bars: Bars, row: int) -> np.ndarray:
    """The answer at the close of a bar, from no more bars than a caller has to load."""
    return model.newest(bars.slice(max(0, row + 1 - HISTORY), row + 1))


def flat(bars: Bars, start: int, stop: int) -> Bars:
    """The same bars with a price that stands still, as in an exchange halt; volume stays."""
    frame = bars.frame.copy()
    price = frame["close"].iloc[start - 1]
    frame.iloc[start:stop, :4] = price
    frame.iloc[stop, frame.columns.get_loc("open")] = price
    frame["high"] = frame[["open", "high", "close"]].max(axis=1)
    frame["low"] = frame[["open", "low", "close"]].min(axis=1)
    return replace(bars, frame=frame)


def silent(bars: Bars, positions: list[int]) -> Bars:
    """The same bars, some without volume."""
    frame = bars.frame.copy()
    frame.iloc[positions, frame.columns.get_loc("volume")] = 0.0
    return replace(bars, frame=frame)


MARKETS = {
    "plain": bars_to_learn_from(1600),
    "gaps": drop_bars(bars_to_learn_from(1650), [300, *range(1100, 1112), 1300]),
    "flat": flat(bars_to_learn_from(1600), 1250, 1290),
    "silent": silent(bars_to_learn_from(1600), [700, 1200, 1201, 1400]),
}


@pytest.mark.parametrize("features", FEATURE_SETS, ids=str)
@pytest.mark.parametrize("market", MARKETS)
def test_a_replay_of_live_answers_equals_training(tmp_path, market, features):
    bars = MARKETS[market]
    dataset = make_dataset(bars, features.definition, features.extra)
    network = random_network(n_features=len(dataset.feature_names))
    model = serve(tmp_path, network, dataset)
    rows, probabilities = model.probabilities(bars)

    rows_in_training = rows_of(dataset)
    assert set(rows_in_training) <= set(rows)
    in_training = answers_in_training(network, dataset, rows)
    # The answers must differ from window to window, or equality would prove nothing.
    assert in_training.std(axis=0).max() > 0.05
    np.testing.assert_allclose(probabilities, in_training, atol=1e-5, rtol=0)

    # All around what is odd in each market, and far from it.
    replayed = [row for row in range(HISTORY, len(bars), 7) if row in set(rows)]
    assert len(replayed) > 50
    live = np.array([answer_live(model, bars, row) for row in replayed])
    expected = probabilities[np.searchsorted(rows, replayed)]
    np.testing.assert_allclose(live, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("market", ["gaps", "silent"])
def test_live_refuses_exactly_the_bars_that_training_leaves_out(tmp_path, market):
    bars = MARKETS[market]
    model = serve(tmp_path, random_network(), make_dataset(bars))
    rows, _ = model.probabilities(bars)
    left_out = sorted(set(range(HISTORY, len(bars))) - set(rows.tolist()))

    assert left_out
    for row in left_out[::9]:
        with pytest.raises(NotEnoughBarsError, match="BTCUSDT 15m"):
            answer_live(model, bars, row)


@pytest.mark.parametrize("features", FEATURE_SETS, ids=str)
def test_a_replay_on_real_bars_equals_training(tmp_path, klines, features):
    bars = FilesSource(klines).load("BTCUSDT", Timeframe.M15)
    # Around 2024-10-28, when four bars were flat and without volume.
    halt = int(np.flatnonzero(bars.column("volume") == 0)[0])
    bars = bars.slice(halt - 1500, halt + 500)
    dataset = make_dataset(bars, features.definition, features.extra)
    network = random_network(n_features=len(dataset.feature_names))
    model = serve(tmp_path, network, dataset)
    rows, probabilities = model.probabilities(bars)
    np.testing.assert_allclose(
        probabilities, answers_in_training(network, dataset, rows), atol=1e-5, rtol=0
    )

    replayed = [row for row in range(1000, 2000, 13) if row in set(rows)]
    live = np.array([answer_live(model, bars, row) for row in replayed])
    assert len(replayed) > 50
    np.testing.assert_allclose(
        live, probabilities[np.searchsorted(rows, replayed)], atol=1e-5, rtol=0
    )


def test_the_history_that_a_caller_loads_is_needed(tmp_path):
    bars = MARKETS["plain"]
    model = serve(tmp_path, random_network(), make_dataset(bars))
    rows, probabilities = model.probabilities(bars)
    short = bars.slice(1600 - WARM_UP_BARS - LOOKBACK)
    _, from_short = model.probabilities(short)

    assert rows[-1] == len(bars) - 1
    assert np.abs(from_short[-1] - probabilities[-1]).max() > 1e-5


def test_answers_do_not_depend_on_the_windows_asked_beside(tmp_path):
    bars = MARKETS["plain"]
    model = serve(tmp_path, random_network(), make_dataset(bars))
    _, all_at_once = model.probabilities(bars)
    rows, fewer = model.probabilities(bars.slice(0, 1100))

    np.testing.assert_allclose(fewer, all_at_once[: len(rows)], atol=1e-6, rtol=0)
    np.testing.assert_allclose(all_at_once.sum(axis=1), 1, atol=1e-12)


def test_bars_before_the_first_that_is_asked_about_are_history_all_the_same(tmp_path):
    bars = MARKETS["gaps"]
    model = serve(tmp_path, random_network(), make_dataset(bars))
    rows, probabilities = model.probabilities(bars)
    later, fewer = model.probabilities(bars, 1350)

    assert later.tolist() == [row for row in rows if row >= 1350]
    np.testing.assert_allclose(fewer, probabilities[rows >= 1350], atol=1e-6, rtol=0)


def test_no_window_gives_no_rows(tmp_path):
    model = serve(tmp_path, random_network(), make_dataset(MARKETS["plain"]))
    rows, probabilities = model.probabilities(MARKETS["plain"].slice(0, 80))

    assert len(rows) == 0
    assert probabilities.shape == (0, 3)


@pytest.mark.parametrize("n_bars", [0, 1, 60, WARM_UP_BARS + LOOKBACK, HISTORY - 1])
def test_a_history_that_indicators_have_not_forgotten_is_refused(tmp_path, n_bars):
    bars = MARKETS["plain"]
    model = serve(tmp_path, random_network(), make_dataset(bars))

    with pytest.raises(NotEnoughBarsError, match=rf"BTCUSDT 15m: {n_bars} bars .* {HISTORY} bars"):
        model.newest(bars.slice(len(bars) - n_bars))


def test_a_market_younger_than_the_longest_span_has_no_answer_yet(tmp_path):
    dataset = make_dataset(bars_to_learn_from(1600), extra=EXTRA.extra)
    model = serve(tmp_path, random_network(n_features=27), dataset)
    # From the first bar of the training on, so that the recursive indicators are no obstacle.
    needed = EXTRA.warm_up_bars(Timeframe.M15) + LOOKBACK
    bars = dataset.bars
    with pytest.raises(NotEnoughBarsError, match=f"the newest of {needed - 1} bars"):
        model.newest(bars.slice(0, needed - 1))
    assert model.newest(bars.slice(0, needed)).sum() == pytest.approx(1)


def test_a_young_market_is_answered_from_its_first_bar_on(tmp_path):
    bars = bars_to_learn_from(500)
    dataset = make_dataset(bars)
    network = random_network()
    model = serve(tmp_path, network, dataset)
    rows, _ = model.probabilities(bars)
    expected = answers_in_training(network, dataset, rows[-1:])[0]

    np.testing.assert_allclose(model.newest(bars), expected, atol=1e-5)
    with pytest.raises(NotEnoughBarsError, match="499 bars are too few"):
        model.newest(bars.slice(1))


def test_weights_of_another_network_are_an_invalid_artifact(tmp_path):
    export(
        tmp_path, random_network(), make_dataset(MARKETS["plain"]), kwargs=SMALL | {"n_layers": 1}
    )

    with pytest.raises(InvalidArtifactError, match="BTCUSDT 15m: the weights do not fit"):
        Predictor(tmp_path).predict(MARKETS["plain"])


def test_a_network_larger_than_its_weights_is_not_built(tmp_path, monkeypatch):
    described = {"hidden_size": 1_000, "n_layers": 3}
    export(tmp_path, random_network(), make_dataset(MARKETS["plain"]), kwargs=described)
    monkeypatch.setattr("percoin.network.CnnLstm", lambda *_, **__: pytest.fail("it was built"))

    with pytest.raises(InvalidArtifactError, match="the weights do not fit the network: it has"):
        Predictor(tmp_path).predict(MARKETS["plain"])


@pytest.mark.parametrize("kwargs", [{"no_such_width": 3}, SMALL | {"n_heads": 3}])
def test_a_network_that_cannot_be_built_is_an_invalid_artifact(tmp_path, kwargs):
    export(tmp_path, random_network(), make_dataset(MARKETS["plain"]), kwargs=kwargs)

    with pytest.raises(InvalidArtifactError, match="BTCUSDT 15m"):
        Predictor(tmp_path).predict(MARKETS["plain"])


def test_a_market_without_a_model_says_so(tmp_path):
    with pytest.raises(ModelNotFoundError, match="BTCUSDT 15m"):
        Predictor(tmp_path).predict(MARKETS["plain"])


def test_a_device_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"device=cuda:63 \(or ML_DEVICE\).*use device=cpu"):
        Predictor(tmp_path, "cuda:63")


@pytest.mark.parametrize("signal", list(Signal))
def test_a_prediction_carries_the_most_probable_signal(tmp_path, signal):
    bars = MARKETS["plain"]
    export(tmp_path, random_network(signal), make_dataset(bars))

    prediction = Predictor(tmp_path).predict(bars)

    assert prediction.signal is signal
    assert prediction.probabilities is not None
    assert prediction.confidence == prediction.probabilities[signal] > 0.99
    assert (prediction.symbol, prediction.timeframe) == ("BTCUSDT", Timeframe.M15)
    assert prediction.source is Source.MODEL
    assert prediction.model_version == "cnn_lstm_v1"
    assert prediction.ts == bars.frame.index[-1] + Timeframe.M15.timedelta
    assert (prediction.levels is None) == (signal is Signal.NO_TRADE)


def steady_bars() -> Bars:
    """Every bar spans 98 to 102 and closes at 100, so every true range is 4."""
    bars = bars_from_closes([100.0] * 40)
    bars.frame["high"] = 102.0
    bars.frame["low"] = 98.0
    return bars


def test_levels_of_a_long_signal_are_worked_by_hand():
    levels = find_levels(steady_bars(), Signal.LONG)

    assert levels is not None
    found = (levels.entry_price, levels.stop_loss, levels.tp1, levels.tp2, levels.tp3)
    # ATR 4: stop 1.5 ATR below, targets 1, 2 and 3 ATR above.
    assert found == pytest.approx((100, 94, 104, 108, 112))


def test_levels_of_a_short_signal_are_worked_by_hand():
    levels = find_levels(steady_bars(), Signal.SHORT)

    assert levels is not None
    found = (levels.entry_price, levels.stop_loss, levels.tp1, levels.tp2, levels.tp3)
    assert found == pytest.approx((100, 106, 96, 92, 88))


def test_no_levels_where_the_last_target_is_no_price():
    bars = steady_bars()
    bars.frame["low"] = 30.0
    assert find_levels(bars, Signal.LONG) is not None
    assert find_levels(bars, Signal.SHORT) is None


def test_no_trade_has_no_levels():
    assert find_levels(steady_bars(), Signal.NO_TRADE) is None


@pytest.mark.parametrize("bars", [make_bars(13), bars_from_closes([100.0] * 40)])
def test_no_levels_where_the_range_is_unknown_or_nothing(bars):
    assert find_levels(bars, Signal.LONG) is None
