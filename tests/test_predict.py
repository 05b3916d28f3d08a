import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import warm_processes
from builders import bars_from_closes
from exported_models import bars_to_learn_from, export, make_dataset, random_network
from hostile_files import vouch_for

from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import PredictConfig, typed
from percoin.intervals import KnownInterval
from percoin.predict import answer, to_text
from percoin.registry.layout import MANIFEST_FILE, SERVED_WEIGHTS_FILE, MarketFolder
from percoin.registry.manifest import StoredVerdict
from percoin.signals.command import main as measure
from percoin.signals.response import to_json
from percoin.types import (
    NO_TRADES,
    Levels,
    LevelsReached,
    Passed,
    Prediction,
    Signal,
    Source,
    Timeframe,
    Worth,
)

ROOT = Path(__file__).parents[1]
BARS = bars_to_learn_from(1600)
LOADED = [
    "Loaded metadata: BTCUSDT 15m",
    "Loaded model: BTCUSDT 15m (features=15)",
    "Loaded scaler: BTCUSDT 15m",
]
# Of the bars above: too short a history for the first, nothing to say for the others.
RULES_PASS = ["insufficient_data", "no_signal", "no_signal"]
HELD = [
    *(f"FALLBACK BTCUSDT reason={reason}" for reason in RULES_PASS),
    "PREDICT BTCUSDT tf=15m pred=NO_TRADE conf=0.00 source=FALLBACK_NEUTRAL",
]
ORIGINAL_VARIABLES = {
    "ML_DEFAULT_TF",
    "ML_DEVICE",
    "USE_ML_PER_COIN",
    "MIN_CONFIDENCE",
    "USE_PRO_ANALYZER",
}
LIBRARIES_OF_TRAINING = {
    "lightning",
    "pytorch_lightning",
    "torchmetrics",
    "sklearn",
    "scipy",
    "matplotlib",
    "tensorboard",
    "pandera",
    "rich",
}


@pytest.fixture(scope="module")
def long_model(tmp_path_factory) -> Path:
    """A folder with bars and a model that always says LONG."""
    return make_folder(tmp_path_factory.mktemp("long"), Signal.LONG)


def make_folder(folder: Path, favoured: Signal) -> Path:
    BarStore(folder / "data" / "bars").write(BARS)
    export(folder / "models", random_network(favoured), make_dataset(BARS))
    return folder


def predict(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value for name, value in os.environ.items() if name not in ORIGINAL_VARIABLES
    }
    return warm_processes.run(
        [str(ROOT / "predict.py"), "source=store", *arguments],
        folder,
        inherited | {"OMP_NUM_THREADS": "1"} | environment,
    )


def test_the_answer_is_for_people_and_the_log_lines_for_grep(long_model):
    result = predict(long_model, "symbol=BTCUSDT")

    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        *LOADED,
        "PREDICT BTCUSDT tf=15m pred=LONG conf=1.00 source=ML_PER_COIN_V1",
    ]
    answer, levels, valid, judged = result.stdout.splitlines()
    assert judged == "judged: skill shown"
    # Three bars after the close.
    assert re.fullmatch(r"valid until 2024-01-17 16:45 UTC \(3 bars\); version \S+", valid)
    price = f"{BARS.frame['close'].iloc[-1]:.8g}"
    assert re.fullmatch(
        r"BTCUSDT 15m  LONG 100% \(SHORT 0\.00, NO_TRADE 0\.00, LONG 1\.00; cnn_lstm_v1\)  "
        rf"at {price}, bar closed 2024-01-17 16:00 UTC \(\d+ days ago\)",
        answer,
    )
    assert re.fullmatch(rf"entry {price}  stop [\d.]+  targets [\d.]+, [\d.]+, [\d.]+", levels)
    # No run folder, no lock, nothing: a prediction only reads.
    assert sorted(path.name for path in long_model.iterdir()) == ["data", "models"]


def test_json_is_exactly_one_object_with_every_key_of_the_contract(long_model):
    result = predict(long_model, "symbol=BTCUSDT", "output=json")

    assert result.returncode == 0
    assert result.stdout.count("\n") == 1
    answer = json.loads(result.stdout)
    assert list(answer)[:7] == [
        "symbol",
        "tf",
        "pred",
        "confidence",
        "source",
        "model_version",
        "ts",
    ]
    assert "age_secs" in answer
    assert (answer["symbol"], answer["tf"], answer["pred"]) == ("BTCUSDT", "15m", "LONG")
    assert (answer["source"], answer["model_version"]) == ("ML_PER_COIN_V1", "cnn_lstm_v1")
    assert datetime.fromisoformat(answer["ts"]) == BARS.close_time().to_pydatetime()
    assert answer["confidence"] == answer["probabilities"]["LONG"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    entry = answer["entry_price"]
    assert answer["stop_loss"] < entry < answer["tp1"] < answer["tp2"] < answer["tp3"]
    assert answer["passed"] == []


def test_without_a_direction_there_are_no_levels(tmp_path):
    folder = make_folder(tmp_path, Signal.NO_TRADE)
    answer = json.loads(predict(folder, "symbol=BTCUSDT", "output=json").stdout)

    assert answer["pred"] == "NO_TRADE"
    assert answer["source"] == "ML_PER_COIN_V1"
    assert not {"entry_price", "stop_loss", "tp1", "tp2", "tp3"} & set(answer)


def test_a_missing_model_is_said_with_what_to_do_and_the_answer_is_to_hold(tmp_path):
    BarStore(tmp_path / "data" / "bars").write(BARS)
    result = predict(tmp_path, "symbol=BTCUSDT")

    assert result.returncode == 0
    assert result.stderr.splitlines() == ["FALLBACK BTCUSDT reason=model_missing", *HELD]
    answer, why, *others = result.stdout.splitlines()
    assert answer.startswith("BTCUSDT 15m  NO_TRADE (FALLBACK_NEUTRAL: no source had an answer)")
    assert why.startswith("passed: ML_PER_COIN_V1 (model_missing): BTCUSDT 15m: no model exported")
    assert "python train.py symbol=BTCUSDT tf=15m" in why
    assert [line.split("): ")[0] for line in others] == [
        "passed: PRO (insufficient_data",
        "passed: FALLBACK_RSI_MA (no_signal",
        "passed: FALLBACK_MOMENTUM (no_signal",
    ]


@pytest.mark.parametrize("name", [MANIFEST_FILE, SERVED_WEIGHTS_FILE])
def test_a_corrupt_model_is_passed_over_with_its_reason(tmp_path, name):
    folder = make_folder(tmp_path, Signal.LONG)
    damaged = folder / "models" / "per_coin" / "BTCUSDT" / "15m" / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0x01
    damaged.write_bytes(content)
    result = predict(folder, "symbol=BTCUSDT", "output=json")

    assert result.returncode == 0
    assert result.stderr.splitlines()[-5:] == ["FALLBACK BTCUSDT reason=model_invalid", *HELD]
    answer = json.loads(result.stdout)
    assert (answer["pred"], answer["source"]) == ("NO_TRADE", "FALLBACK_NEUTRAL")
    assert (answer["confidence"], answer["probabilities"]) == (0.0, None)
    passed = answer["passed"][0]
    assert (passed["source"], passed["reason"]) == ("ML_PER_COIN_V1", "model_invalid")
    assert name in passed["detail"]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"USE_ML_PER_COIN": "false"}, "ml_disabled"),
        ({"USE_ML_PER_COIN": "0"}, "ml_disabled"),
        ({"MIN_CONFIDENCE": "1.0"}, "low_confidence"),
    ],
)
def test_the_original_variables_can_pass_the_model_over(tmp_path, environment, reason):
    BarStore(tmp_path / "data" / "bars").write(BARS)
    export(tmp_path / "models", random_network(), make_dataset(BARS))
    result = predict(tmp_path, "symbol=BTCUSDT", "output=json", **environment)

    assert result.returncode == 0
    assert result.stderr.splitlines()[-5:] == [f"FALLBACK BTCUSDT reason={reason}", *HELD]
    reasons = [passed["reason"] for passed in json.loads(result.stdout)["passed"]]
    assert reasons == [reason, *RULES_PASS]


def test_the_command_line_outranks_the_variables(long_model):
    result = predict(
        long_model,
        "symbol=BTCUSDT",
        "tf=15m",
        "use_ml=true",
        "min_confidence=0.5",
        USE_ML_PER_COIN="false",
        MIN_CONFIDENCE="1.0",
        ML_DEFAULT_TF="1h",
        ML_DEVICE="cpu",
    )

    assert result.returncode == 0
    assert "pred=LONG" in result.stderr


def test_the_default_timeframe_of_the_environment_counts(long_model):
    result = predict(long_model, "symbol=BTCUSDT", ML_DEFAULT_TF="1h")

    assert result.returncode == 1
    assert result.stderr.startswith("error: BTCUSDT 1h: no bars are stored")
    assert "stored for BTCUSDT: 15m" in result.stderr


def test_a_device_that_is_not_there_is_one_line(long_model):
    result = predict(long_model, "symbol=BTCUSDT", ML_DEVICE="cuda:63")

    assert result.returncode == 2
    assert result.stderr.startswith("error: device=cuda:63 (or ML_DEVICE) needs a GPU")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_market_without_bars_is_one_line_and_no_answer(long_model, output):
    result = predict(long_model, "symbol=BTCUSDC", f"output={output}")

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: BTCUSDC 15m: no bars are stored in data/bars")
    assert "BTCUSDT" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_prediction_loads_nothing_that_only_training_needs(long_model):
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); "
        f"sys.argv = ['predict.py', 'symbol=BTCUSDT', 'source=store', 'output=json']\n"
        f"try: runpy.run_path({str(ROOT / 'predict.py')!r}, run_name='__main__')\n"
        "except SystemExit as done: assert done.code == 0, done.code\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=long_model,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.splitlines()[-1].split())
    assert "torch" in loaded
    assert loaded & LIBRARIES_OF_TRAINING == set()


def test_a_rejected_model_is_passed_over_unless_asked_for(tmp_path):
    BarStore(tmp_path / "data" / "bars").write(BARS)
    export(
        tmp_path / "models",
        random_network(Signal.SHORT),
        make_dataset(BARS),
        StoredVerdict.REJECTED,
    )
    rejected = predict(tmp_path, "symbol=BTCUSDT", "output=json")
    asked = predict(tmp_path, "symbol=BTCUSDT", "output=json", "require_accepted=false")

    assert "FALLBACK BTCUSDT reason=model_rejected" in rejected.stderr
    passed = json.loads(rejected.stdout)["passed"][0]
    assert "made for a test" in passed["detail"]
    answer = json.loads(asked.stdout)
    assert answer["pred"] == "SHORT"
    assert answer["tp3"] < answer["tp2"] < answer["tp1"] < answer["entry_price"]
    assert answer["stop_loss"] > answer["entry_price"]


def ask_in_process(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    """The JSON answer without a process of its own."""
    folders = (f"data_dir={folder}/data", f"models_dir={folder}/models")
    chosen = ("symbol=BTCUSDT", "tf=15m", "source=store", "output=json", *folders, *arguments)
    answer(typed(compose_config("predict", chosen), PredictConfig))
    return json.loads(capsys.readouterr().out)


def ask_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    folders = (f"data_dir={folder}/data", f"models_dir={folder}/models")
    chosen = ("symbol=BTCUSDT", "tf=15m", "source=store", *folders)
    answer(typed(compose_config("predict", chosen), PredictConfig))
    return capsys.readouterr().out


def moving_folder(folder: Path, change: float) -> Path:
    """Bars whose last one has moved by ``change``, and no model."""
    last = BARS.frame["close"].iloc[-15] * (1 + change)
    frame = BARS.frame.copy()
    frame.iloc[-1, frame.columns.get_indexer(["high", "low", "close"])] = last
    frame.iloc[-1, frame.columns.get_loc("open")] = last
    BarStore(folder / "data" / "bars").write(replace(BARS, frame=frame))
    return folder


def test_a_rule_answers_behind_a_missing_model_and_says_what_it_rests_on(tmp_path):
    result = predict(moving_folder(tmp_path, 0.05), "symbol=BTCUSDT")

    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        "FALLBACK BTCUSDT reason=model_missing",
        *HELD[:2],
        "PREDICT BTCUSDT tf=15m pred=LONG conf=0.50 source=FALLBACK_MOMENTUM",
    ]
    said, levels, because, judged, *passed = result.stdout.splitlines()
    assert judged == (
        "judged: not measured on this market yet; this command does it: "
        "python -m percoin.signals symbol=BTCUSDT tf=15m source=store"
    )
    assert said.startswith("BTCUSDT 15m  LONG (FALLBACK_MOMENTUM, score 0.50, not a probability)")
    assert levels.startswith("entry ")
    assert because == "because: 15m: +5.00% over 14 bars, 2.5% up or down is needed"
    assert len(passed) == 3


def test_the_command_that_measures_a_rule_helps_when_followed(tmp_path, capsys):
    folder = moving_folder(tmp_path, 0.05)
    before = ask_for_people(folder, capsys)
    command = re.search(r"judged: not measured .*; this command does it: (.+)", before)[1]
    python, option, module, *words = shlex.split(command)
    assert (python, option, module) == ("python", "-m", "percoin.signals")
    assert measure([*words, "repetitions=100"]) == 0
    after = ask_for_people(folder, capsys)
    assert "\njudged: " in after
    assert "not measured" not in after


def test_on_5m_enough_bars_for_the_expected_move_are_loaded(tmp_path, monkeypatch, capsys):
    bars = bars_to_learn_from(2100, timeframe=Timeframe.M5)
    export(tmp_path / "models", random_network(), make_dataset(bars))
    BarStore(tmp_path / "data" / "bars").write(bars)
    asked = []

    def stored(settings, store, n_bars):
        asked.append(n_bars)
        return store

    monkeypatch.setattr("percoin.predict.bar_source", stored)
    folders = (f"data_dir={tmp_path}/data", f"models_dir={tmp_path}/models")
    answer(typed(compose_config("predict", ("symbol=BTCUSDT", "tf=5m", *folders)), PredictConfig))
    assert asked == [2016]


def test_the_answer_of_a_rule_fits_the_contract(tmp_path, capsys):
    content = ask_in_process(moving_folder(tmp_path, -0.05), capsys)

    assert (content["pred"], content["source"]) == ("SHORT", "FALLBACK_MOMENTUM")
    assert (content["probabilities"], content["model_version"]) == (None, None)
    assert content["confidence"] == pytest.approx(0.5)
    assert content["detail"].startswith("15m: -5.00%")
    assert content["tp3"] < content["tp1"] < content["entry_price"] < content["stop_loss"]


@pytest.mark.parametrize(
    ("chain", "sources"),
    [
        ("[hold]", []),
        ("[ml,hold]", ["ML_PER_COIN_V1"]),
        ("[momentum,rsi_ma,hold]", ["FALLBACK_MOMENTUM", "FALLBACK_RSI_MA"]),
        ("[pro,ml,hold]", ["PRO", "ML_PER_COIN_V1"]),
    ],
)
def test_the_chain_is_asked_in_the_order_that_is_set(tmp_path, capsys, chain, sources):
    BarStore(tmp_path / "data" / "bars").write(BARS)
    content = ask_in_process(tmp_path, capsys, f"chain={chain}")

    assert [passed["source"] for passed in content["passed"]] == sources
    assert content["source"] == "FALLBACK_NEUTRAL"


@pytest.mark.parametrize("value", ["false", "0"])
def test_the_original_variable_passes_the_professional_over(tmp_path, capsys, monkeypatch, value):
    BarStore(tmp_path / "data" / "bars").write(BARS)
    monkeypatch.setenv("USE_PRO_ANALYZER", value)
    there = ask_in_process(tmp_path, capsys)
    back = ask_in_process(tmp_path, capsys, "use_pro=true")

    assert there["passed"][1] == {
        "source": "PRO",
        "reason": "pro_disabled",
        "detail": "switched off: use_pro=false",
    }
    assert back["passed"][1]["reason"] == "insufficient_data"


@pytest.fixture(scope="module")
def exchange_bars(long_model, tmp_path_factory) -> Path:
    """The same market with the bars of an exchange, which end in January 2024."""
    folder = tmp_path_factory.mktemp("exchange")
    BarStore(folder / "data" / "bars").write(replace(BARS, origin="binance spot: BTCUSDT"))
    (folder / "models").symlink_to(long_model / "models")
    return folder


def test_a_signal_on_old_bars_of_an_exchange_is_passed_over_with_its_reason(exchange_bars):
    result = predict(exchange_bars, "symbol=BTCUSDT", "output=json")

    assert result.returncode == 0
    assert result.stderr.splitlines() == [*LOADED, "FALLBACK BTCUSDT reason=stale_data", *HELD]
    content = json.loads(result.stdout)
    assert (content["pred"], content["source"]) == ("NO_TRADE", "FALLBACK_NEUTRAL")
    passed = content["passed"][0]
    assert (passed["source"], passed["reason"]) == ("ML_PER_COIN_V1", "stale_data")
    assert passed["detail"].startswith("the newest bar closed 2024-01-17 16:00 UTC, ")


def test_who_wants_an_answer_on_old_bars_can_have_it(exchange_bars, capsys):
    refused = ask_in_process(exchange_bars, capsys)
    [hint] = re.findall(r"(max_age_bars=\d+) asks anyway", refused["passed"][0]["detail"])

    assert ask_in_process(exchange_bars, capsys, hint)["pred"] == "LONG"


def test_bars_of_files_are_historical_unless_an_age_is_asked_for(long_model, capsys):
    assert ask_in_process(long_model, capsys)["pred"] == "LONG"
    asked = ask_in_process(long_model, capsys, "max_age_bars=4")
    assert [passed["reason"] for passed in asked["passed"]] == ["stale_data", *RULES_PASS]


def test_the_age_of_the_bar_is_told_in_seconds(long_model, capsys):
    content = ask_in_process(long_model, capsys)
    expected = datetime.now(UTC) - datetime.fromisoformat(content["ts"])

    assert content["age_secs"] == pytest.approx(expected.total_seconds(), abs=60)
    assert to_json(HOLD, TWO_BARS, CLOSED + timedelta(seconds=90))["age_secs"] == 90.0


@pytest.mark.parametrize(("threshold", "reasons"), [(0.8, []), (0.9, ["low_confidence"])])
def test_the_threshold_of_the_backtest_is_applied_when_asked_for(
    tmp_path, capsys, threshold, reasons
):
    network = random_network()
    # LONG for every window, with a probability of 0.83.
    network.head[-1].weight.data.zero_()
    network.head[-1].bias.data.copy_(network.head[-1].bias.data.new_tensor([0.0, 0.0, 3.0]))
    BarStore(tmp_path / "data" / "bars").write(BARS)
    judging = {"judging": {"threshold": threshold}}
    export(tmp_path / "models", network, make_dataset(BARS), sections=judging)
    content = ask_in_process(tmp_path, capsys, "chain=[ml,hold]", "min_confidence=judged")

    assert [passed["reason"] for passed in content["passed"]] == reasons
    assert ask_in_process(tmp_path, capsys)["passed"] == []


def test_a_model_without_a_judged_threshold_is_passed_over_when_it_is_asked_for(long_model, capsys):
    passed = ask_in_process(long_model, capsys, "min_confidence=judged")["passed"][0]

    assert passed["reason"] == "model_invalid"
    assert "metrics.json has no threshold of a backtest" in passed["detail"]
    assert "give min_confidence a number" in passed["detail"]


CLOSED = datetime(2025, 9, 1, tzinfo=UTC)
HOLD = Prediction(
    symbol="BTCUSDT",
    timeframe=Timeframe.H1,
    signal=Signal.NO_TRADE,
    confidence=0.0,
    probabilities=None,
    source=Source.HOLD,
    model_version=None,
    ts=CLOSED,
    passed=(Passed(Source.MODEL, "model_missing", "none here"),),
)
SHORT = replace(
    HOLD,
    signal=Signal.SHORT,
    confidence=0.61,
    probabilities=(0.61, 0.3, 0.09),
    source=Source.MODEL,
    model_version="cnn_lstm_v1",
    levels=Levels(100.0, 106.0, 96.0, 92.0, 88.0),
    passed=(),
)
TWO_BARS = bars_from_closes([101.0, 100.0], timeframe=Timeframe.H1)


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(minutes=59), ""),
        (timedelta(hours=1), " (1.0 hours ago)"),
        (timedelta(hours=30), " (30.0 hours ago)"),
        (timedelta(days=3), " (3 days ago)"),
    ],
)
def test_an_old_answer_says_how_old(age, words):
    first = to_text(HOLD, TWO_BARS, CLOSED + age, "").splitlines()[0]
    assert first.endswith(f"bar closed 2025-09-01 00:00 UTC{words}")


def test_the_reason_of_a_model_that_passed_is_one_line_that_no_terminal_obeys():
    detail = "no skill\n2026-01-01 ERROR forged\x1b[2J"
    passed = (Passed(Source.MODEL, "model_rejected", detail),)
    lines = to_text(replace(HOLD, passed=passed), TWO_BARS, CLOSED, "").splitlines()
    assert lines[-1].endswith(r"no skill\n2026-01-01 ERROR forged\x1b[2J")


def test_a_direction_shows_its_levels():
    assert to_text(SHORT, TWO_BARS, CLOSED, "").splitlines() == [
        "BTCUSDT 1h  SHORT 61% (SHORT 0.61, NO_TRADE 0.30, LONG 0.09; cnn_lstm_v1)  at 100, "
        "bar closed 2025-09-01 00:00 UTC",
        "entry 100  stop 106  targets 96, 92, 88",
    ]


REACHED = LevelsReached(
    1234,
    KnownInterval(0.25, 0.2, 0.3),
    KnownInterval(0.4, 0.35, 0.45),
    KnownInterval(0.1, 0.05, 0.15),
    KnownInterval(0.0, 0.0, 0.01),
)
JUDGED_SHORT = replace(
    SHORT,
    version_id="20250901T1",
    horizon_bars=3,
    worth=Worth("accepted", threshold=0.5, reached=REACHED),
)


def with_threshold(threshold: float | None) -> Prediction:
    return replace(JUDGED_SHORT, worth=replace(JUDGED_SHORT.worth, threshold=threshold))


def test_a_judged_direction_says_what_to_do_with_it():
    assert to_text(JUDGED_SHORT, TWO_BARS, CLOSED, "").splitlines()[1:] == [
        "entry 100  stop 106  targets 96, 92, 88",
        "levels: within 3 bars 1,234 judged signals reached the stop in 0.250 [0.200, 0.300], the "
        "targets before the stop in 0.400 [0.350, 0.450], 0.100 [0.050, 0.150], "
        "0.000 [0.000, 0.010]",
        "valid until 2025-09-01 03:00 UTC (3 bars); would be traded: 0.610 reaches the judged "
        "threshold 0.500; version 20250901T1",
        "judged: skill shown",
    ]


@pytest.mark.parametrize(
    ("threshold", "would_trade", "words"),
    [
        (0.61, True, "; would be traded: 0.610 reaches the judged threshold 0.610"),
        (0.62, False, "; would not be traded: 0.610 is below the judged threshold 0.620"),
        (1.0, False, "; would not be traded: no threshold made a profit on validation rows"),
        (None, None, ""),
    ],
)
def test_a_signal_says_whether_the_judged_backtest_would_trade_it(threshold, would_trade, words):
    prediction = with_threshold(threshold)
    content = to_json(prediction, TWO_BARS, CLOSED)
    (valid,) = [
        line
        for line in to_text(prediction, TWO_BARS, CLOSED, "").splitlines()
        if line.startswith("valid until")
    ]

    assert valid == f"valid until 2025-09-01 03:00 UTC (3 bars){words}; version 20250901T1"
    assert (content["threshold"], content["would_trade"]) == (threshold, would_trade)


def test_a_certain_signal_of_a_model_that_never_trades_is_not_traded():
    assert replace(with_threshold(NO_TRADES), confidence=1.0).would_trade is False


def test_json_says_what_to_do_with_a_direction():
    content = to_json(JUDGED_SHORT, TWO_BARS, CLOSED)

    assert content["version_id"] == "20250901T1"
    assert (content["horizon_bars"], content["valid_until"]) == (3, "2025-09-01T03:00:00+00:00")
    assert content["levels_reached"] == {
        "n_signals": 1234,
        "stop_loss": {"value": 0.25, "lower": 0.2, "upper": 0.3},
        "tp1": {"value": 0.4, "lower": 0.35, "upper": 0.45},
        "tp2": {"value": 0.1, "lower": 0.05, "upper": 0.15},
        "tp3": {"value": 0.0, "lower": 0.0, "upper": 0.01},
    }
    stays_out = replace(JUDGED_SHORT, signal=Signal.NO_TRADE, levels=None)
    content = to_json(stays_out, TWO_BARS, CLOSED)
    assert (content["levels_reached"], content["would_trade"]) == (None, False)
    assert content["valid_until"] == "2025-09-01T03:00:00+00:00"
    nothing = to_json(HOLD, TWO_BARS, CLOSED)
    assert {nothing[name] for name in ("horizon_bars", "valid_until", "threshold")} == {None}


def test_a_horizon_beyond_the_calendar_has_no_end():
    endless = replace(JUDGED_SHORT, horizon_bars=10**9)
    assert endless.valid_until is None
    assert "valid until" not in to_text(endless, TWO_BARS, CLOSED, "")
    assert to_json(endless, TWO_BARS, CLOSED)["valid_until"] is None


@pytest.mark.parametrize(
    ("close", "shown"),
    [(108246.35, "108246.35"), (0.00001234, "0.00001234"), (3.0, "3"), (1234567.0, "1234567")],
)
def test_prices_are_shown_in_full_and_without_an_exponent(close, shown):
    bars = bars_from_closes([close, close], timeframe=Timeframe.H1)
    assert f"  at {shown}, bar closed" in to_text(HOLD, bars, CLOSED, "")


def test_every_answer_fits_into_json():
    for prediction in (HOLD, SHORT, JUDGED_SHORT):
        content = to_json(prediction, TWO_BARS, CLOSED)
        assert json.loads(json.dumps(content, allow_nan=False)) == content
        assert content["close"] == 100.0


@pytest.mark.parametrize("content", [b"", b"NaN", b"[" * 10_000 + b"]" * 10_000, b'"\\ud800"'])
def test_a_record_that_cannot_be_read_passes_the_model_over_and_the_next_answers(
    tmp_path, capsys, content
):
    bars = bars_to_learn_from(1200)
    BarStore(tmp_path / "data" / "bars").write(bars)
    folder = export(tmp_path / "models", random_network(), make_dataset(bars))
    where = MarketFolder(tmp_path / "models", "BTCUSDT", Timeframe.M15)
    vouch_for(where, folder, {"metrics.json": content})
    asked = ["symbol=BTCUSDT", "tf=15m", "source=store", "output=json", "min_confidence=judged"]
    folders = [f"{name}_dir={tmp_path / name}" for name in ("data", "models")]
    answer(typed(compose_config("predict", [*asked, *folders]), PredictConfig))
    said = json.loads(capsys.readouterr().out)
    assert said["source"] != "ML_PER_COIN_V1"
    assert said["passed"][0]["reason"] == "model_invalid"
    assert said["passed"][0]["detail"].startswith("BTCUSDT 15m: metrics.json cannot be read: ")
