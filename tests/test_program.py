"""The program ``percoin``: its commands, and how messages name them."""

import sys

import pytest

import percoin
from percoin import __main__ as program
from percoin.commands import as_called, train_command


def called(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["percoin", *words])
    code = program.main()
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_help_lists_every_command(monkeypatch, capsys, words):
    code, out, _ = called(monkeypatch, capsys, *words)

    assert code == 0
    assert all(f"  {name} " in out for name in program.COMMANDS)


def test_the_version_is_percoins(monkeypatch, capsys):
    assert called(monkeypatch, capsys, "--version") == (0, f"percoin {percoin.__version__}\n", "")


@pytest.mark.parametrize(
    ("word", "meant"), [("trian", "did you mean train?"), ("xyz", "commands: train, predict")]
)
def test_an_unknown_command_is_a_usage_error_of_one_line(monkeypatch, capsys, word, meant):
    code, out, err = called(monkeypatch, capsys, word)

    assert (code, out) == (2, "")
    assert err.startswith(f"error: percoin has no command '{word}'; {meant}")
    assert err.count("\n") == 1


def test_the_markets_are_printed_for_a_sweep_from_any_folder(monkeypatch, capsys):
    _, out, _ = called(monkeypatch, capsys, "symbols")

    assert len(out.split(",")) == 32


@pytest.mark.parametrize("name", [name for name in program.COMMANDS if name != "symbols"])
def test_help_of_a_command_names_it_as_it_was_called(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["percoin", name, "--help"])
    try:
        code = program.main()
    except SystemExit as ended:  # a module ends itself
        code = ended.code
    out, _ = capsys.readouterr()

    assert not code
    assert f"percoin {name}" in out
    assert "python -m percoin" not in out
    assert "python train.py" not in out


def test_messages_name_commands_as_the_process_was_called(monkeypatch):
    line = "python train.py symbol=X; python -m percoin.fetch; python train.pyx"

    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert as_called(line) == line
    monkeypatch.setattr(sys, "argv", ["/bin/percoin"])
    assert as_called(line) == "percoin train symbol=X; percoin fetch; python train.pyx"
    assert train_command("BTCUSDT", "1h") == "percoin train symbol=BTCUSDT tf=1h"
