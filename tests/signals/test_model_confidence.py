import pytest
from exported_models import bars_to_learn_from, export, make_dataset, random_network

from percoin.inference import Predictor
from percoin.network import CnnLstm
from percoin.signals.market import SourcedBars
from percoin.signals.model import ModelSource
from percoin.types import Passed, Prediction, Signal

BARS = bars_to_learn_from(1600)
DATASET = make_dataset(BARS)


def fairly_sure(signal: Signal) -> CnnLstm:
    """The same answer to every window, with a probability of 0.83."""
    network = random_network()
    network.head[-1].weight.data.zero_()
    network.head[-1].bias.data.zero_()
    network.head[-1].bias.data[signal] = 3.0
    return network.eval()


def ask(root, signal, minimum):
    export(root, fairly_sure(signal), DATASET)
    return ModelSource(Predictor(root), min_confidence=minimum).answer(SourcedBars(BARS))


@pytest.mark.parametrize("signal", [Signal.SHORT, Signal.LONG])
def test_a_threshold_found_for_the_model_is_asked_of_its_directions(tmp_path, signal):
    asked = []

    def find(manifest):
        asked.append(manifest.symbol)
        return 0.9

    answer = ask(tmp_path, signal, find)

    assert isinstance(answer, Passed)
    assert (answer.reason, answer.detail) == ("low_confidence", "0.834 is below 0.900")
    assert asked == ["BTCUSDT"]
    below = ask(tmp_path, signal, lambda manifest: 0.8)
    assert isinstance(below, Prediction)
    assert below.signal is signal


def test_to_stay_out_needs_no_confidence_as_in_the_backtest(tmp_path):
    found = ask(tmp_path, Signal.NO_TRADE, lambda manifest: 0.9)
    assert isinstance(found, Prediction)
    assert found.signal is Signal.NO_TRADE

    # A number is asked of every answer.
    assert isinstance(ask(tmp_path, Signal.NO_TRADE, 0.9), Passed)
