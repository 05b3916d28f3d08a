"""Check for results that are too good to be true, and check that a leak would be noticed.

The probes are small models on the last row of each window: they fit fast, and a leak in the
features also leaks into them. With shuffled labels they must have no skill. With an oracle they
must be almost perfect. On the real labels, no feature may know the direction.
"""

from __future__ import annotations

import numpy as np

from percoin.audit.findings import Finding, FindingStatus
from percoin.dataset import MarketDataset
from percoin.evaluation.baselines import Baseline, BaselineInputs, class_shares, default_baselines
from percoin.evaluation.fold_forecasts import baseline_inputs
from percoin.evaluation.metrics import log_loss_skill, row_log_loss
from percoin.evaluation.skills import BinaryView, direction
from percoin.evaluation.uncertainty import Bootstrap, Estimate, skill_rows
from percoin.intervals import interval_text
from percoin.types import FloatArray, IntArray, Signal

# Limits for the direction AUC (mirrored below .5); its whole interval must lie beyond them. Beyond
# the first, it needs an explanation; beyond the second, only a leak explains it. Real 15m bars
# give .44 to .56.
SUSPICIOUS_AUC = 0.60
IMPOSSIBLE_AUC = 0.75
# Skill over the real class shares of the test rows.
SUSPICIOUS_SKILL = 0.20
ORACLE_SKILL = 0.90
# One audit in a thousand may give a false alarm on shuffled labels.
_SHUFFLED_P_VALUE = 0.001
_REPETITIONS = 1000


def check_shuffled_labels(dataset: MarketDataset, seed: int = 0) -> Finding:
    """Check that a small model has no skill on randomly shuffled labels."""
    name = "shuffled labels: no skill"
    rows = np.concatenate([dataset.rows("train"), dataset.rows("test")])
    label = dataset.label.copy()
    label[rows] = np.random.default_rng(seed).permutation(label[rows])
    skill = _skill(dataset, _fit(dataset, "logistic", label), label, seed)
    if skill.p_value is None:
        return Finding(name, FindingStatus.CANNOT_TELL, f"{skill.n_rows} test rows are too few")
    evidence = f"logistic {interval_text(skill)} over the train prior"
    is_skilled = skill.p_value < _SHUFFLED_P_VALUE
    return Finding(name, FindingStatus.LEAK if is_skilled else FindingStatus.OK, evidence)


def check_oracle(dataset: MarketDataset, seed: int = 0) -> Finding:
    """Check that the probe sees a leak: with the label as a feature it must be almost perfect."""
    name = "an oracle is noticed"
    answer = np.eye(len(Signal) + 1)[dataset.label][:, : len(Signal)]
    probe = _fit(dataset, "logistic", dataset.label, answer)
    skill = _skill(dataset, probe, dataset.label, seed, answer)
    evidence = f"logistic {skill.value:+.3f} over the train prior with the label as a feature"
    is_seen = skill.value >= ORACLE_SKILL
    return Finding(name, FindingStatus.OK if is_seen else FindingStatus.CANNOT_TELL, evidence)


def check_single_features(dataset: MarketDataset, seed: int = 0) -> Finding:
    """Check that no single feature separates LONG from SHORT, on the rows of all three parts."""
    name = "no feature knows direction"
    rows = np.concatenate([dataset.rows(part) for part in ("train", "validation", "test")])
    moves = rows[dataset.label[rows] != Signal.NO_TRADE]
    came = dataset.label[moves] == Signal.LONG
    bootstrap = Bootstrap(dataset.label_rule.horizon, seed, _REPETITIONS)
    everywhere = np.ones(len(moves), dtype=np.bool_)
    views = [
        BinaryView(everywhere, came, column) for column in dataset.features[moves].T.astype(float)
    ]
    found = {
        feature: bootstrap.estimate_auc(view.auc_rows())
        for feature, view in zip(dataset.feature_names, views, strict=True)
    }
    worst = max(found, key=lambda feature: _surely(found[feature]))
    evidence = f"furthest from .5 is {worst}: AUC {interval_text(found[worst], 3, signed=False)}"
    return Finding(name, _judge_auc(found[worst]), evidence)


def check_last_row(dataset: MarketDataset, baseline: str, seed: int = 0) -> Finding:
    """Check the skill of a small model, and how much of it the class shares alone explain.

    If a market calms down after the train rows, every model gains skill over the train prior.
    Skill over the test rows' own class shares (known in hindsight) has another cause.

    Args:
        dataset: The market.
        baseline: Name of one of ``default_baselines``.
        seed: Seed of the intervals.
    """
    test = dataset.rows("test")
    label = dataset.label[test]
    probabilities = _forecast(dataset, _fit(dataset, baseline, dataset.label))
    losses = row_log_loss(probabilities, label)
    train_prior, hindsight = (
        row_log_loss(np.tile(class_shares(dataset.label[rows]), (len(test), 1)), label)
        for rows in (dataset.rows("train"), test)
    )
    left = log_loss_skill(losses, hindsight)
    evidence = (
        f"skill {log_loss_skill(losses, train_prior):+.4f} over the train prior, of which the "
        f"class shares of the test rows explain {log_loss_skill(hindsight, train_prior):+.4f}; "
        f"{left:+.4f} beyond that"
    )
    name = f"{baseline} is plausible"
    status = FindingStatus.CANNOT_TELL if left > SUSPICIOUS_SKILL else FindingStatus.OK
    view = direction(probabilities, label)
    if view.auc() is None:
        return Finding(
            name,
            status,
            f"{evidence}; direction cannot be measured, as the test rows lack one of the two",
        )
    bootstrap = Bootstrap(dataset.label_rule.horizon, seed, _REPETITIONS)
    auc = bootstrap.estimate_auc(view.auc_rows())
    if auc.value >= 0.5 and _judge_auc(auc) is not FindingStatus.OK:
        status = _judge_auc(auc)
    return Finding(name, status, f"{evidence}; direction AUC {interval_text(auc, 3, signed=False)}")


def _fit(
    dataset: MarketDataset, baseline: str, label: IntArray, extra: FloatArray | None = None
) -> Baseline:
    probe = next(b for b in default_baselines() if b.name == baseline)
    train = dataset.rows("train")
    probe.fit(_inputs(dataset, extra).take(train), label[train])
    return probe


def _forecast(
    dataset: MarketDataset, probe: Baseline, extra: FloatArray | None = None
) -> FloatArray:
    return probe.predict_proba(_inputs(dataset, extra).take(dataset.rows("test")))


def _skill(
    dataset: MarketDataset,
    probe: Baseline,
    label: IntArray,
    seed: int,
    extra: FloatArray | None = None,
) -> Estimate:
    """Log-loss skill over the train prior on the test rows."""
    test = label[dataset.rows("test")]
    prior = np.tile(class_shares(label[dataset.rows("train")]), (len(test), 1))
    losses = row_log_loss(_forecast(dataset, probe, extra), test)
    bootstrap = Bootstrap(dataset.label_rule.horizon, seed, _REPETITIONS)
    return bootstrap.estimate(skill_rows(losses, row_log_loss(prior, test)))


def _inputs(dataset: MarketDataset, extra: FloatArray | None) -> BaselineInputs:
    inputs = baseline_inputs(dataset)
    if extra is None:
        return inputs
    features = np.concatenate([inputs.features, extra], axis=1)
    return BaselineInputs(**{**vars(inputs), "features": features})


def _judge_auc(auc: Estimate) -> FindingStatus:
    surely = 0.5 + _surely(auc)
    if surely > IMPOSSIBLE_AUC:
        return FindingStatus.LEAK
    return FindingStatus.CANNOT_TELL if surely > SUSPICIOUS_AUC else FindingStatus.OK


def _surely(auc: Estimate) -> float:
    """Distance of the interval's nearer end from one half; 0 if the interval contains one half."""
    if auc.ends is None:
        return 0.0
    return max(auc.ends[0] - 0.5, 0.5 - auc.ends[1], 0.0)
