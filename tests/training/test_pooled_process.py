"""The real commands in real processes: a pool is trained, interrupted, resumed and served."""

import signal

import pytest
from signalled_processes import run_command
from train_runs import train_arguments

from percoin.registry.artifact import load_artifact
from percoin.types import Timeframe

MARKETS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
# As the shell makes it of symbol=$(cat symbols): one word, without quotes.
POOL = (
    "recipe=pooled",
    f"symbol={','.join(MARKETS)}",
    "pooled.leave_out=[SOLUSDT]",
    "pooled.windows_per_epoch=300",
    "pooled.validation_windows=60",
    "pooled.seeds=1",
)


# Three processes on a machine that may be busy.
@pytest.mark.slow
@pytest.mark.timeout(720)
def test_a_pool_is_interrupted_then_finished_and_every_market_answers(tmp_path):
    command = ("train.py", *train_arguments(tmp_path, *POOL, "epochs=12"))
    # So that neither ends before the signal arrives.
    patient = "optimizer.early_stopping_patience=12"
    stopped = run_command(*command, patient, until=" epoch 2/")
    assert stopped.code == 128 + signal.SIGTERM
    assert stopped.stderr.startswith("error: pool of 3 markets 1h: interrupted by SIGTERM; ")
    assert not (tmp_path / "models").exists()

    done = run_command(*command, patient, "resume=true")
    assert (done.code, done.stderr) == (0, "")
    assert " epoch 1/" not in done.stdout
    assert "unseen: mean skill " in done.stdout
    for symbol in MARKETS:
        assert load_artifact(tmp_path / "models", symbol, Timeframe.H1).manifest.pool is not None

    folders = [f"{name}_dir={tmp_path / name}" for name in ("data", "models")]
    said = run_command(
        "predict.py",
        "symbol=SOLUSDT",
        "tf=1h",
        "source=store",
        "require_accepted=false",
        "max_age_bars=null",
        *folders,
    )
    assert said.code == 0
    assert "cnn_lstm_v1)" in said.stdout
