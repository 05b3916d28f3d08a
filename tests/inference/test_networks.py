"""A network by ONNX Runtime: what is loaded, and what is refused with a reason."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported_models import LOOKBACK, bars_to_learn_from, export, make_dataset, random_network
from onnx import TensorProto, helper

from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import PredictConfig, typed
from percoin.errors import ConfigError, InvalidArtifactError, ModelNotFoundError
from percoin.evaluation.calibration import apply_calibration
from percoin.inference import Backend, NoPredictionReason, Predictor, networks
from percoin.predict import answer
from percoin.registry.artifact import load_artifact
from percoin.registry.layout import ONNX_FILE
from percoin.types import Timeframe

BARS = bars_to_learn_from(1200)
WEIGHTS = np.random.default_rng(0).normal(size=(15, 3)).astype(np.float32)


def linear_onnx(
    batch: str | int = "batch",
    lookback: int = LOOKBACK,
    operator: str = "MatMul",
    kind: int = TensorProto.FLOAT,
    weights: np.ndarray = WEIGHTS,
    n_classes: int = 3,
) -> bytes:
    """Logits that are a linear function of a window's mean: small, and easily worked by hand."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["windows", "axes"], ["mean"], keepdims=0),
            helper.make_node(operator, ["mean", "weights"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("windows", kind, [batch, lookback, 15])],
        [helper.make_tensor_value_info("logits", kind, [batch, n_classes])],
        [
            onnx.numpy_helper.from_array(weights[:, :n_classes], "weights"),
            onnx.numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


def onnx_predictor(root: Path, content: bytes | None) -> Predictor:
    export(root, random_network(), make_dataset(BARS), onnx=content)
    return Predictor(root, backend=Backend.ONNX)


def test_the_onnx_file_answers_not_the_weights_beside_it(tmp_path):
    predictor = onnx_predictor(tmp_path, linear_onnx())
    manifest = load_artifact(tmp_path, "BTCUSDT", Timeframe.M15).manifest
    dataset = make_dataset(BARS)
    logits = dataset.features[-LOOKBACK:].astype(np.float64).mean(axis=0) @ WEIGHTS
    [expected] = apply_calibration(logits[np.newaxis], manifest.calibration.to_json())

    prediction = predictor.predict(BARS)
    assert prediction.probabilities == pytest.approx(expected.tolist(), abs=1e-5)
    assert prediction.version_id == manifest.version_id
    [result] = predictor.predict_many([BARS])
    assert result == prediction
    last = predictor.predict_range(BARS, BARS.frame.index[-3], in_sample=True)
    assert last.probabilities[-1] == pytest.approx(expected, abs=1e-5)


def test_a_version_without_the_network_says_how_to_get_it(tmp_path):
    predictor = onnx_predictor(tmp_path, None)

    words = rf"BTCUSDT 15m: version \S+ holds no {ONNX_FILE}; train with export.onnx=true, or pre"
    with pytest.raises(ModelNotFoundError, match=words):
        predictor.predict(BARS)
    [result] = predictor.predict_many([BARS])
    assert result.reason is NoPredictionReason.MODEL_MISSING
    assert Predictor(tmp_path).predict(BARS).version_id


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be loaded"),
        (b"no network at all", "cannot be loaded"),
        (linear_onnx()[:-40], "cannot be loaded"),
        (linear_onnx(operator="RunThisCommand"), "cannot be loaded"),
        (linear_onnx(batch=2), "not any windows to logits"),
        (linear_onnx(lookback=30), "not any windows to logits"),
        (linear_onnx(n_classes=2), "not any windows to logits"),
        (
            linear_onnx(kind=TensorProto.DOUBLE, weights=WEIGHTS.astype(np.float64)),
            "not any windows to logits",
        ),
        (
            linear_onnx(weights=WEIGHTS * np.float32("inf")),
            "gives no valid answer: logits are not finite",
        ),
    ],
)
def test_a_network_that_is_none_is_an_invalid_model(tmp_path, content, words):
    predictor = onnx_predictor(tmp_path, content)

    with pytest.raises(InvalidArtifactError, match=f"^BTCUSDT 15m: .*{words}"):
        predictor.predict(BARS)
    [result] = predictor.predict_many([BARS])
    assert result.reason is NoPredictionReason.MODEL_INVALID


@pytest.mark.parametrize("name", [ONNX_FILE, "cnn_lstm_v1.pth", "meta.json"])
def test_a_flipped_bit_in_any_file_is_refused(tmp_path, name):
    predictor = onnx_predictor(tmp_path, linear_onnx())
    path = tmp_path / "per_coin" / "BTCUSDT" / "15m" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(InvalidArtifactError, match=name):
        predictor.predict(BARS)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_network_that_keeps_its_weights_elsewhere_is_refused(tmp_path, monkeypatch, absolute):
    """Another file's bytes must not become weights, whoever wrote the path."""
    model = onnx.load_from_string(linear_onnx())
    secret = tmp_path / "secret.bin"
    secret.write_bytes(WEIGHTS.tobytes())
    monkeypatch.chdir(tmp_path)
    location = str(secret) if absolute else secret.name
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    predictor = onnx_predictor(tmp_path / "models", model.SerializeToString())

    with pytest.raises(InvalidArtifactError, match="cannot be loaded"):
        predictor.predict(BARS)


def test_onnx_runs_on_the_cpu_alone(tmp_path):
    with pytest.raises(ConfigError, match="predictor=onnx runs on the CPU, not on device=cuda:0"):
        Predictor(tmp_path, "cuda:0", Backend.ONNX)


def test_a_missing_runtime_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(
        networks, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name)
    )
    with pytest.raises(ConfigError, match=r"predictor=onnx needs ONNX Runtime.*'percoin\[onnx\]'"):
        Predictor(tmp_path, backend="onnx")
    assert Predictor(tmp_path, backend="torch")


def test_predict_passes_over_a_model_that_was_not_exported_for_onnx(tmp_path, capsys):
    BarStore(tmp_path / "data" / "bars").write(BARS)
    export(tmp_path / "models", random_network(), make_dataset(BARS))
    folders = [f"{name}_dir={tmp_path / name}" for name in ("data", "models")]
    asked = ["symbol=BTCUSDT", "tf=15m", "source=store", "output=json", "predictor=onnx", *folders]
    answer(typed(compose_config("predict", asked), PredictConfig))
    passed = json.loads(capsys.readouterr().out)["passed"][0]

    assert (passed["source"], passed["reason"]) == ("ML_PER_COIN_V1", "model_missing")
    assert "train with export.onnx=true, or predict with predictor=torch" in passed["detail"]
