"""The real commands in real processes: a pool is trained, interrupted, resumed and served."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from train_runs import train_arguments

from percoin.registry.artifact import load_artifact
from percoin.types import Timeframe

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
MARKETS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
# As the shell makes it of symbol=$(cat symbols): one word, without quotes.
POOL = (
    "recipe=pooled",
    f"symbol={','.join(MARKETS)}",
    "pooled.leave_out=[SOLUSDT]",
    "pooled.windows_per_epoch=300",
    "pooled.validation_windows=60",
)


def run(*arguments: str, until: str = "") -> tuple[int, str, str]:
    """A command; it gets SIGTERM after a line that holds ``until``."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = threading.Timer(240, process.kill)
    deadline.start()
    seen = []
    try:
        assert process.stdout is not None
        while until and (line := process.stdout.readline()):
            seen.append(line)
            if until in line:
                process.send_signal(signal.SIGTERM)
                break
        stdout, stderr = process.communicate()
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
    return process.returncode, "".join(seen) + stdout, stderr


# Three processes with all their imports, on a machine that may be busy.
@pytest.mark.timeout(720)
def test_a_pool_is_interrupted_then_finished_and_every_market_answers(tmp_path):
    command = ("train.py", *train_arguments(tmp_path, *POOL, "epochs=12"))
    # So that neither ends before the signal arrives.
    code, _, stderr = run(*command, "optimizer.early_stopping_patience=12", until=" epoch 2/")
    assert code == 128 + signal.SIGTERM
    assert stderr.startswith("error: pool of 3 markets 1h: interrupted by SIGTERM; ")
    assert not (tmp_path / "models").exists()

    again = ("optimizer.early_stopping_patience=12", "epochs=12", "resume=true")
    code, stdout, stderr = run("train.py", *train_arguments(tmp_path, *POOL, *again))
    assert (code, stderr) == (0, "")
    assert " epoch 1/" not in stdout
    assert "unseen: mean skill " in stdout
    for symbol in MARKETS:
        assert load_artifact(tmp_path / "models", symbol, Timeframe.H1).manifest.pool is not None

    folders = [f"{name}_dir={tmp_path / name}" for name in ("data", "models")]
    code, stdout, _ = run(
        "predict.py",
        "symbol=SOLUSDT",
        "tf=1h",
        "source=store",
        "require_accepted=false",
        "max_age_bars=null",
        *folders,
    )
    assert code == 0
    assert "cnn_lstm_v1)" in stdout
