from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from percoin.cli import compose_config
from percoin.cli.overrides import quote_texts, quoted, source_words, text_keys
from percoin.commands import command, train_command
from percoin.config import (
    SCHEMAS,
    BinanceConfig,
    FilesConfig,
    RegistryConfig,
    SimulatedConfig,
    StoreConfig,
    TrainConfig,
    typed,
)

PARSER = OverridesParser.create()
PATHS = (
    "bars/symbol=BTCUSDT/tf=15m",
    "my bars (1)",
    "BINANCE_BTCUSDT, 15.csv",
    "~/bars",
    "a#b;c",
    "it's",
    "[new]",
    "{new}",
    "Bücher/币",
    "20250630",
    "1e5",
    "true",
    "C:\\bars\\",
    "back\\'slash",
    "a:b",
    "100%",
    "  two  blanks ",
    "a\tb",
)


def settings(name: str, *words: str):
    return typed(compose_config(name, words), SCHEMAS[name])


@given(st.text() | st.text(alphabet="'\\\"$ab ,={}("))
def test_quotes_give_exactly_the_text_again(text):
    assert PARSER.parse_override(f"why={quoted(text)}").value() == text


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_taken_as_it_is(path):
    made = settings(
        "train", "symbol=BTCUSDT", "source=files", f"source.path={path}", f"models_dir={path}"
    )
    assert (made.source.path, made.models_dir) == (path, path)


@pytest.mark.parametrize(
    "why",
    [
        "it lost 3%, see issue #12 (drift)",
        "skill=0.01 only",
        "it's worse",
        "schlechter: Verlust",
        "costs ${x} and ${symbol} more",
        "null hypothesis",
        '"quoted" in the middle',
    ],
)
def test_a_reason_is_a_sentence(why):
    assert settings("registry", f"why={why}").why == why


def test_quotes_of_the_grammar_and_null_mean_what_they_did():
    made = settings("train", "symbol='BTCUSDT'", 'models_dir="a, b"', "sweep=null", "init=null")
    assert (made.symbol, made.models_dir, made.sweep) == ("BTCUSDT", "a, b", None)


def test_an_interpolation_in_a_path_still_works(monkeypatch):
    monkeypatch.setenv("PLACE", "/some where")
    assert settings("registry", "models_dir=${oc.env:PLACE}/m").models_dir == "/some where/m"


def test_a_list_of_a_sweep_stays_a_list_and_its_values_are_texts():
    lists = text_keys(TrainConfig)
    assert quote_texts(["symbol=BTCUSDT,ETHUSDT", "lr=0.1,0.2"], TrainConfig, lists) == [
        "symbol=BTCUSDT,ETHUSDT",
        "lr=0.1,0.2",
    ]
    assert quote_texts(["source.path=a b,c=d"], TrainConfig, lists) == ["source.path='a b','c=d'"]
    for word in ("symbol='A,B','C'", "symbol=choice(A1,B1)", "evaluation=glob(*)"):
        assert quote_texts([word], TrainConfig, lists) == [word]
    assert quote_texts(["source.path=a b,c=d"], TrainConfig) == ["source.path='a b,c=d'"]


def test_words_that_are_no_texts_are_left_to_the_grammar():
    words = ["lr=0.1", "pooled.leave_out=[A,B]", "tf=15m,1h", "epochs", "--cfg", "+x=1 2"]
    assert quote_texts(words, TrainConfig) == words
    assert quote_texts(["+models_dir=a b"], TrainConfig) == ["+models_dir='a b'"]


def test_texts_are_known_of_every_option():
    texts = text_keys(TrainConfig)
    assert {"symbol", "source.path", "source.api_url", "tf.name", "hydra.launcher.address"} <= texts
    assert not {"pooled.leave_out", "lr", "source", "logger", "experiment.space.labels"} & texts
    assert {"why", "version", "models_dir"} <= text_keys(RegistryConfig)


def test_a_source_is_named_as_far_as_it_is_not_the_usual_one():
    usual = settings("train", "symbol=BTCUSDT").source
    assert isinstance(usual, BinanceConfig)
    assert source_words(usual) == []
    assert source_words(StoreConfig()) == ["source=store"]
    assert source_words(FilesConfig("my bars")) == ["source=files", "source.path=my bars"]
    assert source_words(SimulatedConfig(seed=3, n_bars=20000, edge=0.0)) == [
        "source=simulated",
        "source.seed=3",
    ]
    perp = settings("train", "symbol=BTCUSDT", "source.market=perp", "source.archive_url=null")
    assert source_words(perp.source) == ["source.market=perp", "source.archive_url=null"]


def test_a_printed_command_can_be_pasted_into_a_shell():
    assert train_command("BTCUSDT", "15m") == "python train.py symbol=BTCUSDT tf=15m"
    assert train_command("BTCUSDT", "15m", Path("models")) == train_command("BTCUSDT", "15m")
    line = command("python predict.py", "source.path=it's (1)", models_dir="my models")
    assert line == "python predict.py 'source.path=it'\"'\"'s (1)' 'models_dir=my models'"
