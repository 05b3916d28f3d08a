"""Small models in a registry, made without a training: random weights, real everything else."""

from dataclasses import replace
from pathlib import Path

import torch
from builders import make_bars

from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec, build_dataset
from percoin.features.feature_set import FEATURE_NAMES, FeatureDefinition, FeatureSet
from percoin.inference import ServedModel
from percoin.labels import FixedHorizon
from percoin.network import CnnLstm
from percoin.registry.artifact import export_artifact, load_artifact
from percoin.registry.field_checks import open_time_text
from percoin.registry.manifest import (
    BarsInfo,
    DatasetInfo,
    Features,
    Gate,
    ManifestDraft,
    ModelSpec,
    ScalingNumbers,
    SplitSpan,
    StoredVerdict,
    TestMetrics,
)
from percoin.registry.parts import Calibration
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.training.manifest_draft import hash_references
from percoin.types import Signal

LOOKBACK = 60
SMALL = {"channels": (8, 8, 8), "hidden_size": 8, "n_heads": 2, "head_sizes": (8, 8)}
TEMPERATURE = 1.3


def bars_to_learn_from(n_bars: int = 1600, **kwargs) -> Bars:
    """Bars that do not say they were made up, so that they may meet any others."""
    return replace(make_bars(n_bars, **kwargs), origin="files: test/BTCUSDT-15m.csv")


def make_dataset(
    bars: Bars,
    definition: FeatureDefinition = FeatureDefinition.RELATIVE,
    extra: tuple[str, ...] = (),
    references: tuple[str, ...] = (),
) -> MarketDataset:
    return build_dataset(
        bars,
        DatasetSpec(
            FixedHorizon(horizon=3, threshold=0.0025),
            FeatureSet(definition, extra, references),
            LOOKBACK,
            SplitSpec(purge_bars=3, embargo_bars=3),
            3650,
        ),
    )


def random_network(
    favoured: Signal | None = None, seed: int = 0, n_features: int = len(FEATURE_NAMES)
) -> CnnLstm:
    """Random weights, spread so far that every window gets its own answer.

    Args:
        favoured: The answer to every window, whatever the weights make of it.
        seed: Of the weights.
        n_features: Features of a bar.
    """
    generator = torch.Generator().manual_seed(seed)
    network = CnnLstm(n_features, **SMALL)
    with torch.no_grad():
        for name, values in network.named_parameters():
            values.normal_(0, 0.1 if "bias" in name else 0.6, generator=generator)
        for name, values in network.named_buffers():
            if name.endswith("running_mean"):
                values.normal_(0, 0.3, generator=generator)
            if name.endswith("running_var"):
                values.uniform_(0.5, 2.0, generator=generator)
        network.head[-1].weight *= 4.0
        if favoured is not None:
            network.head[-1].bias[favoured] += 50.0
    return network.eval()


def export(
    root: Path,
    network: CnnLstm,
    dataset: MarketDataset,
    verdict: StoredVerdict = StoredVerdict.ACCEPTED,
    kwargs: dict | None = None,
    sections: dict | None = None,
    onnx: bytes | None = None,
) -> Path:
    """Serve the network as the model of the dataset's market; returns its folder.

    ``sections`` are further ones of ``metrics.json``, ``onnx`` the network for ONNX Runtime.
    """
    draft = make_draft(dataset, verdict, SMALL if kwargs is None else kwargs)
    weights = network.state_dict()
    history = TrainingHistory([1.1], [0.3], [1.1], [0.3])
    record = TrainingRecord({}, history, sections=sections or {})
    export_artifact(root, draft, weights, weights, record, onnx)
    return load_artifact(root, dataset.bars.symbol, dataset.bars.timeframe).folder


def make_draft(dataset: MarketDataset, verdict: StoredVerdict, kwargs: dict) -> ManifestDraft:
    bars = dataset.bars
    times = [open_time_text(int(time)) for time in bars.open_time]
    parts = {"train": "train", "val": "validation", "test": "test"}
    rows = {name: dataset.rows(part) for name, part in parts.items()}
    n_test, n_features = len(rows["test"]), len(dataset.feature_names)
    return ManifestDraft(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        lookback=dataset.lookback,
        dataset_info=DatasetInfo(n_features, len(rows["train"]), len(rows["val"]), n_test),
        test_metrics=TestMetrics(0.3, 0.3, 0.3, 0.3, ((n_test, 0, 0), (0, 0, 0), (0, 0, 0))),
        num_features=n_features,
        features=Features.of(dataset.feature_set, bars.timeframe),
        scaling=ScalingNumbers.of(dataset.scaling),
        label_rule=dataset.label_rule.to_json(),
        calibration=Calibration("temperature", TEMPERATURE),
        gate=Gate(verdict, ("made for a test",)),
        bars=BarsInfo(
            origin=bars.origin,
            sha256=bars.sha256(),
            first_open_time=times[0],
            last_open_time=times[-1],
            n_bars=len(bars),
            splits={
                name: SplitSpan(times[part[0]], times[part[-1]], len(part))
                for name, part in rows.items()
            },
            references=hash_references(dataset) or None,
        ),
        model=ModelSpec(kwargs),
        config={},
        seed=0,
        code_version="0.1.0",
        libraries={"torch": "2.13.0"},
    )


def serve(root: Path, network: CnnLstm, dataset: MarketDataset) -> ServedModel:
    """Export the network and load it again."""
    export(root, network, dataset)
    return ServedModel(load_artifact(root, dataset.bars.symbol, dataset.bars.timeframe))
