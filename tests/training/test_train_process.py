"""The real command in real processes: interrupted and resumed, and several at one moment."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from signalled_processes import ENVIRONMENT, MOST_SECS, ROOT, Process, run_command
from train_runs import train_arguments

from percoin.registry.artifact import load_artifact, read_artifact
from percoin.registry.layout import MarketFolder
from percoin.types import Timeframe

# So many epochs that it cannot end before the signal arrives.
ENDLESS = ("epochs=100000", "optimizer.early_stopping_patience=100000")
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d \S.*")


def train(
    folder: Path, *overrides: str, until: str = "", number: signal.Signals = signal.SIGINT
) -> Process:
    """Run ``train.py``; send it the signal after a line that holds ``until``."""
    return run_command("train.py", *train_arguments(folder, *overrides), until=until, number=number)


def check_interrupted(process: Process, number: signal.Signals) -> None:
    assert process.code == 128 + number
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"error: BTCUSDT 1h: interrupted by {number.name}; ")
    assert "resume=true" in line
    printed = process.stdout.splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in printed), printed
    messages = [line.partition(" ")[2] for line in printed]
    assert len(set(messages)) == len(messages)


def epochs(process: Process) -> list[int]:
    return [int(number) for number in re.findall(r" epoch (\d+)/", process.stdout)]


@pytest.mark.slow
# Three processes on a machine that may be busy.
@pytest.mark.timeout(720)
def test_a_run_is_interrupted_by_ctrl_c_then_by_sigterm_and_then_finished(tmp_path):
    first = train(tmp_path, *ENDLESS, until=" epoch 2/", number=signal.SIGINT)
    check_interrupted(first, signal.SIGINT)
    assert epochs(first)[:2] == [1, 2]
    assert not (tmp_path / "models").exists()

    again = (*ENDLESS, "resume=true")
    second = train(tmp_path, *again, until=" epoch ", number=signal.SIGTERM)
    check_interrupted(second, signal.SIGTERM)
    assert epochs(second)[0] == epochs(first)[-1] + 1
    assert not (tmp_path / "models").exists()

    (run_folder,) = (tmp_path / "outputs" / "BTCUSDT" / "1h").iterdir()
    checkpoint = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] + 1 == epochs(second)[-1]
    last = train(tmp_path, *again, f"epochs={epochs(second)[-1] + 1}")
    assert (last.code, last.stderr) == (0, "")
    assert epochs(last) == [epochs(second)[-1] + 1]
    artifact = load_artifact(tmp_path / "models", "BTCUSDT", Timeframe.H1)
    assert artifact.manifest.symbol == "BTCUSDT"
    assert (run_folder / "result.json").is_file()
    assert list((tmp_path / "outputs" / "BTCUSDT" / "1h").iterdir()) == [run_folder]


@pytest.mark.slow
def test_runs_of_one_second_export_their_own_weights(tmp_path):
    seeds = (0, 1, 0, 1)
    processes = [
        subprocess.Popen(
            [sys.executable, "train.py", *train_arguments(tmp_path, f"seed={seed}", "logger=csv")],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
        )
        for seed in seeds
    ]
    assert [process.wait(MOST_SECS) for process in processes] == [0, 0, 0, 0]
    weights: dict[int, list[dict[str, torch.Tensor]]] = {0: [], 1: []}
    for run in (tmp_path / "outputs" / "BTCUSDT" / "1h").iterdir():
        seed = json.loads((run / "settings.json").read_text())["config"]["seed"]
        version = json.loads((run / "result.json").read_text())["version"]
        market = MarketFolder(tmp_path / "models", "BTCUSDT", Timeframe.H1)
        artifact = read_artifact(market, market.version(version))
        best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        assert artifact.manifest.seed == seed
        assert all(torch.equal(best[f"network.{k}"], v) for k, v in artifact.state_dict.items())
        weights[seed].append(artifact.state_dict)
    # As each would be trained alone.
    for first, second in weights.values():
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(weights[0][0][name], weights[1][0][name]) for name in weights[0][0])
