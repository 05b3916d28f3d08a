"""What a regression and a blend answer: the very probabilities that their judgement saw."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_models import (
    LOOKBACK,
    SMALL,
    bars_to_learn_from,
    make_dataset,
    random_network,
)
from test_networks import linear_onnx

from percoin.audit.replay import replay_market
from percoin.bars.store import BarStore
from percoin.errors import InvalidArtifactError
from percoin.evaluation.baselines import LOGISTIC
from percoin.evaluation.blend import BLEND
from percoin.evaluation.judgement import (
    FoldForecasts,
    JudgingRules,
    forecast_fold,
    forecast_regression,
    judge_folds,
)
from percoin.evaluation.regression import Regression
from percoin.inference import Backend, Predictor
from percoin.registry.artifact import export_artifact
from percoin.registry.manifest import LOGISTIC_KIND, ModelSpec
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.training.manifest_draft import draft_manifest
from percoin.types import Timeframe

BARS = bars_to_learn_from(1300)
DATASET = make_dataset(BARS)
NETWORK = random_network(seed=2)
BACKENDS = pytest.mark.parametrize("backend", list(Backend))
# Of a probability: float32 sums in another order, features that began at another bar.
TOLERANCE = 1e-6


@torch.inference_mode()
def torch_logits(windows: np.ndarray) -> np.ndarray:
    return NETWORK(torch.tensor(windows)).double().numpy()


def onnx_logits(windows: np.ndarray) -> np.ndarray:
    weights = np.random.default_rng(0).normal(size=(15, 3)).astype(np.float32)
    return windows.astype(np.float64).mean(axis=1) @ weights


def windows_of(part: str) -> np.ndarray:
    return DATASET.windows[DATASET.rows(part) - LOOKBACK + 1]


def judged(kind: str, backend: Backend) -> FoldForecasts:
    """What the judgement sees of a kind of model, with the network of either backend."""
    if kind == LOGISTIC:
        return forecast_regression(DATASET, JudgingRules(repetitions=50, model_name=LOGISTIC))
    ask = torch_logits if backend is Backend.TORCH else onnx_logits
    rules = JudgingRules(repetitions=50, model_name=BLEND, blend=True)
    fold = forecast_fold(DATASET, ask(windows_of("validation")), ask(windows_of("test")), rules)
    # The random networks know nothing; a weight of their own makes them heard.
    weight = 0.4
    mixed = weight * fold.parts["network"].test + (1 - weight) * fold.parts["regression"].test
    return replace(fold, weight=weight, model=replace(fold.model, probabilities=mixed))


def export(root: Path, kind: str, fold: FoldForecasts, **changes) -> Path:
    rules = JudgingRules(repetitions=50, model_name=fold.model.name)
    judgement = judge_folds([fold], rules)
    is_network = kind != LOGISTIC
    model = ModelSpec(SMALL) if is_network else ModelSpec({}, LOGISTIC_KIND)
    draft = replace(draft_manifest(DATASET, judgement, model, {}, seed=0), **changes)
    weights = NETWORK.state_dict() if is_network else {}
    record = TrainingRecord({}, TrainingHistory([1.0], [0.3], [1.0], [0.3]))
    onnx = linear_onnx() if is_network else None
    return export_artifact(root, draft, weights, weights, record, onnx).folder


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Each kind under each backend in a registry of its own, beside what was judged."""
    made = {}
    for kind in (LOGISTIC, BLEND):
        for backend in Backend:
            root, fold = tmp_path_factory.mktemp("models"), judged(kind, backend)
            export(root, kind, fold)
            made[kind, backend] = root, fold
    return made


@BACKENDS
@pytest.mark.parametrize("kind", [LOGISTIC, BLEND])
def test_the_predictor_answers_with_the_probabilities_that_were_judged(served, kind, backend):
    root, fold = served[kind, backend]
    rows, predictor = DATASET.rows("test"), Predictor(root, backend=backend)
    answers = predictor.predict_range(BARS).probabilities[rows]
    np.testing.assert_allclose(answers, fold.model.probabilities, rtol=0, atol=TOLERANCE)
    # Not those of a part of it: the parts are far apart.
    if kind == BLEND:
        for name in ("network", "regression"):
            assert np.abs(answers - fold.parts[name].test).max() > 0.01
    for position in (0, len(rows) // 2, len(rows) - 1):
        bars = BARS.slice(0, int(rows[position]) + 1)
        prediction = predictor.predict(bars)
        expected = fold.model.probabilities[position]
        assert prediction.probabilities == pytest.approx(expected.tolist(), abs=TOLERANCE)
        [together] = predictor.predict_many([bars])
        assert together == prediction
    name = "logistic_v1" if kind == LOGISTIC else "cnn_lstm_v1"
    assert prediction.model_version == name


# The ONNX file of the blend here holds another network than its weights.
@pytest.mark.parametrize(
    ("kind", "backend"),
    [(LOGISTIC, Backend.TORCH), (LOGISTIC, Backend.ONNX), (BLEND, Backend.TORCH)],
)
def test_bars_replayed_as_live_get_the_answers_of_the_batch(served, kind, backend):
    root, _ = served[kind, backend]
    replayed = replay_market(root, BARS, 40, backend)
    assert len(replayed.compared) == 40
    assert replayed.differing == []


def test_a_regression_with_a_network_of_no_weight_is_the_regression(tmp_path):
    fold = judged(BLEND, Backend.TORCH)
    export(tmp_path, BLEND, replace(fold, weight=0.0))
    answers = Predictor(tmp_path).predict_range(BARS).probabilities[DATASET.rows("test")]
    expected = fold.parts["regression"].test
    np.testing.assert_allclose(answers, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", [LOGISTIC, BLEND])
def test_numbers_beyond_all_bounds_are_an_invalid_model(tmp_path, kind):
    huge = Regression(((1e308,) * 15, (-1e308,) * 15, (0.0,) * 15), (0.0,) * 3)
    fold = judged(kind, Backend.TORCH)
    export(tmp_path, kind, fold, regression=huge)
    with pytest.raises(InvalidArtifactError, match="answers with no number"):
        Predictor(tmp_path).predict(BARS)


def test_a_regression_is_served_without_torch_onnxruntime_and_scikit_learn(tmp_path, served):
    root, fold = served[LOGISTIC, Backend.TORCH]
    BarStore(tmp_path / "bars").write(BARS)
    code = (
        "import sys; from pathlib import Path\n"
        "from percoin import Predictor; from percoin.bars.store import BarStore\n"
        "from percoin.types import Timeframe\n"
        f"bars = BarStore(Path({str(tmp_path / 'bars')!r})).load('BTCUSDT', Timeframe.M15)\n"
        f"answer = Predictor({str(root)!r}, backend=sys.argv[1]).predict(bars)\n"
        "loaded = {'torch', 'onnxruntime', 'sklearn', 'scipy', 'lightning'} & set(sys.modules)\n"
        "print(*answer.probabilities, *loaded)"
    )
    expected = " ".join(map(repr, Predictor(root).predict(BARS).probabilities))
    for backend in Backend:
        command = [sys.executable, "-c", code, backend.value]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
    assert Timeframe.M15 is BARS.timeframe
    assert fold.weight is None
