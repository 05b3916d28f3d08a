"""What ``metrics.json`` says that predictions or readers need: threshold, skill, train rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from percoin.errors import InvalidArtifactError
from percoin.evaluation.hit_rate import HitRate
from percoin.features.drift import Bins
from percoin.features.levels import LevelUnit
from percoin.intervals import Interval
from percoin.registry import publish
from percoin.registry.contents import read_metrics, read_section
from percoin.registry.layout import METRICS_FILE, MarketFolder
from percoin.registry.manifest import Manifest
from percoin.types import CLASS_NAMES, LevelsReached

_T = TypeVar("_T")

# The sections that hold them.
TRAIN_ROWS = "train_rows"
HIT_RATE = "hit_rate"
LEVELS = "levels"
LEVELS_IN_MOVES = "levels_bands"
NETWORK_ADDS = "network_adds"


@dataclass(frozen=True)
class JudgedSkill(Interval):
    """The log-loss skill of a model on its test rows, over the frequencies of training.

    Attributes:
        confidence: Of all intervals.
        n_rows: Test rows.
        best_baseline: The rival: of the baselines that it was judged beside the one that was
            strongest on validation rows; in older artifacts on the test rows.
        baseline: The skill of that one; None if it is not known.
        against_best: By how much the model beats it, in nats a row; None as above.
        recent: Skill over the rolling prior; None in older artifacts.
    """

    confidence: float
    n_rows: int
    best_baseline: str
    baseline: Interval | None
    against_best: Interval | None
    recent: Interval | None = None


@dataclass(frozen=True)
class TrainRows:
    """What later rows are compared with, to find drift.

    Attributes:
        class_shares: The train prior, in the order of ``Signal``.
        feature_bins: How the scaled features were distributed, by name.
    """

    class_shares: tuple[float, ...]
    feature_bins: Mapping[str, Bins]

    def __post_init__(self) -> None:
        if len(self.class_shares) != len(CLASS_NAMES) or min(self.class_shares) <= 0:
            raise ValueError(f"class_shares are not those of {', '.join(CLASS_NAMES)}")


def judged_threshold(root: Path, manifest: Manifest) -> float:
    """The least confidence that the backtest of the served model traded with.

    It was chosen on the model's validation rows.

    Args:
        root: The models folder.
        manifest: Of the model that is served.

    Raises:
        InvalidArtifactError: ``metrics.json`` is not the one of this manifest, or says no
            threshold, for example because the model was never judged.
    """
    threshold = known_threshold(root, manifest)
    if threshold is None:
        market = MarketFolder(root, manifest.symbol, manifest.timeframe)
        raise _invalid(market, f"{METRICS_FILE} has no threshold of a backtest")
    return threshold


def known_threshold(root: Path, manifest: Manifest) -> float | None:
    """The same threshold; None for a model that was never judged, or if it cannot be read.

    Args:
        root: The models folder.
        manifest: Of the model that is served.

    Raises:
        InvalidArtifactError: ``metrics.json`` is not the one of this manifest.
    """
    market = MarketFolder(root, manifest.symbol, manifest.timeframe)
    judging = _read_metrics(market, manifest).get("judging")
    threshold = judging.get("threshold") if isinstance(judging, dict) else None
    return threshold if isinstance(threshold, float) and 0 <= threshold <= 1 else None


def judged_skill(root: Path, manifest: Manifest) -> JudgedSkill | None:
    """What the test of the served model showed.

    Args:
        root: The models folder.
        manifest: Of the model that is served.

    Returns:
        None for a model that was never judged, or whose judgement cannot be read.

    Raises:
        InvalidArtifactError: ``metrics.json`` is not the one of this manifest.
    """
    market = MarketFolder(root, manifest.symbol, manifest.timeframe)
    evaluation = _read_metrics(market, manifest).get("evaluation")
    try:
        return _read_skill(evaluation)
    except (KeyError, TypeError, ValueError):
        # Of another form, as older versions wrote it: nothing is said rather than guessed.
        return None


def train_rows(root: Path, manifest: Manifest) -> TrainRows | None:
    """What is known about the train rows of the served model.

    Args:
        root: The models folder.
        manifest: Of the model that is served.

    Returns:
        None for an older model, or if it cannot be read.

    Raises:
        InvalidArtifactError: ``metrics.json`` is not the one of this manifest.
    """
    found = _section(TrainRows, TRAIN_ROWS, root, manifest)
    is_of_model = found is not None and tuple(found.feature_bins) == manifest.features.names
    return found if is_of_model else None


def judged_hit_rate(root: Path, manifest: Manifest) -> HitRate | None:
    """How often directions of the served model were right on its test rows.

    Args:
        root: The models folder.
        manifest: Of the model that is served.

    Returns:
        None for an older model, for one with too few directions, or if it cannot be read.

    Raises:
        InvalidArtifactError: ``metrics.json`` is not the one of this manifest.
    """
    return _section(HitRate, HIT_RATE, root, manifest)


def judged_levels(
    root: Path, manifest: Manifest, unit: LevelUnit = LevelUnit.ATR
) -> LevelsReached | None:
    """How often stop and targets of the served model's directions were reached on its test rows.

    Args:
        root: The models folder.
        manifest: Of the model that is served.
        unit: What stop and targets are measured in.

    Returns:
        None for an older model, for one with too few directions, or if it cannot be read.

    Raises:
        InvalidArtifactError: ``metrics.json`` is not the one of this manifest.
    """
    name = LEVELS if unit is LevelUnit.ATR else LEVELS_IN_MOVES
    return _section(LevelsReached, name, root, manifest)


def _section(kind: type[_T], name: str, root: Path, manifest: Manifest) -> _T | None:
    market = MarketFolder(root, manifest.symbol, manifest.timeframe)
    return read_section(kind, _read_metrics(market, manifest), name)


def _read_skill(evaluation: Any) -> JudgedSkill | None:
    if evaluation is None:
        return None
    model, recent = evaluation["model"]["skill"], evaluation["model"].get("recent_skill")
    best = str(evaluation.get("rival") or evaluation["best_baseline"])
    lead = evaluation.get("against_rival") or evaluation["against_best"]
    of_best = [each.get("skill") for each in evaluation["baselines"] if each["name"] == best]
    skill = _interval(model)
    return JudgedSkill(
        value=skill.value,
        lower=skill.lower,
        upper=skill.upper,
        confidence=float(evaluation["bootstrap"]["confidence"]),
        n_rows=int(model["n_rows"]),
        best_baseline=best,
        baseline=_interval(of_best[0]) if of_best and of_best[0] else None,
        against_best=_interval(lead) if lead else None,
        recent=_interval(recent) if recent else None,
    )


def _interval(estimate: Any) -> Interval:
    lower, upper = estimate["lower"], estimate["upper"]
    return Interval(
        float(estimate["value"]),
        None if lower is None else float(lower),
        None if upper is None else float(upper),
    )


def _read_metrics(market: MarketFolder, manifest: Manifest) -> Mapping[str, Any]:
    return read_metrics(market, publish.served_folder(market), manifest)


def _invalid(market: MarketFolder, found: str) -> InvalidArtifactError:
    action = "train the model again, or give min_confidence a number"
    return InvalidArtifactError(market.symbol, market.timeframe, found, action)
