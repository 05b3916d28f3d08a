"""``trainer.precision=auto``: chosen once for a run, noted, and kept by what repeats the run."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bf16 import needs_bf16
from train_runs import run_train, train_arguments

from percoin.cli import compose_config
from percoin.config import RegistryConfig, TrainConfig, typed
from percoin.errors import ConfigError, InterruptedRunError, VersionRefusedError
from percoin.network import CnnLstm
from percoin.registry.artifact import Artifact, load_artifact
from percoin.registry.command.reproduction import reproduce
from percoin.registry.layout import MarketFolder
from percoin.training import precision
from percoin.training.recipes import per_market
from percoin.training.version_settings import overrides_of, settings_of
from percoin.tuning.command import tune_from_config
from percoin.types import Timeframe

AUTO = "trainer.precision=auto"
BF16_IS_FAST = {"32-true": 0.2, "bf16-mixed": 0.1}


def steps_of(secs: dict[str, float], threads: int) -> tuple[precision.StepTime, ...]:
    return tuple(precision.StepTime(name, threads, each) for name, each in secs.items())


def settings(*overrides: str) -> TrainConfig:
    words = ["symbol=BTCUSDT", "tf=1h", AUTO, *overrides]
    return typed(compose_config("train", words), TrainConfig)


@pytest.fixture
def timed(monkeypatch) -> dict[str, float]:
    """What the probe finds on a processor with bf16; a test may change it."""
    secs = dict(BF16_IS_FAST)
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(precision, "time_steps", lambda *asked: steps_of(secs, asked[-1][0]))
    return secs


@pytest.mark.parametrize(
    ("full", "mixed", "expected"),
    [(0.2, 0.1, "bf16-mixed"), (0.1, 0.2, "32-true"), (0.2, 0.19, "32-true")],
)
def test_bf16_is_chosen_where_a_step_is_clearly_faster(timed, full, mixed, expected):
    timed.update({"32-true": full, "bf16-mixed": mixed})
    choice = precision.choose_precision(settings("workers=2"))
    assert choice.precision == expected
    assert choice.steps == steps_of(timed, choice.threads)


def test_one_thread_is_chosen_where_it_is_clearly_faster_and_workers_leave_it_open(monkeypatch):
    secs = {
        ("32-true", 2): 0.2,
        ("32-true", 1): 0.3,
        ("bf16-mixed", 2): 0.2,
        ("bf16-mixed", 1): 0.1,
    }
    asked = []

    def time_steps(network, batch_size, lookback, counts):
        asked.append(counts)
        return tuple(
            precision.StepTime(*way, each) for way, each in secs.items() if way[1] in counts
        )

    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(precision, "time_steps", time_steps)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    chosen = precision.choose_precision(settings())
    assert (chosen.precision, chosen.threads) == ("bf16-mixed", 1)
    secs["bf16-mixed", 1] = 0.19
    chosen = precision.choose_precision(settings())
    assert (chosen.precision, chosen.threads) == ("32-true", 2)
    precision.choose_precision(settings("workers=2"))
    assert asked == [(2, 1), (2, 1), (2,)]


def test_nothing_is_timed_where_the_choice_is_clear(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_network.py").write_text("")
    monkeypatch.setattr(precision, "time_steps", None)
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: False)
    assert precision.choose_precision(settings()).precision == "32-true"
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    own = settings("model._target_=my_network:Mine", "plugins=[my_network.py]")
    fleet = settings("symbol='BTCUSDT,ETHUSDT'", "fleet=true")
    assert [precision.choose_precision(each).precision for each in (own, fleet)] == ["32-true"] * 2


@needs_bf16
def test_the_probe_times_steps_and_draws_from_no_generator_of_the_training(timed, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(precision, "_PROBE_SECS", 0.0)
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    small = settings("model.channels=[4,4,4]", "model.hidden_size=4", "model.n_heads=2")
    before = torch.random.get_rng_state()
    choice = precision.choose_precision(small)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {step.precision for step in choice.steps} == {"32-true", "bf16-mixed"}
    assert min(step.secs for step in choice.steps) > 0


def test_the_machine_says_whether_it_multiplies_bf16(monkeypatch):
    for found, expected in (({"amx_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert precision.multiplies_bf16() is expected


def train(folder: Path, *overrides: str):
    return run_train(train_arguments(folder, AUTO, "logger=null", *overrides))


def served(folder: Path) -> Artifact:
    return load_artifact(folder / "models", "BTCUSDT", Timeframe.H1)


@pytest.mark.slow
@needs_bf16
def test_a_resumed_run_and_a_reproduction_take_the_precision_that_the_run_began_with(
    tmp_path, timed, monkeypatch
):
    seen = []
    original = per_market.train

    def noted(dataset, network, plan, *arguments, **further):
        seen.append(plan.precision)
        if len(seen) == 1:
            original(dataset, network, replace(plan, epochs=1), *arguments, **further)
            raise InterruptedRunError("BTCUSDT", "1h", "interrupted", "", signal_number=15)
        return original(dataset, network, plan, *arguments, **further)

    monkeypatch.setattr(per_market, "train", noted)
    assert train(tmp_path).code == 143
    timed["bf16-mixed"] = 9.0
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
        refused = train(tmp_path, "resume=true")
    assert refused.code == 1
    assert (
        "trainer.precision=bf16-mixed, and this CPU cannot compute in bf16; go on" in refused.stderr
    )
    finished = train(tmp_path, "resume=true")
    assert finished.code == 0, finished.stderr

    manifest = served(tmp_path).manifest
    assert manifest.config["trainer"]["precision"] == "auto"
    assert manifest.config["choices"]["precision"] == "bf16-mixed"
    record = json.loads((served(tmp_path).folder / "metrics.json").read_text())
    found = {step["precision"]: step["secs"] for step in record["precision"]["steps"]}
    assert found == BF16_IS_FAST

    market = MarketFolder(tmp_path / "models", "BTCUSDT", Timeframe.H1)
    words = ["action=reproduce", f"data_dir={tmp_path / 'data'}"]
    found = reproduce(typed(compose_config("registry", words), RegistryConfig), market)
    assert found.is_same, found.as_text()
    assert seen == ["bf16-mixed"] * 3
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    cpu = re.escape(manifest.machine["cpu"])
    with pytest.raises(VersionRefusedError, match=rf"bf16; reproduce it on .* whose CPU is {cpu}$"):
        reproduce(typed(compose_config("registry", words), RegistryConfig), market)
    # Retraining leaves it to the machine again.
    assert settings_of(manifest).trainer.precision == "auto"
    again = typed(compose_config("train", overrides_of(manifest)), TrainConfig)
    assert again.trainer.precision == "auto"


@needs_bf16
def test_a_run_in_bf16_is_tested_in_32_bits(tmp_path, timed):
    finished = train(tmp_path)
    assert finished.code == 0, finished.stderr
    artifact = served(tmp_path)
    assert {each.dtype for each in artifact.state_dict.values()} <= {torch.float32, torch.int64}
    record = json.loads((artifact.folder / "metrics.json").read_text())
    assert record["precision"]["precision"] == "bf16-mixed"


def test_a_search_keeps_the_precision_that_it_began_with(tmp_path, timed, monkeypatch):
    timed["bf16-mixed"] = 9.0
    monkeypatch.setattr("percoin.tuning.trial.fit_trial", seen_by(seen := []))
    for secs, n_trials in ((9.0, 1), (0.1, 2)):
        timed["bf16-mixed"] = secs
        words = ("experiment=tune", f"experiment.trials={n_trials}", "experiment.epochs=1")
        run_train(train_arguments(tmp_path, AUTO, "logger=null", *words), tune_from_config)
    assert seen == ["32-true", "32-true"]


def seen_by(seen: list[str]):
    def fit_trial(trial, dataset, callbacks):
        seen.append(trial.trainer.precision)
        raise ConfigError("only asked for its precision")

    return fit_trial


def test_explicit_precisions_are_not_timed(monkeypatch):
    for name in ("32-true", "bf16-mixed"):
        assert not settings(f"trainer.precision={name}").leaves_precision_open
    assert not settings("model=logistic").leaves_precision_open


@pytest.mark.slow
@needs_bf16
def test_the_probe_times_every_number_of_threads():
    network = CnnLstm(2, (4, 4, 4), 4, 1, 2, (4, 4))
    before = torch.get_num_threads()
    steps = precision.time_steps(network, 4, 8, (1, 2))
    assert torch.get_num_threads() == before
    assert {(step.precision, step.threads) for step in steps} == {
        (name, count) for name in ("32-true", "bf16-mixed") for count in (1, 2)
    }
    assert min(step.secs for step in steps) > 0
