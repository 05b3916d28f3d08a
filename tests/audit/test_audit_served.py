from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import make_bars
from cheats import HORIZON, RELATIVE, RULE, SPLIT, all_rows, honest_dataset, with_scaler_of

from percoin.audit.findings import Finding, FindingStatus, format_findings
from percoin.audit.served import audit_served, check_manifest, check_spans, rebuild
from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, build_folds
from percoin.features.feature_set import FEATURE_NAMES
from percoin.registry.artifact import export_artifact, load_artifact
from percoin.registry.field_checks import open_time_text
from percoin.registry.layout import SERVED_WEIGHTS_FILE
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

BARS = make_bars(1500)
DATASET = honest_dataset(BARS)
CONFIG = {
    "history_days": 365,
    "split": {
        "train": 0.7,
        "validation": 0.15,
        "test": 0.15,
        "purge_bars": SPLIT.purge_bars,
        "embargo_bars": SPLIT.embargo_bars,
    },
}
MATRIX = ((30, 20, 10), (15, 40, 15), (5, 20, 0))


def span(dataset: MarketDataset, part: str) -> SplitSpan:
    rows, opened = dataset.rows(part), dataset.bars.open_time
    return SplitSpan(
        open_time_text(int(opened[rows[0]])), open_time_text(int(opened[rows[-1]])), len(rows)
    )


def draft(dataset: MarketDataset, **changes) -> ManifestDraft:
    bars = dataset.bars
    rows = {part: len(dataset.rows(part)) for part in ("train", "validation", "test")}
    missing = rows["test"] - sum(map(sum, MATRIX))
    matrix = (*MATRIX[:2], (*MATRIX[2][:2], missing))
    made = ManifestDraft(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        lookback=dataset.lookback,
        dataset_info=DatasetInfo(len(FEATURE_NAMES), *rows.values()),
        test_metrics=TestMetrics(0.51, 0.48, 0.51, 0.47, matrix),
        features=Features.of(dataset.feature_set, dataset.bars.timeframe),
        scaling=ScalingNumbers.of(dataset.scaling),
        label_rule=dataset.label_rule.to_json(),
        calibration=Calibration(),
        gate=Gate(StoredVerdict.ACCEPTED, ("for a test",)),
        bars=BarsInfo(
            origin=bars.origin,
            sha256=bars.sha256(),
            first_open_time=open_time_text(int(bars.open_time[0])),
            last_open_time=open_time_text(int(bars.open_time[-1])),
            n_bars=len(bars),
            splits={
                name: span(dataset, part)
                for name, part in (("train", "train"), ("val", "validation"), ("test", "test"))
            },
        ),
        model=ModelSpec({}),
        config=CONFIG,
        seed=0,
        code_version="test",
        libraries={},
    )
    return replace(made, **changes)


def export(root, made: ManifestDraft) -> None:
    weights = {"weight": torch.zeros(3)}
    record = TrainingRecord({}, TrainingHistory([1.0], [0.5], [1.0], [0.5]))
    export_artifact(root, made, weights, weights, record)


def statuses(root, bars: Bars = BARS) -> dict[str, FindingStatus]:
    return {finding.check: finding.status for finding in audit_served(root, bars)}


def test_without_a_model_there_is_nothing_to_say(tmp_path):
    assert audit_served(tmp_path, BARS) == []


def test_an_honest_model_passes_every_check(tmp_path):
    export(tmp_path, draft(DATASET))
    found = statuses(tmp_path)
    assert set(found.values()) == {FindingStatus.OK}
    assert "model: scaler knows train only" in found
    assert "model: splits are as described" in found


def test_bars_that_came_later_do_not_matter(tmp_path):
    older = honest_dataset(BARS.slice(0, 1300))
    export(tmp_path, draft(older))
    assert set(statuses(tmp_path).values()) == {FindingStatus.OK}


def test_a_scaler_fitted_on_all_rows_is_detected_in_the_manifest(tmp_path):
    leaky = with_scaler_of(DATASET, all_rows(DATASET))
    export(tmp_path, draft(leaky))
    found = {finding.check: finding for finding in audit_served(tmp_path, BARS)}
    scaler = found.pop("model: scaler knows train only")
    assert scaler.status is FindingStatus.LEAK
    assert scaler.evidence == "fitted on the rows of all three parts"
    assert {finding.status for finding in found.values()} == {FindingStatus.OK}


def test_bars_that_changed_are_reported_and_prove_nothing(tmp_path):
    export(tmp_path, draft(with_scaler_of(DATASET, all_rows(DATASET))))
    frame = BARS.frame.copy()
    frame.iloc[700, frame.columns.get_loc("volume")] += 1e-9
    found = {f.check: f for f in audit_served(tmp_path, replace(BARS, frame=frame))}
    changed = found["model: bars are those it knew"]
    assert changed.status is FindingStatus.CANNOT_TELL
    assert "have changed or are missing" in changed.evidence
    assert "model: scaler knows train only" not in found


def test_splits_that_are_not_those_of_the_settings_are_detected(tmp_path):
    splits = {"train": 0.8, "validation": 0.1, "test": 0.1}
    export(tmp_path, draft(DATASET, config={**CONFIG, "split": {**CONFIG["split"], **splits}}))
    found = statuses(tmp_path)
    assert found["model: splits are as described"] is FindingStatus.LEAK
    assert found["model: scaler knows train only"] is FindingStatus.LEAK


def findings_of(root, n_left_out: int, at_the_end: int = 0) -> dict[str, Finding]:
    """Of a model that was judged on some of the test rows of its settings."""
    test = DATASET.rows("test")
    export(root, draft(DATASET.tested_on(test[n_left_out : len(test) - at_the_end])))
    return {finding.check: finding for finding in audit_served(root, BARS)}


def test_test_rows_that_a_search_saw_may_be_left_out(tmp_path):
    found = findings_of(tmp_path, 7)
    assert {finding.status for finding in found.values()} == {FindingStatus.OK}
    assert found["model: splits are as described"].evidence == (
        "rows and dates of all three parts agree with the settings, without the oldest 7 test "
        "rows, as after a search for them"
    )
    manifest = load_artifact(tmp_path, BARS.symbol, BARS.timeframe).manifest
    assert np.array_equal(rebuild(manifest, BARS).rows("test"), DATASET.rows("test")[7:])


@pytest.mark.parametrize("n_left_out", [0, 7])
def test_newest_test_rows_that_are_left_out_are_detected(tmp_path, n_left_out):
    found = findings_of(tmp_path, n_left_out, at_the_end=2)
    assert found["model: splits are as described"].status is FindingStatus.LEAK


def test_dates_too_close_for_the_label_are_detected_without_any_bars(tmp_path):
    first, last = int(DATASET.rows("train")[-1]) + HORIZON, int(DATASET.rows("validation")[-1])
    touching = replace(DATASET.split, validation=np.arange(first, last + 1))
    export(tmp_path, draft(replace(DATASET, split=touching)))
    manifest = load_artifact(tmp_path, BARS.symbol, BARS.timeframe).manifest
    finding = check_spans(manifest)
    assert finding.status is FindingStatus.LEAK
    assert finding.evidence.startswith("2 and 6 bars lie between the parts")


def test_constant_scores_are_recognised_in_a_manifest(tmp_path):
    n_rows = len(DATASET.rows("test"))
    matrix = ((0, 20, 0), (0, n_rows - 30, 0), (0, 10, 0))
    p = (n_rows - 30) / n_rows
    metrics = TestMetrics(p, p * p, p, 2 * p * p / (1 + p), matrix)
    export(tmp_path, draft(DATASET, test_metrics=metrics))
    assert statuses(tmp_path)["model: scores of a constant"] is FindingStatus.CONSTANT


def test_a_damaged_model_cannot_be_told_about(tmp_path):
    export(tmp_path, draft(DATASET))
    folder = load_artifact(tmp_path, BARS.symbol, BARS.timeframe).folder
    (folder / SERVED_WEIGHTS_FILE).write_bytes(b"x")
    assert statuses(tmp_path) == {"model: can be loaded": FindingStatus.CANNOT_TELL}


def test_a_model_of_other_settings_than_these_cannot_be_told_about(tmp_path):
    export(tmp_path, draft(DATASET, config={"history_days": 365}))
    found = statuses(tmp_path)
    assert found["model: dataset can be rebuilt"] is FindingStatus.CANNOT_TELL


@pytest.mark.parametrize(
    "changes",
    [
        {"split": []},
        {"split": 7},
        {"split": None},
        {"split": {**CONFIG["split"], "purge_bars": "many"}},
        {"split": {**CONFIG["split"], "train": 10**30}},
        {"split": {**CONFIG["split"], "train": [0.7]}},
        {"history_days": "\x1b[2J"},
        {"history_days": {}},
        {"evaluation": "walk_forward", "folds": 10**10},
        {"evaluation": "walk_forward", "folds": "three"},
        {"evaluation": "walk_forward", "folds": -1},
        {"evaluation": "walk_forward", "folds": [3]},
    ],
)
def test_settings_that_cannot_be_meant_end_no_audit(tmp_path, changes):
    export(tmp_path, draft(DATASET, config={**CONFIG, **changes}))
    findings = audit_served(tmp_path, BARS)
    assert findings[-1].check == "model: dataset can be rebuilt"
    assert findings[-1].status is FindingStatus.CANNOT_TELL
    assert all(line.isprintable() for line in format_findings(findings).splitlines())


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "../../trap\n", "horizon": 3},
        {"kind": "fixed_horizon"},
        {"kind": "fixed_horizon", "horizon": "3", "threshold": 0.01},
        {"kind": "fixed_horizon", "horizon": 3, "threshold": "\ud800"},
        {"kind": "fixed_horizon", "horizon": -1, "threshold": 0.01},
    ],
)
def test_label_rules_that_cannot_be_meant_end_no_audit(tmp_path, rule):
    export(tmp_path, draft(DATASET, label_rule=rule))
    findings = audit_served(tmp_path, BARS)
    assert FindingStatus.CANNOT_TELL in {finding.status for finding in findings}
    format_findings(findings).encode()


def test_a_number_too_large_for_a_float_ends_no_audit(tmp_path):
    export(tmp_path, draft(DATASET))
    manifest = load_artifact(tmp_path, BARS.symbol, BARS.timeframe).manifest
    vast = replace(manifest, config={**CONFIG, "history_days": 10**400})
    assert check_manifest(vast, BARS)[-1].status is FindingStatus.CANNOT_TELL


def test_the_newest_fold_of_a_walk_forward_is_built_again(tmp_path):
    folds = build_folds(BARS, DatasetSpec(RULE, RELATIVE, 8, SPLIT, 365), 3)
    config = {**CONFIG, "evaluation": "walk_forward", "folds": 3}
    export(tmp_path, draft(folds[-1], config=config))
    manifest = load_artifact(tmp_path, BARS.symbol, BARS.timeframe).manifest
    again = rebuild(manifest, BARS)
    assert again.scaling.mean_.tobytes() == folds[-1].scaling.mean_.tobytes()
    assert set(statuses(tmp_path).values()) == {FindingStatus.OK}
