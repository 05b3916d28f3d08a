import json
from dataclasses import replace

import artifact_builders as builders

from percoin.features.feature_set import FEATURE_NAMES


def content(record=None):
    return json.loads((record or builders.record()).to_json(builders.draft(), builders.CREATED_AT))


def test_every_key_of_the_original_is_there():
    made = content()
    assert list(made)[:7] == [
        "symbol",
        "timeframe",
        "created_at",
        "hyperparameters",
        "training_history",
        "test_metrics",
        "dataset_info",
    ]
    assert list(made["training_history"]) == ["train_loss", "train_acc", "val_loss", "val_acc"]
    assert made["dataset_info"]["feature_names"] == list(FEATURE_NAMES)
    assert made["dataset_info"]["test_samples"] == 150
    assert made["created_at"] == "2025-09-01T00:03:12Z"


def test_the_test_metrics_are_the_manifests_and_more():
    made = content()["test_metrics"]
    assert made["accuracy"] == builders.draft().test_metrics.accuracy
    assert made["mcc"] == 0.2


def test_a_figure_that_could_not_be_measured_is_null():
    assert content()["test_metrics"]["auroc"] is None


def test_further_sections_cannot_replace_the_originals_keys():
    record = replace(
        builders.record(),
        sections={"symbol": "ETHUSDT", "baselines": {"majority": 0.5}},
        test_metrics={"accuracy": 0.9778},
    )
    made = content(record)
    assert made["symbol"] == "BTCUSDT"
    assert made["baselines"] == {"majority": 0.5}
    assert made["test_metrics"]["accuracy"] == 0.6
