"""The strategy of examples/freqtrade in freqtrade's own backtest, on real bars."""

import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from bars.archive_server import serving
from builders import make_bars
from exported_models import export, make_dataset, random_network

from percoin import Predictor
from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.inference.results import FORECAST_PARTS
from percoin.registry.manifest import StoredVerdict
from percoin.types import Timeframe

ROOT = Path(__file__).parents[1]
FREQTRADE = "freqtrade==2026.9"
# A backtest begins among the train rows.
N_LEARNT, N_FIRST, N_BARS = 2500, 1500, 3400
# What the strategy said of each bar, kept for the test.
RECORDING = """
from percoin_strategy import PercoinStrategy


class Recording(PercoinStrategy):
    def populate_exit_trend(self, dataframe, metadata):
        dataframe = super().populate_exit_trend(dataframe, metadata)
        dataframe.to_parquet(metadata["pair"].replace("/", "") + ".parquet")
        return dataframe
"""

DRY = """
import json
from types import SimpleNamespace

import pandas as pd
from freqtrade.enums import RunMode
from percoin_strategy import PercoinStrategy

with open("config.json") as file:
    strategy = PercoinStrategy(json.load(file))
strategy.dp = SimpleNamespace(runmode=RunMode.DRY_RUN)
bars = pd.read_feather("data/BTC_USDT-15m.feather")
told = strategy.populate_indicators(bars, {"pair": "BTC/USDT"})
print(json.dumps(told["percoin_signal"].dropna().tolist()))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Python of an environment with percoin and freqtrade; PERCOIN_FREQTRADE may name one."""
    if named := os.environ.get("PERCOIN_FREQTRADE"):
        return Path(named)
    folder = tmp_path_factory.mktemp("freqtrade")
    venv.create(folder, with_pip=True)
    ours = folder / f"lib/python3.{sys.version_info.minor}/site-packages/percoin_tests.pth"
    # All that is installed here, torch above all, is found there too.
    ours.write_text("\n".join(site.getsitepackages()))
    python = folder / "bin/python"
    pins = ["-c", str(ROOT / "constraints.txt")]
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", *pins, FREQTRADE],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"freqtrade cannot be installed here: {installed.stderr.strip()[-300:]}")
    return python


def read(klines: Path, symbol: str) -> Bars:
    bars = FilesSource(klines).load(symbol, Timeframe.M15)
    return bars.slice(len(bars) - N_BARS, len(bars))


def write_folder(folder: Path, api: str, markets: list[Bars]) -> None:
    """Models, bars as freqtrade keeps them, its config, and the strategy."""
    for bars, verdict in zip(
        markets, (StoredVerdict.ACCEPTED, StoredVerdict.REJECTED), strict=True
    ):
        learnt = make_dataset(bars.slice(0, N_LEARNT))
        export(folder / "models", random_network(), learnt, verdict)
        file = folder / "data" / f"{pair_of(bars).replace('/', '_')}-15m.feather"
        file.parent.mkdir(exist_ok=True)
        bars.frame.reset_index(names="date").to_feather(file)
    strategies = folder / "strategies"
    strategies.mkdir()
    shutil.copy(ROOT / "examples/freqtrade/percoin_strategy.py", strategies)
    (strategies / "recording.py").write_text(RECORDING)
    shown = json.loads((ROOT / "examples/freqtrade/config.json").read_text())
    exchange = shown["exchange"] | {
        "pair_whitelist": [pair_of(bars) for bars in markets],
        "ccxt_config": {
            "urls": {"api": {"public": f"{api}/api/v3"}},
            "options": {"fetchMarkets": {"types": ["spot"]}},
        },
    }
    (folder / "config.json").write_text(json.dumps(shown | {"exchange": exchange}))


def pair_of(bars: Bars) -> str:
    return bars.symbol.removesuffix("USDT") + "/USDT"


@pytest.mark.slow
def test_a_backtest_of_freqtrade_trades_what_predict_range_says(python, klines, tmp_path):
    markets = [read(klines, "BTCUSDT"), read(klines, "ETHUSDT")]
    bars = markets[0]
    with serving() as exchange:
        for each in markets:
            exchange.add(each, each.close_time())
        write_folder(tmp_path, exchange.url, markets)
        backtest = subprocess.run(
            [
                *[python, "-m", "freqtrade", "backtesting", "--config", "config.json"],
                *["--strategy", "Recording", "--strategy-path", "strategies"],
                *["--datadir", "data", "--userdir", ".", "--export", "trades", "--cache", "none"],
                *["--timerange", f"{bars.open_time[N_FIRST] // 1000}-"],
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "NO_PROXY": "127.0.0.1",
                "PYTHONPATH": str(ROOT / "src"),
                # Its log is folded at the width of the terminal.
                "COLUMNS": "400",
            },
        )
    assert backtest.returncode == 0, backtest.stdout[-3000:] + backtest.stderr[-3000:]
    told = pd.read_parquet(tmp_path / "BTCUSDT.parquet").set_index("date")
    said = Predictor(tmp_path / "models").predict_range(bars).to_frame().loc[told.index]
    is_forecast = said["part"].isin(FORECAST_PARTS)
    assert set(said["part"]) > {"train", "validation", "test", "live"}
    assert told["percoin_part"].tolist() == said["part"].tolist()
    pd.testing.assert_series_equal(
        told["percoin_signal"], said["signal"], check_names=False, check_dtype=False
    )
    pd.testing.assert_series_equal(
        told["percoin_confidence"], said["confidence"], check_names=False, rtol=1e-6
    )
    for column, signal in (("enter_long", "LONG"), ("enter_short", "SHORT")):
        assert told[column].astype(bool).tolist() == (said["signal"] == signal).tolist()
        assert not told.loc[~is_forecast, column].any()
        assert told.loc[is_forecast, column].any()

    # A signal stands from its bar's close on, which is when the next one opens.
    trades = read_trades(tmp_path / "backtest_results")
    opened = pd.to_datetime(trades["open_date"], utc=True) - bars.timeframe.timedelta
    assert set(trades["pair"]) == {"BTC/USDT"}
    assert set(said.loc[opened, "signal"]) == {"LONG"}
    assert trades["trade_duration"].max() <= 3 * 15
    assert "no signals: ETH/USDT: its model is rejected: made for a test" in backtest.stderr

    assert newest_alone(python, tmp_path) == [said["signal"].iloc[-1]]


@pytest.fixture
def strategy(monkeypatch):
    """The strategy's module; of freqtrade there is what it names."""
    named = {
        "enums": {"RunMode": None},
        "exceptions": {"OperationalException": RuntimeError},
        "persistence": {"Trade": None},
        "strategy": {"IStrategy": type("IStrategy", (), {"__init__": lambda self, config: None})},
    }
    for name, members in named.items():
        monkeypatch.setitem(sys.modules, f"freqtrade.{name}", SimpleNamespace(**members))
    monkeypatch.setitem(sys.modules, "freqtrade", SimpleNamespace())
    file = ROOT / "examples/freqtrade/percoin_strategy.py"
    spec = importlib.util.spec_from_file_location("percoin_strategy", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_model_of_simulated_bars_gives_no_signal_and_the_log_says_so(strategy, tmp_path, caplog):
    simulated = replace(make_bars(1600, symbol="ETHUSDT"), origin="simulated: seed=0")
    for bars in (make_bars(1600), simulated):
        export(tmp_path, random_network(), make_dataset(bars))
    pairs = ["BTC/USDT", "ETH/USDT"]
    exchange = {"exchange": {"pair_whitelist": pairs}, "percoin": {"models_dir": str(tmp_path)}}
    trading = strategy.PercoinStrategy(exchange)
    assert [trading.find_model(pair) is not None for pair in pairs] == [True, False]
    [told] = [record.getMessage() for record in caplog.records]
    assert told.startswith("no signals: ETH/USDT: its model learnt from 'simulated")


def newest_alone(python: Path, folder: Path) -> list[str]:
    """The signals that a bot in dry mode has of the same bars."""
    (folder / "dry.py").write_text(DRY)
    said = subprocess.run(
        [python, "dry.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:strategies"},
    )
    return json.loads(said.stdout)


def read_trades(folder: Path) -> pd.DataFrame:
    [result] = folder.glob("*.zip")
    with zipfile.ZipFile(result) as archive:
        content = json.loads(archive.read(f"{result.stem}.json"))
    return pd.DataFrame(content["strategy"]["Recording"]["trades"])
