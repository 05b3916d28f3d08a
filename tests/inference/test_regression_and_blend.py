"""What a regression and a blend answer: the very probabilities that their judgement saw."""

import json
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
from hostile_files import vouch_for
from test_networks import linear_onnx

from percoin.audit.replay import replay_market
from percoin.bars.store import BarStore
from percoin.errors import InvalidArtifactError, NotEnoughBarsError
from percoin.evaluation.baselines import ALONE, BESIDE, BOOSTING, LOGISTIC, MOVES, VOLATILITY
from percoin.evaluation.blend import BLEND
from percoin.evaluation.fold_forecasts import (
    FoldForecasts,
    JudgingRules,
    forecast_fold,
    forecast_last_row,
)
from percoin.evaluation.judgement import judge_folds
from percoin.evaluation.regression import Regression
from percoin.inference import Backend, Predictor
from percoin.registry.artifact import export_artifact, load_artifact
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import ModelSpec
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.training.manifest_draft import draft_manifest, trees_of
from percoin.types import Timeframe

BARS = bars_to_learn_from(1600)
DATASET = make_dataset(BARS)
NETWORK = random_network(seed=2)
# A network with all models that can stand beside it.
COMBINATION = "combination"
KINDS = (*ALONE, BLEND, COMBINATION)
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
    if kind in ALONE:
        rules = JudgingRules(repetitions=50, model_name=kind)
        return forecast_last_row(DATASET, kind, rules)
    ask = torch_logits if backend is Backend.TORCH else onnx_logits
    blend = (LOGISTIC,) if kind == BLEND else BESIDE
    rules = JudgingRules(repetitions=50, model_name=BLEND, blend=blend)
    fold = forecast_fold(DATASET, ask(windows_of("validation")), ask(windows_of("test")), rules)
    # The random networks know nothing; a weight of their own makes all parts heard.
    return with_weights(fold, 0.4)


def with_weights(fold: FoldForecasts, of_network: float) -> FoldForecasts:
    """The same fold with a chosen weight of the network; the other parts share the rest."""
    others = (1 - of_network) / (len(fold.parts) - 1)
    weights = dict.fromkeys(fold.parts, others) | {"network": of_network}
    mixed = sum(weights[name] * part.test for name, part in fold.parts.items())
    return replace(fold, weights=weights, model=replace(fold.model, probabilities=mixed))


def export(root: Path, kind: str, fold: FoldForecasts, sections=None, **changes) -> Path:
    rules = JudgingRules(repetitions=50, model_name=fold.model.name)
    judgement = judge_folds([fold], rules)
    is_network = kind not in ALONE
    model = ModelSpec(SMALL) if is_network else ModelSpec({}, kind)
    draft = replace(draft_manifest(fold.dataset, judgement, model, {}, seed=0), **changes)
    weights = NETWORK.state_dict() if is_network else {}
    history = TrainingHistory([1.0], [0.3], [1.0], [0.3])
    record = TrainingRecord({}, history, sections=sections or {})
    onnx = linear_onnx() if is_network else None
    trees = trees_of(judgement)
    return export_artifact(root, draft, weights, weights, record, onnx, trees).folder


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Each kind under each backend in a registry of its own, beside what was judged."""
    made = {}
    for kind in KINDS:
        for backend in Backend:
            root, fold = tmp_path_factory.mktemp("models"), judged(kind, backend)
            export(root, kind, fold)
            made[kind, backend] = root, fold
    return made


@BACKENDS
@pytest.mark.parametrize("kind", KINDS)
def test_the_predictor_answers_with_the_probabilities_that_were_judged(served, kind, backend):
    root, fold = served[kind, backend]
    rows, predictor = DATASET.rows("test"), Predictor(root, backend=backend)
    answers = predictor.predict_range(BARS, in_sample=True).probabilities[rows]
    np.testing.assert_allclose(answers, fold.model.probabilities, rtol=0, atol=TOLERANCE)
    # Not those of a part of it: the parts are far apart.
    if kind not in ALONE:
        for part in fold.parts.values():
            assert np.abs(answers - part.test).max() > 0.01
    for position in (0, len(rows) // 2, len(rows) - 1):
        bars = BARS.slice(0, int(rows[position]) + 1)
        prediction = predictor.predict(bars)
        expected = fold.model.probabilities[position]
        assert prediction.probabilities == pytest.approx(expected.tolist(), abs=TOLERANCE)
        [together] = predictor.predict_many([bars])
        assert together == prediction
    name = f"{kind}_v1" if kind in ALONE else "cnn_lstm_v1"
    assert prediction.model_version == name


# The ONNX file of the blend here holds another network than its weights.
@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        *((kind, backend) for kind in ALONE for backend in Backend),
        (BLEND, Backend.TORCH),
        (COMBINATION, Backend.TORCH),
    ],
)
def test_bars_replayed_as_live_get_the_answers_of_the_batch(served, kind, backend):
    root, _ = served[kind, backend]
    replayed = replay_market(root, BARS, 40, backend)
    assert len(replayed.compared) == 40
    assert replayed.differing == []


def test_a_regression_with_a_network_of_no_weight_is_the_regression(tmp_path):
    fold = judged(BLEND, Backend.TORCH)
    export(tmp_path, BLEND, with_weights(fold, 0.0))
    answers = (
        Predictor(tmp_path, backend=Backend.TORCH)
        .predict_range(BARS, in_sample=True)
        .probabilities[DATASET.rows("test")]
    )
    expected = fold.parts[LOGISTIC].test
    np.testing.assert_allclose(answers, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", [LOGISTIC, BLEND])
def test_numbers_beyond_all_bounds_are_an_invalid_model(tmp_path, kind):
    huge = Regression(((1e308,) * 15, (-1e308,) * 15, (0.0,) * 15), (0.0,) * 3)
    fold = judged(kind, Backend.TORCH)
    export(tmp_path, kind, fold, regression=huge)
    with pytest.raises(InvalidArtifactError, match="gives no valid answer: logits are not finite"):
        Predictor(tmp_path, backend=Backend.TORCH).predict(BARS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALONE)
def test_a_model_without_a_network_is_served_without_torch_onnxruntime_and_scikit_learn(
    tmp_path, served, kind
):
    root, fold = served[kind, Backend.TORCH]
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
    expected = " ".join(
        map(repr, Predictor(root, backend=Backend.TORCH).predict(BARS).probabilities)
    )
    for backend in Backend:
        command = [sys.executable, "-c", code, backend.value]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
    assert Timeframe.M15 is BARS.timeframe
    assert fold.weights == {kind: 1.0}


def test_a_combination_is_described_in_the_newest_format_and_its_trees_lie_beside_it(served):
    root, fold = served[COMBINATION, Backend.TORCH]
    artifact = load_artifact(root, "BTCUSDT", Timeframe.M15)
    manifest = artifact.manifest
    assert manifest.format_version == 4
    assert manifest.weights == pytest.approx(fold.weights, abs=1e-12)
    assert list(manifest.part_skills) == ["network", *BESIDE, BLEND]
    assert (artifact.folder / "boosting.json").stat().st_size < 300_000
    stored = artifact.trees["boosting.json"].numbers
    assert stored == fold.parts[BOOSTING].numbers.numbers.numbers
    for name in (LOGISTIC, VOLATILITY):
        numbers = manifest.parts[name].numbers
        assert numbers.regression == fold.parts[name].numbers.numbers
    assert (artifact.folder / "moves.json").stat().st_size < 300_000
    stored = manifest.parts[MOVES].numbers.model(artifact.trees).numbers
    judged_as = fold.parts[MOVES].numbers.numbers
    assert (stored.ridge, stored.classes) == (judged_as.ridge, judged_as.classes)
    assert stored.trees.numbers == judged_as.trees.numbers


def test_parts_without_weight_are_shown_and_not_stored(tmp_path):
    fold = judged(COMBINATION, Backend.TORCH)
    weights = dict.fromkeys(fold.parts, 0.0) | {"network": 0.25, VOLATILITY: 0.75}
    mixed = sum(weights[name] * part.test for name, part in fold.parts.items())
    fold = replace(fold, weights=weights, model=replace(fold.model, probabilities=mixed))
    folder = export(tmp_path, COMBINATION, fold)
    manifest = load_artifact(tmp_path, "BTCUSDT", Timeframe.M15).manifest
    assert not (folder / "boosting.json").exists()
    assert (manifest.weights, list(manifest.parts)) == (weights, ["network", VOLATILITY])
    assert set(manifest.part_skills) == {*fold.parts, BLEND}
    answers = (
        Predictor(tmp_path, backend=Backend.TORCH)
        .predict_range(BARS, in_sample=True)
        .probabilities[DATASET.rows("test")]
    )
    np.testing.assert_allclose(answers, mixed, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", [VOLATILITY, MOVES, COMBINATION])
def test_a_model_of_volatility_gets_no_answer_from_too_few_bars(served, kind):
    root, _ = served[kind, Backend.TORCH]
    predictor = Predictor(root, backend=Backend.TORCH)
    # Bars since the first of its training are enough for the features, not for the volatility.
    with pytest.raises(
        NotEnoughBarsError, match=r"volatility .* not known from 671 bars.*load 961"
    ):
        predictor.predict(BARS.slice(0, 671))
    assert predictor.predict(BARS.slice(0, 672)).probabilities is not None
    answered = ~np.isnan(predictor.predict_range(BARS, in_sample=True).probabilities[:, 0])
    assert answered[:671].sum() == 0
    assert answered[671:].all()


def hostile_trees(root: Path, file: str = "boosting.json", **changes: object) -> None:
    folder = load_artifact(root, "BTCUSDT", Timeframe.M15).folder
    numbers = json.loads((folder / file).read_text())
    forged = {file: json.dumps(numbers | changes).encode()}
    vouch_for(MarketFolder(root, "BTCUSDT", Timeframe.M15), folder, forged)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_columns": 16}, "it takes 16 columns, not 15"),
        ({"n_nodes": [1]}, "there are 1 trees"),
        ({"baseline": ["a", 0, 0]}, "baseline"),
    ],
)
def test_trees_with_a_right_hash_that_nobody_fits_are_an_invalid_model(tmp_path, changes, reason):
    export(tmp_path, BOOSTING, judged(BOOSTING, Backend.TORCH))
    hostile_trees(tmp_path, **changes)
    for backend in Backend:
        with pytest.raises(InvalidArtifactError, match=rf"boosting\.json cannot be used.*{reason}"):
            Predictor(tmp_path, backend=backend).predict(BARS)


def test_trees_of_classes_make_no_forecast_of_a_range(tmp_path):
    export(tmp_path, MOVES, judged(MOVES, Backend.TORCH))
    hostile_trees(tmp_path, "moves.json", baseline=[0, 0, 0])
    with pytest.raises(InvalidArtifactError, match=r"moves\.json .* add up to 3 sums, not 1"):
        Predictor(tmp_path, backend=Backend.TORCH).predict(BARS)


def test_a_file_of_trees_is_not_read_beyond_its_bound(tmp_path):
    export(tmp_path, BOOSTING, judged(BOOSTING, Backend.TORCH))
    hostile_trees(tmp_path, note="x" * 4 * 2**20)
    with pytest.raises(InvalidArtifactError, match=r"boosting\.json .*bytes"):
        Predictor(tmp_path, backend=Backend.TORCH).predict(BARS)


def test_a_changed_file_of_trees_is_refused(tmp_path):
    folder = export(tmp_path, BOOSTING, judged(BOOSTING, Backend.TORCH))
    path = folder / "boosting.json"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(InvalidArtifactError, match=r"boosting\.json was changed after the export"):
        Predictor(tmp_path, backend=Backend.TORCH).predict(BARS)
