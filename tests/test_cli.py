import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import warm_processes

from percoin.cli import EXIT_USAGE, help_text, run_command, run_jobs
from percoin.cli.mistakes import check_used
from percoin.config import CONF_DIR, TrainConfig
from percoin.errors import (
    BarsNotFoundError,
    ConfigError,
    DivergedError,
    InterruptedRunError,
    RegistryWriteError,
)

ROOT = Path(__file__).parents[1]

# train.py with a task that only says what it was asked, or fails as a symbol tells it to.
STUB = """
import sys

from percoin.cli import run_jobs
from percoin.config import TrainConfig
from percoin.errors import BarsNotFoundError, InterruptedRunError


def task(settings):
    symbol, tf = settings.symbol, settings.tf.name
    if symbol == "NOBARS":
        raise BarsNotFoundError(symbol, tf, "no bars", "fetch some")
    if symbol == "STOPPED":
        raise InterruptedRunError(symbol, tf, "interrupted", "resume=true", signal_number=15)
    if symbol == "CTRLC":
        raise KeyboardInterrupt
    if symbol == "BROKEN":
        raise ZeroDivisionError("a bug")
    print("done", symbol, tf)


def sweep(overrides):
    print("sweep", *overrides)


if __name__ == "__main__":
    sys.exit(run_jobs(task, TrainConfig, config_name="train", sweep=sweep))
"""


def run_stub(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    script = folder / "stub.py"
    script.write_text(STUB)
    return warm_processes.run([str(script), *arguments], folder, given(environment), timeout=120)


def given(environment: dict[str, str]) -> dict[str, str]:
    """This environment with further variables, and without what changes a default."""
    inherited = {name: value for name, value in os.environ.items() if name != "ML_DEFAULT_TF"}
    return inherited | {"OMP_NUM_THREADS": "1"} | environment


def run_script(
    script: Path, folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess:
    """In a Python that has loaded nothing yet."""
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env=given(environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def failing(error: BaseException):
    def command(*_arguments) -> None:
        raise error

    return command


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])


def test_a_command_that_works_exits_with_0_and_says_nothing(capsys):
    assert run_command(lambda: None, "train") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("epochs=0 must be at least 1"), EXIT_USAGE),
        (BarsNotFoundError("BTCUSDT", "15m", "no bars", "fetch some"), 1),
        (RegistryWriteError("BTCUSDT", "15m", "models is a file", "choose another"), 1),
        (DivergedError("BTCUSDT", "15m", "the loss is nan", "lower lr"), 1),
        (InterruptedRunError("BTCUSDT", "15m", "stopped", "resume=true", signal.SIGTERM), 143),
        (InterruptedRunError("BTCUSDT", "15m", "stopped", "resume=true", signal.SIGINT), 130),
    ],
)
def test_an_error_is_one_line_and_its_own_exit_code(capsys, error, code):
    assert run_command(failing(error), "train") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {error}\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "bars.csv"),
            "bars.csv: Permission denied",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "free some space: No space left on device",
        ),
    ],
)
def test_a_refusing_file_system_is_one_line(capsys, error, line):
    assert run_command(failing(error), "train") == 1
    assert capsys.readouterr().err == f"error: {line}\n"


def test_ctrl_c_anywhere_is_one_line_and_130(capsys):
    assert run_command(failing(KeyboardInterrupt()), "train") == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(failing(ZeroDivisionError("a bug")), "train")


def test_one_job_runs_in_a_folder_named_for_it(tmp_path):
    result = run_stub(tmp_path, "symbol=BTCUSDT", "tf=1h")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "done BTCUSDT 1h\n"
    runs = list((tmp_path / "outputs" / "BTCUSDT" / "1h").iterdir())
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["symbl=BTCUSDT"], "symbl is not a setting"),
        (["symbol=BTCUSDT", "tf=1w"], "tf=1w is not an option"),
        (["-m", "symbol=BTCUSDT,ETHUSDT", "tf=15m,1w"], "tf=1w is not an option"),
        (["symbol=BTCUSDT", "force=true"], "force=true is for sweeps: add -m"),
        (["symbol=BTCUSDT", "sweep=june"], "sweep=june is for sweeps: add -m"),
    ],
)
def test_a_bad_command_line_is_one_line_exit_code_2_and_no_folder(tmp_path, arguments, words):
    result = run_stub(tmp_path, *arguments)

    assert result.returncode == EXIT_USAGE
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {words}")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["stub.py"]


# What a shell makes of symbol=$(cat FILE), by what is in the file.
@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "symbol= names no market; is the file of markets empty or missing?"),
        ("\n", "symbol= names no market; is the file of markets empty or missing?"),
        ("BTCUSDT,ETHUSDT,\n", "symbol= ends with a comma after ETHUSDT"),
        ("BTCUSDT,ETHUSDT\r\n", "symbol= holds a carriage return: the file of markets has the "),
        ("BTCUSDT\nETHUSDT\n", "'ETHUSDT' stands alone: name all markets in one word"),
        ("BTCUSDT,\nETHUSDT\n", "'ETHUSDT' stands alone: name all markets in one word"),
        ("BTCUSDT, ETHUSDT\n", "'ETHUSDT' stands alone: name all markets in one word"),
        ("BTCUSDT\r\nETHUSDT\r\n", "symbol= holds a carriage return"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("sweep", [True, False])
def test_a_file_of_markets_that_is_not_one_line_gets_a_kind_word(
    monkeypatch, capsys, written, words, sweep
):
    # As bash splits words.
    arguments = f"symbol={written}".replace("\n", " ").split(" ")
    line = cli_error(monkeypatch, capsys, *["-m"] * sweep, *filter(None, arguments))
    assert line.startswith(f"error: {words}")


@pytest.mark.parametrize("value", ["BTCUSDT\nETHUSDT", "BTCUSDT,\nETHUSDT,"])
def test_lines_in_quotes_get_a_kind_word_too(monkeypatch, capsys, value):
    line = cli_error(monkeypatch, capsys, "-m", f"symbol={value}")
    assert line.startswith("error: symbol= holds several lines; name all markets in one")


def test_the_command_that_the_kind_word_names_makes_one_line_of_several(tmp_path):
    (tmp_path / "markets").write_text("BTCUSDT\nETHUSDT\n")
    made = subprocess.run(
        ["bash", "-c", "echo symbol=$(paste -sd, markets)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout == "symbol=BTCUSDT,ETHUSDT\n"


def cli_error(monkeypatch, capsys, *arguments: str) -> str:
    """The one line that a refused command line ends with."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    never = failing(AssertionError("nothing may run"))
    assert run_jobs(never, TrainConfig, "train", sweep=never) == EXIT_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_several_values_without_m_say_how_to_sweep(tmp_path):
    result = run_stub(tmp_path, "symbol=BTCUSDT,ETHUSDT")

    assert result.returncode == EXIT_USAGE
    assert "several values make a sweep: add -m" in result.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("model=logistic epochs=3", "epochs has no effect with model=logistic: leave it out"),
        ("lr=0.1 model=logistic", "lr has no effect with model=logistic: leave it out"),
        ("-m model=logistic batch_size=8,16", "batch_size has no effect with model=logistic"),
        ("-m model=logistic,boosting lr=0.1", "lr has no effect with model=logistic,boosting"),
        ("model=volatility epochs=3", "epochs has no effect with model=volatility: leave it out"),
        ("model=logistic trainer.precision=32-true", "trainer.precision has no effect with model"),
        ("model=volatility trainer=gpu", "trainer has no effect with model=volatility: leave it"),
        ("model=logistic optimizer.weight_decay=1", "optimizer.weight_decay has no effect with"),
        ("init=pooled lr=0.1", "lr has no effect with init=pooled: leave it out"),
        ("init=pooled split.train=0.8", "split.train has no effect with init=pooled"),
        ("init=pooled start=2019-01-01", "start has no effect with init=pooled: leave it out"),
        (
            "labels=volatility_scaled labels.width=1 labels.no_trade_share=0.5",
            "labels.no_trade_share has no effect with labels.width=1: leave it out",
        ),
        (
            "recipe=pooled optimizer.plateau_factor=0.1",
            "optimizer.plateau_factor has no effect with recipe=pooled: leave it out",
        ),
        ("pooled.init_lr=0.1", "pooled.init_lr has no effect without init=pooled: add init=pooled"),
        (
            "fleet=true pooled.seeds=2",
            "pooled.seeds has no effect without recipe=pooled: add recipe=pooled, or leave "
            "pooled.seeds out",
        ),
        ("folds=3", "folds has no effect without evaluation=walk_forward: add evaluation=walk"),
        ("trainer.record_steps=false", "trainer.record_steps has no effect without fleet=true"),
        ("start=2024-01-01 history_days=30", "history_days has no effect with start=2024-01-01"),
        ("pooled.looks=[3]", "pooled.looks has no effect without recipe=pooled: add recipe=pooled"),
        (
            "scheduler._target_=StepLR optimizer.plateau_patience=2",
            "optimizer.plateau_patience has no effect with scheduler._target_=StepLR",
        ),
        ("scheduler.each=batch", "scheduler.each=batch has no effect without scheduler._target_"),
        (
            "features.references=[BTCUSDT,ETHUSDT]",
            "features.references has no effect without features.extra=[market]: add features.extra="
            "[market], or leave",
        ),
        (
            "features.extra=[clock,volatility] features.references=[BTCUSDT]",
            "without features.extra=[clock,volatility,market]: add",
        ),
    ],
)
def test_a_setting_that_nothing_would_read_is_refused(monkeypatch, capsys, words, reason):
    assert reason in cli_error(monkeypatch, capsys, "symbol=BTCUSDT", *words.split())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--symbol BTCUSDT", "error: --symbol is not KEY=VALUE; write symbol=VALUE"),
        ("symbol=BTCUSDT --history-days=9", "error: --history-days=9 is not KEY=VALUE; write "),
    ],
)
def test_a_setting_written_as_an_option_says_how_to_write_it(monkeypatch, capsys, words, line):
    assert cli_error(monkeypatch, capsys, *words.split()).startswith(line)


def test_a_sweep_over_models_takes_the_settings_of_each():
    check_used(["model=logistic,cnn_lstm", "epochs=3", "symbol=BTCUSDT"])
    check_used(["evaluation=single_split,walk_forward", "folds=3", "+lr=0.1"])
    check_used(["start=null", "history_days=30"])
    check_used(["scheduler._target_=null,StepLR", "optimizer.plateau_factor=0.2"])


def test_a_failing_job_is_one_line(tmp_path):
    result = run_stub(tmp_path, "symbol=NOBARS")

    assert result.returncode == 1
    assert result.stderr == "error: NOBARS 15m: no bars; fetch some\n"


def test_an_interrupted_run_ends_with_its_own_exit_code(tmp_path):
    result = run_stub(tmp_path, "symbol=STOPPED")

    assert result.returncode == 143
    assert result.stderr == "error: STOPPED 15m: interrupted; resume=true\n"


def test_ctrl_c_before_training_is_one_line(tmp_path):
    result = run_stub(tmp_path, "symbol=CTRLC")

    assert (result.returncode, result.stderr) == (130, "error: interrupted\n")


def test_a_bug_in_a_run_keeps_its_traceback(tmp_path):
    result = run_stub(tmp_path, "symbol=BROKEN")

    assert result.returncode == 1
    assert "ZeroDivisionError: a bug" in result.stderr
    assert 'raise ZeroDivisionError("a bug")' in result.stderr


@pytest.mark.parametrize("option", ["-m", "--multirun"])
def test_a_sweep_gets_all_other_words_of_the_command_line(tmp_path, option):
    result = run_stub(tmp_path, "symbol=BTCUSDT,ETHUSDT", option, "tf=1h", "force=true")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "sweep symbol=BTCUSDT,ETHUSDT tf=1h force=true\n"
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["-m", "symbol=BTCUSDT"]])
def test_output_into_a_program_that_has_ended_leaves_no_traceback(tmp_path, arguments):
    script = tmp_path / "stub.py"
    script.write_text(STUB)
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(writer)

    assert result.stderr == ""
    assert result.returncode == 128 + signal.SIGPIPE


def test_hydras_own_options_still_work(tmp_path):
    result = run_stub(tmp_path, "symbol=BTCUSDT", "--cfg", "job")

    assert result.returncode == 0
    assert "symbol: BTCUSDT" in result.stdout
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", ["train", "predict"])
def test_help_shows_every_key_and_every_choice_once(name):
    lines = help_text(name).splitlines()
    shown = [line.split()[0].partition("=")[0] for line in lines if line.startswith("  ")]

    from percoin.cli import compose_config

    top_level = [key for key in compose_config(name, []) if not (CONF_DIR / key).is_dir()]
    for key in top_level:
        assert any(word == key or word.startswith(f"{key}.") for word in shown), key
    chosen = [line.split()[0] for line in lines if line.strip()]
    for group in ("tf", "source", *(["hydra/launcher"] if name == "train" else [])):
        for path in (CONF_DIR / group).glob("*.yaml"):
            assert chosen.count(f"{group}={path.stem}") == 1


@pytest.mark.parametrize("name", ["train", "predict"])
def test_help_explains_and_fits_the_screen(name):
    text = help_text(name)

    assert text.startswith({"train": "Train one", "predict": "Newest closed bar"}[name])
    assert f"python {name}.py symbol=" in text
    assert max(map(len, text.splitlines())) <= 100
    for noise in (
        "_schema",
        "???",
        "_target_:",
        "hydra.run",
        "hydra/job_logging",
        "override",
        "defaults=",
        "oc.env",
        "null:",
    ):
        assert noise not in text


@pytest.mark.parametrize("script", ["train.py", "predict.py"])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_needs_no_torch_and_leaves_nothing_behind(tmp_path, script, option):
    # A torch that cannot be imported: help must not even try.
    (tmp_path / "torch.py").write_text("raise RuntimeError('help imported torch')")
    result = run_script(ROOT / script, tmp_path, option, PYTHONPATH=str(tmp_path))

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == help_text(script.removesuffix(".py")) + "\n"
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["torch.py"]


@pytest.mark.parametrize("script", ["train.py", "predict.py"])
def test_a_misspelt_key_fails_before_torch_is_imported(tmp_path, script):
    (tmp_path / "torch.py").write_text("raise RuntimeError('imported torch')")
    result = run_script(ROOT / script, tmp_path, "symbl=BTCUSDT", PYTHONPATH=str(tmp_path))

    assert result.returncode == EXIT_USAGE
    assert result.stderr == "error: symbl is not a setting; did you mean symbol?\n"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_that_wait_give_their_core_away_unless_told_otherwise(
    monkeypatch, chosen, expected
):
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["predict.py"])
    seen = {}
    run_command(lambda: seen.update(os.environ), "predict")
    assert {name: seen[name] for name in names if name in seen} == expected
