"""Markets that share a network are asked in one batch, and each answers as alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_regression_and_blend as combined
from exported_models import bars_to_learn_from, export, make_dataset, make_draft, random_network
from test_networks import linear_onnx

from percoin import Predictor
from percoin.bars.schema import Bars
from percoin.evaluation.baselines import BOOSTING, MOVES
from percoin.evaluation.uncertainty import Bootstrap
from percoin.expected_move.judging import fit_and_judge
from percoin.inference import Backend, forecasters
from percoin.own_network import count_own_weights, make_own_network
from percoin.plugins import allow_plugins
from percoin.registry.artifact import export_artifact
from percoin.registry.layout import EXPECTED_MOVE
from percoin.registry.manifest import OWN_KIND, VERSIONS, ModelSpec, StoredVerdict
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.targets import find_target
from percoin.types import Timeframe

OWN_NETWORK = Path(__file__).parents[1] / "training" / "own_code" / "my_nets.py"
EXTRA = ("volatility", "clock")
POOL = [f"POOL{k}USDT" for k in range(3)]
TOLERANCE = 1e-6


def bars_of(symbol: str, seed: int = 0, **kwargs) -> Bars:
    return bars_to_learn_from(1600, symbol=symbol, seed=seed, **kwargs)


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> tuple[Path, list[Bars]]:
    """Two pools, one of them with extra columns, and models of every other kind."""
    root = tmp_path_factory.mktemp("mixed")
    markets = [bars_of(symbol, seed) for seed, symbol in enumerate(POOL)]
    for bars in markets:
        export(root, random_network(), make_dataset(bars), onnx=linear_onnx())
    wide = [bars_of(f"WIDE{k}USDT", 10 + k, timeframe=Timeframe.H1) for k in range(2)]
    for bars in wide:
        dataset = make_dataset(bars, extra=EXTRA)
        network = random_network(seed=5, n_features=len(dataset.feature_names))
        parts = (dataset.rows("train"), dataset.rows("validation"), dataset.rows("test"))
        judged = fit_and_judge(bars, 3, parts, Bootstrap(3, repetitions=50))
        export(root, network, dataset, sections={EXPECTED_MOVE: judged})
    single = bars_of("SINGLEUSDT", 20)
    export(root, random_network(seed=6), make_dataset(single), onnx=linear_onnx())
    kinds = (BOOSTING, MOVES, combined.COMBINATION)
    others = [replace(combined.BARS, symbol=f"{kind.upper()}USDT") for kind in kinds]
    for kind, bars in zip(kinds, others, strict=True):
        combined.export(root, kind, combined.judged(kind, Backend.TORCH), symbol=bars.symbol)
    # The same parts under another name: all of them are shared.
    twin = replace(combined.BARS, symbol="TWINUSDT")
    fold = combined.judged(combined.COMBINATION, Backend.TORCH)
    combined.export(root, combined.COMBINATION, fold, symbol=twin.symbol)
    own = bars_of("OWNUSDT", 30)
    export_own(root, own)
    return root, [*markets, wide[0], single, *others, twin, own, wide[1]]


@pytest.fixture(autouse=True)
def _plugins():
    allow_plugins([str(OWN_NETWORK)])
    yield
    allow_plugins([])


def export_own(root: Path, bars: Bars) -> None:
    allow_plugins([str(OWN_NETWORK)])
    dataset = make_dataset(bars)
    target = find_target("model._target_", "my_nets.Net")
    described = (target, {"width": 6}, len(dataset.feature_names), dataset.lookback)
    spec = ModelSpec({"width": 6}, OWN_KIND, target.source, count_own_weights(*described))
    draft = make_draft(dataset, StoredVerdict.ACCEPTED, {})
    draft = replace(draft, model=spec, model_version=VERSIONS[OWN_KIND])
    weights = make_own_network(*described).state_dict()
    record = TrainingRecord({}, TrainingHistory([1.0], [0.3], [1.0], [0.3]))
    export_artifact(root, draft, weights, weights, record)


@pytest.mark.parametrize("backend", [None, Backend.TORCH])
@pytest.mark.parametrize("workers", [1, 3])
def test_each_of_a_mixed_set_answers_as_alone(asked, backend, workers):
    root, markets = asked
    predictor = Predictor(root, backend=backend, workers=workers)
    together = predictor.predict_many(markets)
    assert together.missing == ()
    for bars, found in zip(markets, together, strict=True):
        alone = Predictor(root, backend=backend).predict(bars)
        assert found.probabilities == pytest.approx(alone.probabilities, abs=TOLERANCE)
        close = {"probabilities": found.probabilities, "confidence": found.confidence}
        assert replace(alone, **close) == found
        range_ = predictor.predict_range(bars, bars.frame.index[-1], in_sample=True)
        assert found.probabilities == pytest.approx(range_.probabilities[0], abs=10 * TOLERANCE)
    answers = np.array([found.probabilities for found in together])
    # The two combinations differ in nothing but the name.
    assert len(np.unique(answers.round(5), axis=0)) == len(markets) - 1
    assert [found.expected_move is not None for found in together].count(True) == 2


def test_a_network_is_held_and_asked_once_for_all_markets_that_share_it(asked, monkeypatch):
    root, markets = asked
    calls: list[int] = []
    load = forecasters.load_network

    def counted(artifact, device):
        network = load(artifact, device)

        def ask(windows):
            calls.append(len(windows))
            return network(windows)

        return ask

    monkeypatch.setattr(forecasters, "load_network", counted)
    predictor = Predictor(root, backend=Backend.TORCH, workers=1)
    predictor.predict_many(markets)
    # The pool, the wide pool, the two combinations, and those that are alone.
    assert sorted(calls) == [1, 1, 2, 2, 3]
    del calls[:]
    predictor.predict_many(markets[:2])
    predictor.predict(markets[0])
    assert calls == [2, 1]


def test_a_network_that_fails_leaves_the_other_markets_their_answers(asked, monkeypatch):
    root, markets = asked
    load = forecasters.load_network

    def failing(artifact, device):
        def fail(windows):
            raise ValueError("out of range")

        return fail if artifact.manifest.symbol == "SINGLEUSDT" else load(artifact, device)

    monkeypatch.setattr(forecasters, "load_network", failing)
    [failed] = Predictor(root, backend=Backend.TORCH).predict_many(markets).missing
    assert failed.symbol == "SINGLEUSDT"
    assert "gives no valid answer: out of range" in str(failed.error)


def test_a_market_that_gets_another_network_leaves_the_batch(asked, tmp_path):
    _, markets = asked
    pool = markets[:3]
    for bars in pool:
        export(tmp_path, random_network(), make_dataset(bars))
    predictor = Predictor(tmp_path)
    before = predictor.predict_many(pool)
    export(tmp_path, random_network(seed=9), make_dataset(pool[1]))
    after = predictor.predict_many(pool)
    alone = Predictor(tmp_path).predict(pool[1])
    assert after[1].probabilities == pytest.approx(alone.probabilities, abs=TOLERANCE)
    assert after[1].probabilities != pytest.approx(before[1].probabilities, abs=1e-3)
    for k in (0, 2):
        assert after[k].probabilities == pytest.approx(before[k].probabilities, abs=TOLERANCE)


def test_the_library_is_chosen_by_what_the_version_holds(asked):
    root, markets = asked
    pool, wide = markets[0], markets[3]
    # The file holds another network than the weights: who answers can be told.
    said = {
        backend: Predictor(root, backend=backend).predict(pool).probabilities
        for backend in (None, Backend.ONNX, Backend.TORCH)
    }
    assert said[None] == said[Backend.ONNX]
    assert said[None] != pytest.approx(said[Backend.TORCH], abs=1e-3)
    by_torch = Predictor(root, backend=Backend.TORCH).predict(wide)
    assert Predictor(root).predict(wide).probabilities == by_torch.probabilities
