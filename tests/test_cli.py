import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from percoin.cli import EXIT_USAGE, help_text, run_command
from percoin.config import CONF_DIR
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


if __name__ == "__main__":
    sys.exit(run_jobs(task, TrainConfig, config_name="train"))
"""


def run_stub(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    script = folder / "stub.py"
    script.write_text(STUB)
    return run_script(script, folder, *arguments, **environment)


def run_script(
    script: Path, folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if name != "ML_DEFAULT_TF"}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def failing(error: BaseException):
    def command() -> None:
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
    "arguments",
    [
        ["symbl=BTCUSDT"],
        ["symbol=BTCUSDT", "tf=1w"],
        ["-m", "symbol=BTCUSDT,ETHUSDT", "tf=15m,1w"],
        ["-m", "symbol=BTCUSDT,"],
    ],
    ids=" ".join,
)
def test_a_bad_command_line_is_one_line_exit_code_2_and_no_folder(tmp_path, arguments):
    result = run_stub(tmp_path, *arguments)

    assert result.returncode == EXIT_USAGE
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["stub.py"]


def test_several_values_without_m_say_how_to_sweep(tmp_path):
    result = run_stub(tmp_path, "symbol=BTCUSDT,ETHUSDT")

    assert result.returncode == EXIT_USAGE
    assert "several values make a sweep: add -m" in result.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_failing_job_is_one_line(tmp_path):
    result = run_stub(tmp_path, "symbol=NOBARS")

    assert result.returncode == 1
    assert result.stderr == "error: NOBARS 15m: no bars; fetch some\n"


def test_in_a_sweep_the_others_finish_and_the_failure_is_named_at_the_end(tmp_path):
    result = run_stub(tmp_path, "-m", "symbol=NOBARS,btcusdt,ETHUSDT", "tf=15m")

    assert result.returncode == 1
    assert result.stdout.rstrip().endswith("done ETHUSDT 15m")
    assert result.stderr == (
        "error: NOBARS 15m: no bars; fetch some\n"
        "error: symbol='btcusdt' is not a market; did you mean symbol=BTCUSDT?\n"
    )


def test_an_interruption_ends_the_whole_sweep(tmp_path):
    result = run_stub(tmp_path, "-m", "symbol=BTCUSDT,STOPPED,ETHUSDT")

    assert result.returncode == 143
    assert "done BTCUSDT" in result.stdout
    assert "done ETHUSDT" not in result.stdout
    assert result.stderr == "error: STOPPED 15m: interrupted; resume=true\n"


def test_ctrl_c_between_jobs_ends_the_sweep_too(tmp_path):
    result = run_stub(tmp_path, "-m", "symbol=NOBARS,CTRLC,ETHUSDT")

    assert result.returncode != 0
    assert "done ETHUSDT" not in result.stdout
    assert "error: NOBARS 15m" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bug_in_one_job_does_not_hide_the_failures_of_others(tmp_path):
    result = run_stub(tmp_path, "-m", "symbol=NOBARS,BROKEN,ETHUSDT")

    assert result.returncode != 0
    assert "done ETHUSDT" in result.stdout
    assert "error: NOBARS 15m: no bars; fetch some" in result.stderr
    assert "ZeroDivisionError: a bug" in result.stderr


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
    for group in ("tf", "source"):
        for path in (CONF_DIR / group).glob("*.yaml"):
            assert chosen.count(f"{group}={path.stem}") == 1


@pytest.mark.parametrize("name", ["train", "predict"])
def test_help_explains_and_fits_the_screen(name):
    text = help_text(name)

    assert text.startswith({"train": "Train one", "predict": "Newest closed bar"}[name])
    assert f"python {name}.py symbol=" in text
    assert max(map(len, text.splitlines())) <= 100
    for noise in ("_schema", "???", "_target_", "hydra", "defaults=", "oc.env", "null:"):
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
