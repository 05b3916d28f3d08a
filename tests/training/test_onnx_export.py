"""export.onnx=true, from the command to an answer without PyTorch; and what it refuses."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from train_runs import Finished, run_train, train_arguments
from training_builders import LOOKBACK, make_dataset, tiny_network

from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.bars.store import BarStore
from percoin.errors import ConfigError, InvalidArtifactError
from percoin.inference import Backend, Predictor
from percoin.registry.artifact import load_artifact
from percoin.registry.contents import sha256
from percoin.registry.layout import ONNX_FILE
from percoin.training import onnx_export
from percoin.training.onnx_export import TOLERANCE, check_packages, export_onnx
from percoin.types import Timeframe

ROOT = Path(__file__).parents[2]
MARKET = ("BTCUSDT", "1h")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Finished, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    return run_train(train_arguments(folder, "epochs=1", "export.onnx=true")), folder


def bars_of(folder: Path):
    return BarStore(folder / "data" / "bars").load("BTCUSDT", Timeframe.H1)


def test_a_training_writes_the_network_beside_its_files_and_into_the_manifest(run):
    finished, folder = run
    artifact = load_artifact(folder / "models", "BTCUSDT", Timeframe.H1)
    content = (artifact.folder / ONNX_FILE).read_bytes()

    assert (finished.code, finished.stderr) == (0, "")
    assert "ONNX agrees with PyTorch to" in finished.stdout
    assert artifact.manifest.files[ONNX_FILE] == sha256(content)
    # One file, nothing beside it, and no word of whose machine wrote it.
    assert sorted(path.suffix for path in artifact.folder.iterdir()) == sorted(
        [".onnx", ".pth", ".pth", ".pkl", *[".json"] * 4]
    )
    assert b".py" not in content
    assert str(ROOT).encode() not in content


def test_both_libraries_give_the_same_probabilities_on_every_bar(run):
    check_same_probabilities(run[1], bars_of(run[1]))


def test_both_libraries_give_the_same_probabilities_on_real_bars(run, klines):
    bars = FilesSource(klines).load("BTCUSDT", Timeframe.H1)
    check_same_probabilities(run[1], bars.slice(len(bars) - 4000))


def check_same_probabilities(folder: Path, bars: Bars) -> None:
    by_torch, by_onnx = (
        Predictor(folder / "models", backend=backend).predict_range(bars, in_sample=True)
        for backend in Backend
    )
    is_known = np.isfinite(by_torch.probabilities).all(axis=1)

    assert is_known.sum() > 1000
    assert by_torch.version_id == by_onnx.version_id
    np.testing.assert_array_equal(np.isfinite(by_onnx.probabilities).all(axis=1), is_known)
    np.testing.assert_allclose(
        by_onnx.probabilities[is_known], by_torch.probabilities[is_known], atol=TOLERANCE, rtol=0
    )
    assert by_torch.probabilities[is_known].std(axis=0).max() > 100 * TOLERANCE


def test_predict_answers_without_torch_in_the_process(run):
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['predict.py', "
        "'symbol=BTCUSDT', 'tf=1h', 'source=store', 'output=json', 'predictor=onnx', "
        "'require_accepted=false']\n"
        f"try: runpy.run_path({str(ROOT / 'predict.py')!r}, run_name='__main__')\n"
        "except SystemExit as done: assert done.code == 0, done.code\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=run[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    answer, modules = result.stdout.splitlines()

    assert result.returncode == 0, result.stderr
    assert '"source": "ML_PER_COIN_V1"' in answer
    assert "Loaded model: BTCUSDT 1h (features=15)" in result.stderr
    assert "onnxruntime" in modules.split()
    assert {"torch", "lightning", "onnx", "onnxscript"} & set(modules.split()) == set()


@pytest.fixture(scope="module")
def exported() -> bytes:
    return export_onnx(tiny_network(seed=1), windows(40), MARKET)


def windows(n: int) -> np.ndarray:
    dataset = make_dataset()
    return dataset.windows[dataset.rows("validation")[:n] - LOOKBACK + 1]


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_the_exported_network_takes_any_number_of_windows(exported, n):
    session = onnxruntime.InferenceSession(exported)
    [logits] = session.run(None, {"windows": windows(n)})
    with torch.inference_mode():
        expected = tiny_network(seed=1).eval()(torch.tensor(windows(n))).numpy()

    assert [end.shape for end in session.get_inputs()] == [["batch", LOOKBACK, 15]]
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", [2, 3])
def test_a_network_that_answers_otherwise_as_onnx_is_not_exported(exported, monkeypatch, seed):
    monkeypatch.setattr(onnx_export, "_written", lambda network, windows: exported)

    with pytest.raises(
        InvalidArtifactError, match=r"BTCUSDT 1h: the ONNX network differs .* on 1 validation win"
    ):
        export_onnx(tiny_network(seed), windows(40), MARKET)


def test_an_export_leaves_the_network_as_it_was(exported, monkeypatch):
    monkeypatch.setattr(onnx_export, "_written", lambda network, windows: exported)
    network = tiny_network(seed=1).train()

    assert export_onnx(network, windows(2), MARKET) == exported
    assert network.training
    assert all(values.requires_grad for values in network.parameters())


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_line_before_any_work(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(
        onnx_export, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    words = rf"export.onnx=true needs {missing}, which is not installed: pip install 'percoin\[onnx"
    with pytest.raises(ConfigError, match=words):
        check_packages()

    finished = run_train(train_arguments(tmp_path, "export.onnx=true"))
    assert finished.code == 2
    assert finished.stderr.startswith(f"error: export.onnx=true needs {missing}")
    assert not (tmp_path / "data").exists()
