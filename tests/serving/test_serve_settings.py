import errno
import logging
import os
import re
import shlex
import sys

import pytest
from builders import make_bars

from percoin import serve as serve_command
from percoin.config import CONF_DIR, ServeConfig
from percoin.errors import ConfigError, ServeError
from percoin.serve import Once, OneLine, make_setup, read_key, read_settings, read_symbols_file
from percoin.serving.server import PredictionServer, bind
from percoin.signals.market import SourcedBars
from percoin.types import Timeframe


@pytest.fixture(autouse=True)
def _no_defaults_from_the_environment(monkeypatch):
    for name in ("ML_DEFAULT_TF", "ML_DEVICE", "USE_ML_PER_COIN", "MIN_CONFIDENCE"):
        monkeypatch.delenv(name, raising=False)


def settings(*arguments: str) -> ServeConfig:
    return read_settings(arguments)


def setup_of(*arguments: str):
    return make_setup(settings(*arguments), api_key=None)


def test_everything_is_offered_unless_something_is_named():
    offer = setup_of("source=store").offer
    assert len(offer.symbols) == 32
    assert offer.timeframes == (Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1)
    assert offer.default_timeframe is Timeframe.M15


def test_markets_and_timeframes_are_lists_as_for_the_fetch_command():
    offer = setup_of("source=store", "symbol=BTCUSDT,", "ETHUSDT", "tf=4h,1h").offer
    assert offer.symbols == ("BTCUSDT", "ETHUSDT")
    assert offer.timeframes == (Timeframe.H4, Timeframe.H1)
    # 15m is not served.
    assert offer.default_timeframe is Timeframe.H4


def test_the_original_default_timeframe_is_honoured(monkeypatch):
    monkeypatch.setenv("ML_DEFAULT_TF", "1h")
    assert setup_of("source=store").offer.default_timeframe is Timeframe.H1
    monkeypatch.setenv("ML_DEFAULT_TF", "1w")
    with pytest.raises(ConfigError, match="1w is not a timeframe"):
        settings("source=store")


@pytest.mark.parametrize("text", ["AUSDT,BUSDT\n", "AUSDT\r\nBUSDT\r\n", " AUSDT, BUSDT,,AUSDT"])
def test_a_file_of_symbols_may_be_written_in_any_of_the_usual_ways(tmp_path, text):
    path = tmp_path / "some"
    path.write_text(text)
    assert read_symbols_file(path) == ["AUSDT", "BUSDT"]
    assert setup_of("source=store", f"symbols_file={path}").offer.symbols == ("AUSDT", "BUSDT")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no market"),
        ("btcusdt", "did you mean"),
        ("../x", "not a market"),
        (None, "read"),
    ],
)
def test_a_file_of_symbols_that_cannot_be_meant_is_refused(tmp_path, text, words):
    path = tmp_path / "some"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_symbols_file(path)


@pytest.mark.parametrize(
    "argument",
    [
        "refresh.delay_secs=-1",
        "refresh.jitter_secs=61",
        "refresh.retry_secs=0",
        "refresh.max_retry_secs=0",
        "refresh.workers=0",
        "limits.requests_per_sec=0",
        "limits.connections=0",
        "limits.query_chars=0",
        "limits.symbols=0",
        "check_secs=0",
        "stop_secs=0",
        "port=-1",
        "max_age_bars=0.5",
        "predictor=keras",
        "device=gpu",
        "default_tf=2h",
        "timeframes=[]",
        "min_confidence=2",
        "chain=[hold,ml]",
    ],
)
def test_a_setting_out_of_its_range_names_its_key(argument):
    key = argument.partition("=")[0]
    with pytest.raises(ConfigError) as refusal:
        settings("source=store", argument)
    assert key.removeprefix("default_") in str(refusal.value)


def test_every_key_of_the_file_reaches_the_server():
    setup = setup_of(
        "source=store",
        "chain=[ml,hold]",
        "use_pro=false",
        "max_age_bars=7",
        "levels=bands",
        "refresh.delay_secs=1.5",
        "refresh.jitter_secs=2.5",
        "refresh.retry_secs=3.5",
        "refresh.max_retry_secs=4.5",
        "refresh.workers=6",
        "check_secs=0.5",
        "limits.requests_per_sec=8",
        "limits.connections=7",
        "limits.query_chars=9",
        "limits.symbols=10",
        "models_dir=elsewhere",
    )
    rhythm, limits = setup.rhythm, setup.limits
    assert (rhythm.delay_secs, rhythm.jitter_secs) == (1.5, 2.5)
    assert (rhythm.retry_secs, rhythm.max_retry_secs) == (3.5, 4.5)
    assert (limits.requests_per_sec, limits.max_query_chars, limits.max_symbols) == (8, 9, 10)
    assert limits.connections == 7
    assert (setup.n_loaders, setup.check_secs, setup.max_age_bars) == (6, 0.5, 7)
    assert (setup.use_pro, [source.option for source in setup.sources]) == (False, ["ml", "hold"])
    assert "elsewhere" in setup.folders


@pytest.mark.parametrize("text", [None, ""])
def test_no_key_is_none(text):
    assert read_key(text) is None


def test_a_missing_library_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(serve_command, "_LIBRARIES", ("fastapi", "no_such_library"))
    with pytest.raises(ConfigError, match=r"no_such_library: pip install 'percoin\[serve\]'"):
        serve_command.run(settings("source=store"), None)


def test_with_a_key_it_may_listen_everywhere_without_one_at_home_only():
    with pytest.raises(ServeError, match="PERCOIN_API_KEY"):
        bind("0.0.0.0", 0, has_key=False)
    for host, has_key in (("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)):
        with bind(host, 0, has_key) as listener:
            assert listener.getsockname()[1] > 0


def test_a_folder_of_bars_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"source\.path=.*/nowhere does not exist; give the folder"
    ):
        setup_of("source=files", f"source.path={tmp_path / 'nowhere'}")


def test_the_advice_to_train_names_the_bars_that_are_served(tmp_path):
    (tmp_path / "my bars").mkdir()
    folder, data = tmp_path / "my bars", tmp_path / "data"
    words = (f"source.path='{folder}'", f"data_dir={data}", f"models_dir={tmp_path / 'models'}")
    model = setup_of("source=files", *words).model
    passed = model.answer(SourcedBars(make_bars(10)))
    assert passed.reason == "model_missing"
    given = shlex.split(passed.detail.partition("train one: ")[2])
    assert given[-3:] == ["source=files", f"source.path={folder}", f"data_dir={data}"]
    assert f"models_dir={tmp_path / 'models'}" in given


def test_the_state_of_a_missing_model_names_the_bars_that_are_served_too():
    setup = setup_of("source=simulated", "source.seed=7", "symbol=BTCUSDT", "tf=15m")
    [model] = PredictionServer(setup).models.contents()
    assert model["status"] == "missing"
    passed = setup.model.answer(SourcedBars(make_bars(10)))
    assert model["problem"] == passed.detail
    assert model["problem"].endswith(" source=simulated source.seed=7")


def test_what_is_said_of_a_market_at_every_refresh_is_passed_once():
    passed = Once()

    def says(*args: object) -> bool:
        return passed.filter(logging.LogRecord("x", 20, "", 0, "%s %s: %s bars", args, None))

    assert says("BTCUSDT", Timeframe.H1, "1,000")
    assert not says("BTCUSDT", Timeframe.H1, "1,001")
    assert says("BTCUSDT", Timeframe.H4, "250")
    assert says("ETHUSDT", Timeframe.H1, "1,000")


def test_the_help_names_every_key():
    from percoin.cli import help_text

    text = help_text("serve")
    assert "PERCOIN_API_KEY" in text
    for key in ServeConfig.__dataclass_fields__:
        assert key in text
    assert (CONF_DIR.parent / "symbols").is_file()


@pytest.mark.parametrize(
    ("port", "number", "advice"),
    [
        (8000, errno.EADDRINUSE, "port=8001"),
        (80, errno.EACCES, "port=8000"),
        (65535, errno.EADDRINUSE, "port=8000"),
        (8000, errno.EADDRNOTAVAIL, "an address of this machine, for example host=127.0.0.1"),
    ],
)
def test_the_advice_of_a_socket_that_cannot_be_bound_helps(monkeypatch, port, number, advice):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("socket.socket.bind", refuse)
    with pytest.raises(ServeError, match=re.escape(advice)) as refusal:
        bind("127.0.0.1", port, has_key=True)
    assert os.strerror(number) in str(refusal.value)


def test_a_line_of_the_log_stays_one_line():
    formatter = OneLine("%(levelname)s %(message)s")
    forged = "x\n2026-01-01 INFO PREDICT BTCUSDT\x1b[2J\ud800"
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "BARS %s", (forged,), None)
    assert formatter.format(record).splitlines() == [
        "INFO BARS x\\n2026-01-01 INFO PREDICT BTCUSDT\\x1b[2J\\ud800"
    ]
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        record.exc_info = sys.exc_info()
    lines = formatter.format(record).splitlines()
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: \\x1b[2J"
