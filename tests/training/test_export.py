"""What is judged of a trained network, and by which rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bf16 import needs_bf16
from training_builders import learnable_dataset, make_plan, tiny_network

from percoin.dataset import MarketDataset
from percoin.evaluation.backtest import Costs, Exit
from percoin.evaluation.fold_forecasts import JudgingRules
from percoin.registry.catalogue import read_versions
from percoin.registry.layout import MarketFolder
from percoin.training import fitted_network
from percoin.training.export import ModelExporter
from percoin.training.fitted_network import forecast_test
from percoin.training.lit_module import SignalClassifier
from percoin.training.run import train


@pytest.fixture(scope="module")
def dataset() -> MarketDataset:
    return learnable_dataset()


@pytest.fixture(scope="module")
def module(dataset, tmp_path_factory) -> SignalClassifier:
    network = tiny_network(dropout=0.5)
    return train(dataset, network, make_plan(epochs=1), tmp_path_factory.mktemp("run")).module


def test_calibration_sees_validation_rows_and_the_test_rows_are_asked_without_dropout(
    dataset, module, monkeypatch
):
    asked = {}

    def forecast_fold(dataset, validation, test, *_others) -> None:
        asked.update(validation=validation, test=test)

    monkeypatch.setattr(fitted_network, "forecast_fold", forecast_fold)
    module.network.train()
    forecast_test(module, dataset, JudgingRules())
    network = module.network.eval()
    assert set(asked) == {"validation", "test"}
    for part, logits in asked.items():
        rows = dataset.rows(part)
        windows = torch.tensor(dataset.windows[rows - dataset.lookback + 1])
        with torch.inference_mode():
            expected = network(windows).double().numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-6)


@needs_bf16
def test_a_network_is_tested_in_32_bits_whatever_it_was_trained_in(dataset, tmp_path):
    plan = replace(make_plan(epochs=1), precision="bf16-mixed")
    module = train(dataset, tiny_network(), plan, tmp_path).module
    rows = dataset.rows("test")
    windows = torch.tensor(dataset.windows[rows - dataset.lookback + 1])
    with torch.inference_mode():
        expected = module.network.eval()(windows).softmax(dim=1)
    torch.testing.assert_close(module.test_probabilities, expected, atol=1e-6, rtol=0)


def test_the_rules_of_its_judgement_are_settings_of_a_version(module, dataset, tmp_path):
    rules = JudgingRules(Costs(1.0, 0.5), n_trials=3, blend=("volatility",), exit=Exit.LEVELS)
    ModelExporter(tmp_path, rules).export(module, dataset)
    bars = dataset.bars
    [version] = read_versions(MarketFolder(tmp_path, bars.symbol, bars.timeframe))
    config = version.manifest.config
    assert (config["blend"], config["trials"]) == ("volatility", 3)
    assert config["costs"] == {"fee_bps": 1.0, "slippage_bps": 0.5}
    assert config["backtest"] == {"exit": "levels"}
