import pytest
import torch
from artifact_builders import (
    EXTRA_SET,
    EXTRA_SYMBOL,
    GOLDEN,
    MARKET_SET,
    MOVES_NUMBERS,
    OTHER_SYMBOL,
    OWN,
    OWN_SYMBOL,
    RELATIVE,
    SYMBOL,
    averaged,
    blend,
    check_whole,
    combination,
    load,
    moves_trees,
    refit,
    regression,
    trees,
    with_moves,
)

from percoin import json_codec
from percoin.labels import label_rule_from_json
from percoin.registry.artifact import load_onnx, read_artifact
from percoin.registry.contents import read_metrics
from percoin.registry.layout import MANIFEST_FILE, METRICS_FILE, MarketFolder
from percoin.registry.manifest import FORMAT_VERSION
from percoin.types import Timeframe


@pytest.mark.parametrize(
    ("version", "symbol"),
    [
        (1, SYMBOL),
        *((version, symbol) for version in (2, 3, 4, 5) for symbol in (SYMBOL, OTHER_SYMBOL)),
        (3, EXTRA_SYMBOL),
        (4, OWN_SYMBOL),
        (6, SYMBOL),
        (7, SYMBOL),
    ],
)
def test_the_committed_artifacts_are_read_and_written_back_byte_for_byte(version, symbol):
    loaded = load(GOLDEN / f"format_{version}", symbol)
    assert loaded.manifest.to_json().encode() == (loaded.folder / MANIFEST_FILE).read_bytes()
    where = MarketFolder(GOLDEN / f"format_{version}", symbol, Timeframe.M15)
    content = (loaded.folder / METRICS_FILE).read_bytes()
    metrics = read_metrics(where, loaded.folder, loaded.manifest)
    assert json_codec.dumps(metrics).encode() == content


# The newest came with a model without a network.
@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_the_committed_artifact_of_each_format_still_loads(version):
    loaded = load(GOLDEN / f"format_{version}")
    assert check_whole(loaded) == 0.5
    assert torch.equal(loaded.state_dict["norm.num_batches_tracked"], torch.tensor(11))
    assert loaded.manifest.label_rule == {
        "kind": "fixed_horizon",
        "horizon": 3,
        "threshold": 0.0025,
    }
    # Drawn once from a seed; read back to the last bit.
    assert loaded.manifest.scaling.scale[0] == 1.7051423210160281


def test_the_committed_comparisons_still_say_whom_they_compare():
    compared = load(GOLDEN / "format_5").manifest
    assert compared.features.feature_set == MARKET_SET
    assert compared.references == tuple(compared.bars.references) == ("BTCUSDT", "XRPUSDT")
    relative = load(GOLDEN / "format_5", OTHER_SYMBOL).manifest
    assert label_rule_from_json(relative.label_rule) == RELATIVE


def test_the_committed_blend_still_says_what_it_is_made_of():
    manifest = load(GOLDEN / "format_2").manifest
    assert manifest.blend == blend()
    assert manifest.regression == regression()
    # Drawn once from a seed; read back to the last bit.
    assert manifest.regression.coefficients[0][0] == -0.8019314252534474
    assert load(GOLDEN / "format_1").manifest.blend is None


def test_the_committed_combination_still_says_what_it_is_made_of():
    loaded = load(GOLDEN / "format_3")
    assert loaded.manifest.combination == combination()
    assert loaded.trees["boosting.json"].numbers == trees().numbers
    weights = {"network": 0.5, "logistic": 0.0, "volatility": 0.25, "boosting": 0.25}
    assert loaded.manifest.weights == weights


def test_the_committed_refit_still_has_its_twin():
    where = MarketFolder(GOLDEN / "format_6", SYMBOL, Timeframe.M15)
    loaded = read_artifact(where, where.link)
    assert (loaded.judged["head.weight"] == 0.25).all()
    assert loaded.manifest.judged_scaling.scale == (2.0,) * 15
    assert loaded.manifest.refit == refit(loaded.judged)


def test_the_committed_trees_still_load_for_either_backend_without_a_weight_file():
    loaded = load(GOLDEN / "format_3", OTHER_SYMBOL)
    assert (loaded.manifest.model_version, loaded.state_dict) == ("boosting_v1", {})
    assert {path.name for path in loaded.folder.iterdir()} == {
        *("boosting.json", "meta.json", "metrics.json", "scaler.pkl")
    }
    by_onnx = load_onnx(GOLDEN / "format_3", OTHER_SYMBOL, Timeframe.M15)
    assert (by_onnx.manifest, by_onnx.network) == (loaded.manifest, b"")
    for trees_of in (loaded.trees, by_onnx.trees):
        assert trees_of["boosting.json"].numbers == trees().numbers


def test_the_committed_models_in_two_stages_still_say_what_they_are_made_of():
    loaded = load(GOLDEN / "format_4")
    assert loaded.manifest.combination == with_moves()
    alone = load(GOLDEN / "format_4", OTHER_SYMBOL)
    assert (alone.manifest.model_version, alone.manifest.last_row) == ("moves_v1", MOVES_NUMBERS)
    for trees_of in (loaded.trees, alone.trees):
        assert trees_of["moves.json"].numbers == moves_trees().numbers


def test_the_committed_average_still_loads_for_either_backend_without_a_weight_file():
    loaded = load(GOLDEN / f"format_{FORMAT_VERSION}")
    assert (loaded.manifest.model_version, loaded.state_dict) == ("average_v1", {})
    assert loaded.manifest.combination == averaged()
    assert list(loaded.manifest.parts) == ["volatility", "boosting"]
    by_onnx = load_onnx(GOLDEN / f"format_{FORMAT_VERSION}", SYMBOL, Timeframe.M15)
    assert (by_onnx.manifest, by_onnx.network) == (loaded.manifest, b"")
    for trees_of in (loaded.trees, by_onnx.trees):
        assert trees_of["boosting.json"].numbers == trees().numbers


def test_the_committed_regression_still_loads_for_either_backend_without_a_weight_file():
    loaded = load(GOLDEN / "format_2", OTHER_SYMBOL)
    assert (loaded.manifest.model_version, loaded.state_dict) == ("logistic_v1", {})
    assert loaded.manifest.regression == regression()
    assert {path.name for path in loaded.folder.iterdir()} == {
        *("meta.json", "metrics.json", "scaler.pkl")
    }
    by_onnx = load_onnx(GOLDEN / "format_2", OTHER_SYMBOL, Timeframe.M15)
    assert (by_onnx.manifest, by_onnx.network) == (loaded.manifest, b"")


def test_the_committed_model_with_extra_columns_still_says_which_ones():
    loaded = load(GOLDEN / "format_3", EXTRA_SYMBOL)
    manifest = loaded.manifest
    assert manifest.features.feature_set == EXTRA_SET
    assert manifest.features.names == EXTRA_SET.names(Timeframe.M15)
    assert (manifest.num_features, len(manifest.scaling.mean)) == (27, 27)
    assert check_whole(loaded) == 0.5


def test_the_committed_network_of_the_users_own_still_says_which_code_it_is():
    manifest = load(GOLDEN / "format_4", OWN_SYMBOL).manifest
    assert (manifest.model, manifest.sources) == (OWN["model"], OWN["sources"])
    assert (manifest.format_version, manifest.n_weights) == (4, 1234)
