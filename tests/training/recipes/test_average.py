"""``model=average``: models averaged without a network, for one market and for those of a pool."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exported_models import bars_to_learn_from, make_dataset
from train_runs import SIMULATED, Finished, run_train, train_arguments

from percoin.audit.findings import FindingStatus
from percoin.audit.served import audit_served, rebuild
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import RegistryConfig, TrainConfig, typed
from percoin.errors import NotEnoughBarsError
from percoin.evaluation.baselines import LOGISTIC, USUAL_BESIDE, USUAL_POOLED, VOLATILITY
from percoin.evaluation.fold_forecasts import (
    FoldForecasts,
    JudgingRules,
    fit_pooled_baselines,
    forecast_average,
)
from percoin.evaluation.judgement import judge_folds
from percoin.inference import Predictor
from percoin.registry.artifact import Artifact, load_artifact
from percoin.registry.command.reproduction import reproduce
from percoin.registry.layout import MarketFolder
from percoin.training.version_settings import overrides_of, settings_of
from percoin.types import Timeframe

EDGE = (*SIMULATED, "source.edge=0.6")
MARKETS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
LEFT_OUT = MARKETS[-1]
POOL = (
    f"symbol={','.join(MARKETS)}",
    "recipe=pooled",
    f"pooled.leave_out=[{LEFT_OUT}]",
)


def arguments(folder: Path, *overrides: str) -> list[str]:
    return train_arguments(folder, "model=average", *overrides, source=EDGE)


def served(folder: Path, symbol: str = "BTCUSDT") -> Artifact:
    return load_artifact(folder / "models", symbol, Timeframe.H1)


def bars_of(folder: Path, symbol: str = "BTCUSDT"):
    return BarStore(folder / "data" / "bars").load(symbol, Timeframe.H1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[Finished, Path]:
    folder = tmp_path_factory.mktemp("alone")
    return run_train(arguments(folder)), folder


@pytest.fixture(scope="module")
def pooled(tmp_path_factory) -> tuple[Finished, Path]:
    folder = tmp_path_factory.mktemp("pooled")
    return run_train(arguments(folder, *POOL)), folder


def test_one_market_is_averaged_and_served_as_it_was_judged(alone):
    done, folder = alone
    assert (done.code, done.stderr) == (0, "")
    artifact = served(folder)
    manifest = artifact.manifest
    assert (manifest.model_version, manifest.has_network) == ("average_v1", False)
    assert tuple(manifest.weights) == USUAL_BESIDE
    assert not [path for path in artifact.folder.iterdir() if path.suffix == ".pth"]
    dataset = rebuild(manifest, bars_of(folder))
    fold = forecast_average(dataset, JudgingRules(model_name="average", blend=USUAL_BESIDE))
    assert fold.weights == pytest.approx(manifest.weights, abs=1e-12)
    answers = Predictor(folder / "models").predict_range(bars_of(folder), in_sample=True)
    np.testing.assert_allclose(
        answers.probabilities[dataset.rows("test")], fold.model.probabilities, rtol=0, atol=1e-9
    )
    assert set(USUAL_BESIDE) <= {line.name for line in fold.baselines}
    findings = audit_served(folder / "models", bars_of(folder))
    assert {finding.status for finding in findings} == {FindingStatus.OK}


def test_its_screen_says_what_was_averaged_and_nothing_of_a_network(alone):
    done, _ = alone
    assert "an average of models without a network, in " in done.stdout
    assert "skill over the train prior" in done.stdout
    for text in ("epoch", "tensorboard", "network adds"):
        assert text not in done.stdout


def test_its_manifest_says_the_command_that_trains_it_again(alone, pooled):
    for folder, blend in ((alone[1], USUAL_BESIDE), (pooled[1], USUAL_POOLED)):
        manifest = served(folder).manifest
        assert settings_of(manifest).model.option == "average"
        again = typed(compose_config("train", overrides_of(manifest)), TrainConfig)
        assert (again.model.option, again.blended) == ("average", blend)


def test_a_pool_leaves_an_average_of_every_market_as_it_was_judged(pooled):
    done, folder = pooled
    assert (done.code, done.stderr) == (0, "")
    assert "seen: ahead of the rival on " in done.stdout
    assert "unseen: mean skill " in done.stdout
    for text in ("tensorboard", "network add"):
        assert text not in done.stdout
    datasets = {
        symbol: rebuild(served(folder, symbol).manifest, bars_of(folder, symbol))
        for symbol in MARKETS
    }
    learnt = fit_pooled_baselines([datasets[symbol] for symbol in MARKETS[:2]], 0, has_moves=True)
    for symbol, dataset in datasets.items():
        manifest = served(folder, symbol).manifest
        assert manifest.pool.seen == MARKETS[:2]
        assert tuple(manifest.weights) == USUAL_POOLED
        rules = JudgingRules(model_name="average", blend=USUAL_POOLED)
        fold = forecast_average(dataset, rules, learnt)
        answers = Predictor(folder / "models").predict_range(
            bars_of(folder, symbol), in_sample=True
        )
        np.testing.assert_allclose(
            answers.probabilities[dataset.rows("test")],
            fold.model.probabilities,
            rtol=0,
            atol=1e-9,
        )


def test_a_pool_of_averages_is_reproduced_bit_for_bit(pooled):
    _, folder = pooled
    wanted = typed(
        compose_config(
            "registry",
            [
                *("action=reproduce", "symbol=BTCUSDT", "tf=1h", *EDGE),
                *(f"{name}_dir={folder / name}" for name in ("data", "models")),
            ],
        ),
        RegistryConfig,
    )
    found = reproduce(wanted, MarketFolder(folder / "models", "BTCUSDT", Timeframe.H1))
    assert found.is_same
    assert "combination" in [entry.part for entry in found.compared]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), POOL], ids=["alone", "pool"])
def test_it_is_fitted_again_to_all_rows_if_asked(tmp_path, overrides):
    done = run_train(arguments(tmp_path, *overrides, "refit=true", "blend=logistic+volatility"))
    assert (done.code, done.stderr) == (0, "")
    manifest = served(tmp_path).manifest
    assert manifest.refit.epochs is None
    assert set(manifest.refit.twin_sha256) == {LOGISTIC, VOLATILITY}
    assert manifest.refit.rows > sum(span.rows for span in manifest.bars.splits.values())


def test_a_walk_forward_averages_in_each_fold(tmp_path):
    done = run_train(
        arguments(tmp_path, "evaluation=walk_forward", "folds=2", "blend=logistic+volatility")
    )
    assert (done.code, done.stderr) == (0, "")
    last = rebuild(served(tmp_path).manifest, bars_of(tmp_path))
    assert served(tmp_path).manifest.dataset_info.test_samples > len(last.rows("test"))


def test_the_run_says_to_programs_what_the_pool_was(pooled):
    _, folder = pooled
    [run] = (folder / "outputs" / "pooled" / "1h").iterdir()
    said = json.loads((run / "result.json").read_text())
    assert set(said["markets"]) == set(MARKETS)
    assert set(said["cuts"]) == {"first_time", "validation_time", "test_time"}
    assert said["means"]["network_adds"] is None


def test_a_baseline_that_is_better_and_no_part_of_the_average_is_named():
    dataset = make_dataset(bars_to_learn_from(1600))
    rules = JudgingRules(
        model_name="average", repetitions=50, blend=(VOLATILITY, "volatility_clock")
    )
    fold = forecast_average(dataset, rules)
    best = min(fold.validation_losses, key=fold.validation_losses.__getitem__)
    assert best not in rules.blend
    [caution] = cautions_of(fold, rules)
    assert caution.startswith(f"on validation rows the baseline {best} alone is better than the ")
    # Now all are worse than the average.
    worse = replace(fold, validation_losses=dict.fromkeys(fold.validation_losses, 2.0))
    assert cautions_of(worse, rules) == []


def cautions_of(fold: FoldForecasts, rules: JudgingRules) -> list[str]:
    cautions = judge_folds([fold], rules).evaluation.verdict.cautions
    return [text for text in cautions if "alone" in text]


def test_an_average_of_one_is_none():
    dataset = make_dataset(bars_to_learn_from(400))
    rules = JudgingRules(model_name="average", blend=(LOGISTIC, "moves"))
    with pytest.raises(NotEnoughBarsError, match=r"of blend=logistic\+moves logistic is left to"):
        forecast_average(dataset, rules)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["blend=volatility"], "averages two or more models, and blend=volatility names 1: name"),
        (["blend=none"], "averages two or more models, and blend=none names none: name more"),
        (["blend=volatility+pooled_moves"], "pooled_moves learns from all markets of a pool"),
        (["resume=true"], "model=average trains in seconds and cannot be resumed"),
        (["epochs=3"], "epochs has no effect with model=average"),
        (["experiment=tune"], "searches settings of a network, and model=average has none"),
        (["init=pooled"], "init=pooled trains a network, and model=average is none"),
        ([*POOL, "pooled.seeds=2"], "pooled.seeds has no effect with model=average"),
    ],
)
def test_what_it_does_not_go_with_is_said_in_one_line(tmp_path, overrides, reason):
    done = run_train(arguments(tmp_path, *overrides))
    assert done.code != 0
    [line] = done.stderr.splitlines()
    assert reason in line
    assert not (tmp_path / "models").exists()
