"""Run the checks in order: on a dataset, and on everything the command line names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from percoin.assembly import bar_source, dataset_spec
from percoin.audit.findings import Finding
from percoin.audit.lookahead import (
    ComputeFeatures,
    check_contents,
    check_features,
    check_labels,
)
from percoin.audit.probes import (
    check_last_row,
    check_oracle,
    check_shuffled_labels,
    check_single_features,
)
from percoin.audit.published import audit_metrics_file
from percoin.audit.replay import Replay, replay_market
from percoin.audit.rows import check_dataset_rows
from percoin.audit.served import audit_served, check_served_scaling
from percoin.bars.panel import load_panel
from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.config import AuditConfig
from percoin.dataset import MarketDataset, build_dataset
from percoin.errors import ConfigError
from percoin.features.feature_set import compute_features
from percoin.inference import Backend
from percoin.registry.artifact import load_artifact


@dataclass(frozen=True, eq=False)
class Audit:
    """The findings, and the replay if it was requested."""

    findings: list[Finding]
    replay: Replay | None = None


def audit(settings: AuditConfig) -> Audit:
    """Check everything that the settings name: a file of scores, a market, its served model.

    Raises:
        PercoinError: The settings, the bars, the model or the file cannot be used.
    """
    if settings.replay and settings.symbol is None:
        raise ConfigError("replay=true needs a market; give symbol=BTCUSDT")
    if settings.symbol is None and settings.metrics is None:
        raise ConfigError("there is nothing to check; give symbol=BTCUSDT or metrics=FILE")
    findings = [] if settings.metrics is None else audit_metrics_file(Path(settings.metrics))
    if settings.symbol is None:
        return Audit(findings)
    bars = load_bars(settings, settings.symbol)
    models_dir, load = Path(settings.models_dir), partial(load_bars, settings)
    if settings.replay:
        manifest = load_artifact(models_dir, bars.symbol, bars.timeframe).manifest
        bars = load_panel(bars, manifest.references, load)
        dated, n_bars = _between_dates(settings, bars)
        replay = replay_market(models_dir, dated, n_bars, Backend(settings.predictor))
        findings += [*replay.findings(), check_served_scaling(models_dir, bars, load)]
        return Audit(findings, replay)
    beside = load_panel(bars, settings.features.feature_set.references, load)
    findings += audit_dataset(load_dataset(settings, beside), settings.cuts, settings.seed)
    findings += audit_served(models_dir, bars, load)
    return Audit(findings)


def load_bars(settings: AuditConfig, symbol: str) -> Bars:
    """Load as many bars as a training with these settings would."""
    timeframe = settings.tf.timeframe
    n_bars = dataset_spec(settings).bars_to_load(timeframe)
    store = BarStore(Path(settings.data_dir) / "bars")
    return bar_source(settings.source, store, n_bars).load(symbol, timeframe)


def _between_dates(settings: AuditConfig, bars: Bars) -> tuple[Bars, int | None]:
    """The bars before ``end``, and how many of the newest are replayed, none before ``start``."""
    spec = dataset_spec(settings)
    dated = spec.in_dates(bars)
    if spec.start is None:
        return dated, settings.replay_bars
    n_dated = len(dated) - int(dated.open_time.searchsorted(spec.start))
    return dated, min(n_dated, settings.replay_bars or n_dated)


def audit_dataset(
    dataset: MarketDataset,
    n_cuts: int = 40,
    seed: int = 0,
    compute: ComputeFeatures = compute_features,
) -> list[Finding]:
    """Run every check of one dataset.

    Args:
        dataset: The market, with scaled features.
        n_cuts: Number of random moments at which the bars are cut off.
        seed: Seed of all random draws.
        compute: The feature function that the dataset was made with.
    """
    bars, feature_set = dataset.bars, dataset.feature_set
    return [
        check_features(bars, feature_set, compute, n_cuts, seed),
        check_labels(bars, dataset.label_rule, n_cuts, seed),
        check_contents(dataset, compute),
        *check_dataset_rows(dataset, compute(bars, feature_set)),
        check_single_features(dataset, seed),
        check_oracle(dataset, seed),
        check_shuffled_labels(dataset, seed),
        check_last_row(dataset, "logistic", seed),
        check_last_row(dataset, "boosting", seed),
    ]


def load_dataset(settings: AuditConfig, bars: Bars) -> MarketDataset:
    """Build the dataset that a training with these settings would use."""
    return build_dataset(bars, dataset_spec(settings))
