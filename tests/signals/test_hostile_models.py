"""A model that cannot be trusted is passed over with the reason, and nothing of it is run."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from exported_models import bars_to_learn_from, export, make_dataset, random_network
from hostile_files import saved_weights, trapped_pickle, trapped_weights, vouch_for

from percoin.bars.store import BarStore
from percoin.inference import Predictor
from percoin.registry.layout import MANIFEST_FILE, MarketFolder
from percoin.signals.chain import HoldSource, ModelSource, ask
from percoin.signals.market import SourcedBars
from percoin.types import Prediction, Signal, Source

ROOT = Path(__file__).parents[2]
BARS = bars_to_learn_from(1600)
ETHEREUM = replace(BARS, symbol="ETHUSDT")


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("once") / "models"
    export(root, random_network(Signal.LONG), make_dataset(BARS))
    export(root, random_network(Signal.LONG, seed=1), make_dataset(ETHEREUM))
    return root


@pytest.fixture
def root(once, tmp_path) -> Path:
    """A registry of two markets, each with a sound model that says LONG."""
    return shutil.copytree(once, tmp_path / "models", symlinks=True)


@pytest.fixture
def hit(tmp_path) -> Path:
    """What would be there if a trap had sprung."""
    return tmp_path / "hit"


def market(root: Path, symbol: str = "BTCUSDT") -> MarketFolder:
    return MarketFolder(root, symbol, "15m")


def served(root: Path, symbol: str = "BTCUSDT") -> Path:
    return market(root, symbol).link.resolve()


def ask_chain(root: Path, bars=BARS) -> Prediction:
    sources = [ModelSource(Predictor(root)), HoldSource()]
    return ask(sources, SourcedBars(bars), max_age_bars=float("inf"))


def flip_a_bit(root: Path, hit: Path) -> None:
    path = served(root) / "cnn_lstm_v1.pth"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def take_a_file_away(root: Path, hit: Path) -> None:
    (served(root) / "metrics.json").unlink()


def swap_the_scaler(root: Path, hit: Path) -> None:
    other = served(root, "ETHUSDT") / "scaler.pkl"
    (served(root) / "scaler.pkl").write_bytes(other.read_bytes() + b" ")


def swap_the_scaling_numbers(root: Path, hit: Path) -> None:
    path = served(root) / MANIFEST_FILE
    content = json.loads(path.read_text())
    content["scaling"]["mean"][0] += 1.0
    path.write_text(json.dumps(content, indent=2) + "\n")


def give_it_the_manifest_of_another_symbol(root: Path, hit: Path) -> None:
    shutil.copy(served(root, "ETHUSDT") / MANIFEST_FILE, served(root) / MANIFEST_FILE)


def raise_the_format_version(root: Path, hit: Path) -> None:
    path = served(root) / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))


def link_a_file_out(root: Path, hit: Path) -> None:
    path = served(root) / "cnn_lstm_v1.pth"
    path.rename(root.parent / "elsewhere")
    path.symlink_to(root.parent / "elsewhere")


def link_the_version_out(root: Path, hit: Path) -> None:
    folder = served(root)
    folder.rename(root.parent / "elsewhere")
    folder.symlink_to(root.parent / "elsewhere")


def lead_the_link_out(root: Path, hit: Path) -> None:
    shutil.copytree(served(root), root.parent / "elsewhere")
    market(root).link.unlink()
    market(root).link.symlink_to("../../../elsewhere")


def take_the_version_away(root: Path, hit: Path) -> None:
    shutil.rmtree(served(root))


def plant_a_scaler(root: Path, hit: Path) -> None:
    (served(root) / "scaler.pkl").write_bytes(trapped_pickle(hit))


def plant_weights(root: Path, hit: Path) -> None:
    (served(root) / "cnn_lstm_v1.pth").write_bytes(trapped_weights(hit))


def plant_weights_and_vouch_for_them(root: Path, hit: Path) -> None:
    vouch_for(market(root), served(root), {"cnn_lstm_v1.pth": trapped_weights(hit)})


def plant_a_pickle_as_weights_and_vouch_for_it(root: Path, hit: Path) -> None:
    vouch_for(market(root), served(root), {"cnn_lstm_v1.pth": trapped_pickle(hit)})


def vouch_for_weights_of_another_network(root: Path, hit: Path) -> None:
    network = random_network().lstm.state_dict()
    vouch_for(market(root), served(root), {"cnn_lstm_v1.pth": saved_weights(dict(network))})


DAMAGES: dict[Callable[[Path, Path], None], str] = {
    flip_a_bit: "cnn_lstm_v1.pth was changed after the export",
    take_a_file_away: "metrics.json is missing",
    swap_the_scaler: "scaler.pkl was changed after the export",
    swap_the_scaling_numbers: "meta.json: it was changed after the export",
    give_it_the_manifest_of_another_symbol: "meta.json: it belongs to ETHUSDT 15m",
    raise_the_format_version: "meta.json: format version 99 is newer than",
    link_a_file_out: "cnn_lstm_v1.pth is a link",
    link_the_version_out: "leads out of the models folder",
    lead_the_link_out: "leads to '../../../elsewhere', which is no version of it",
    take_the_version_away: "is gone",
    plant_a_scaler: "scaler.pkl was changed after the export",
    plant_weights: "cnn_lstm_v1.pth was changed after the export",
    plant_weights_and_vouch_for_them: "holds no weights that are safe to load",
    plant_a_pickle_as_weights_and_vouch_for_it: "holds no weights that are safe to load",
    vouch_for_weights_of_another_network: "the weights do not fit the network",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_market_falls_back_with_the_reason_and_the_others_do_not(root, hit, damage):
    damage(root, hit)
    prediction = ask_chain(root)

    assert (prediction.source, prediction.signal) == (Source.HOLD, Signal.NO_TRADE)
    (passed,) = prediction.passed
    assert passed.reason == "model_invalid"
    assert passed.detail.startswith("BTCUSDT 15m: ")
    assert DAMAGES[damage] in passed.detail
    assert not hit.exists()
    assert ask_chain(root, ETHEREUM).source is Source.MODEL


@pytest.mark.parametrize("name", ["scaler.pkl", "cnn_lstm_best.pth"])
def test_a_file_that_predictions_do_not_need_is_never_opened_up(root, hit, name):
    trap = trapped_pickle(hit) if name == "scaler.pkl" else trapped_weights(hit)
    vouch_for(market(root), served(root), {name: trap})

    assert ask_chain(root).source is Source.MODEL
    assert not hit.exists()


@pytest.mark.parametrize("symbol", ["..", "../ETHUSDT", "/etc", "", "ETHUSDT/15m"])
def test_a_symbol_that_is_a_path_falls_back_too(root, symbol):
    (passed,) = ask_chain(root, replace(BARS, symbol=symbol)).passed
    assert passed.reason == "model_missing"
    assert f"symbol={symbol!r} is not a market" in passed.detail


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [plant_a_scaler, plant_weights_and_vouch_for_them],
    ids=lambda damage: damage.__name__,
)
def test_a_real_prediction_runs_nothing_of_what_was_planted(root, hit, damage, tmp_path):
    damage(root, hit)
    BarStore(tmp_path / "bars").write(BARS)
    finished = subprocess.run(
        [
            *(sys.executable, ROOT / "predict.py", "symbol=BTCUSDT", "tf=15m", "source=store"),
            *(f"data_dir={tmp_path}", f"models_dir={root}", "output=json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    answer = json.loads(finished.stdout)
    assert answer["source"] != Source.MODEL
    assert answer["passed"][0]["reason"] == "model_invalid"
    assert "FALLBACK BTCUSDT reason=model_invalid" in finished.stderr
    assert not hit.exists()
