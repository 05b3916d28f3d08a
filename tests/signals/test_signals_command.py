import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from builders import make_bars

from percoin.bars.store import BarStore
from percoin.signals.command import main
from percoin.types import Timeframe

SIMULATED = (
    "symbol=BTCUSDT",
    "tf=15m",
    "source=simulated",
    "source.n_bars=6000",
    "repetitions=100",
)


@pytest.fixture(autouse=True)
def _no_arguments_of_pytest(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["signals"])
    monkeypatch.chdir(tmp_path)


def test_a_table_for_people(capsys):
    assert main(SIMULATED) == 0
    text = capsys.readouterr().out
    assert text.startswith("BTCUSDT 15m, 2025-08-")
    assert "no score for ml: BTCUSDT 15m: no model exported in models" in text
    assert "\nall rows, " in text
    assert "after 5 bps fee and 2 bps slippage a side" in text
    assert "every LONG and SHORT is traded, whatever its confidence" in text


def test_one_object_for_programs(capsys):
    assert main([*SIMULATED, "output=json", "chain=[momentum,hold]", "costs.fee_bps=0"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["symbol"], content["tf"]) == ("BTCUSDT", "15m")
    [source] = content["sources"]
    assert source["name"] == "momentum"
    assert source["test"]["n_rows"] > source["test"]["n_answers"] > 0
    assert source["test"]["money"]["fee_bps"] == 0
    assert content["missing"] == {}
    kept = json.loads(Path("data/source_worth/BTCUSDT/15m-simulated.json").read_text())
    assert kept["sources"].keys() == content["worth"]["sources"].keys()
    assert kept["bars"]["n_bars"] == 6000


def test_where_nothing_can_be_kept_the_table_is_shown_all_the_same(capsys, caplog):
    Path("data").write_text("a file in the place of the folder")
    assert main([*SIMULATED, "chain=[momentum,hold]"]) == 0
    assert "which decide who may answer" in capsys.readouterr().out
    assert "the worth of its sources cannot be stored in data_dir=data" in caplog.text


@pytest.mark.parametrize(
    ("word", "n_kept", "warned"),
    [
        ("source=store", 1, ""),
        ("labels.threshold=0.02", 1, "the labels are not the default ones"),
        ("source=sample", 2, ""),
    ],
)
def test_what_answers_go_by_is_measured_by_the_default_labels_on_each_kind_of_bars(
    word, n_kept, warned, caplog
):
    usual = ("symbol=BTCUSDT", "tf=1h", "repetitions=100", "chain=[momentum,hold]")
    bars = make_bars(4000, timeframe=Timeframe.H1)
    BarStore(Path("data/bars")).write(replace(bars, origin="binance spot: made up"))
    assert main(usual) == 0
    folder = Path("data/source_worth/BTCUSDT")
    file = folder / "1h-binance-spot.json"
    before = file.stat().st_mtime_ns
    assert main([*usual, word]) == 0
    assert (file.stat().st_mtime_ns == before) is (word != "source=store")
    assert len(list(folder.glob("*.json"))) == n_kept
    assert warned in caplog.text
    if warned:
        assert "kept is what python -m percoin.signals symbol=BTCUSDT tf=1h" in caplog.text


def test_a_number_that_json_has_no_word_for_is_null(monkeypatch, capsys):
    content = {"skill": -math.inf}
    monkeypatch.setattr("percoin.signals.score_table.to_json", lambda table, worth: content)
    assert main([*SIMULATED, "output=json"]) == 0
    assert capsys.readouterr().out == '{"skill": null}\n'


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("chain=[pro]", "error: chain=[pro] must end with hold, which alone always has an answer"),
        ("repetitions=10", "error: repetitions=10 must be at least 100"),
        ("output=xml", "error: output=xml must be one of text, json"),
        ("seed=-1", "error: seed=-1 must be at least 0"),
        ("lookback=0", "error: lookback=0 must be at least 1 bar"),
        ("history_days=0", "error: history_days=0 must be at least 1"),
    ],
)
def test_a_setting_out_of_range_is_one_line(capsys, override, words):
    assert main([*SIMULATED, override]) == 2
    assert capsys.readouterr().err.strip() == words


def test_a_market_without_bars_is_one_line(capsys):
    assert main(["symbol=BTCUSDT", "tf=15m", "source=store"]) == 1
    assert capsys.readouterr().err.startswith("error: BTCUSDT 15m: no bars are stored in data/bars")
