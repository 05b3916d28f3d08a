import json

import pytest
from exported_models import bars_to_learn_from, export, make_dataset, random_network

from percoin.errors import InvalidArtifactError
from percoin.features.drift import bin_features
from percoin.intervals import KnownInterval
from percoin.registry.artifact import load_artifact
from percoin.registry.judged import (
    LEVELS,
    TRAIN_ROWS,
    TrainRows,
    judged_levels,
    judged_skill,
    judged_threshold,
    train_rows,
)
from percoin.registry.layout import METRICS_FILE
from percoin.types import LevelsReached, Timeframe

DATASET = make_dataset(bars_to_learn_from(600))


def read_threshold(root):
    manifest = load_artifact(root, "BTCUSDT", Timeframe.M15).manifest
    return judged_threshold(root, manifest)


@pytest.mark.parametrize("threshold", [0.0, 0.4375, 1.0])
def test_the_threshold_that_was_judged_is_read_back(tmp_path, threshold):
    judging = {"threshold": threshold, "folds": 1}
    export(tmp_path, random_network(), DATASET, sections={"judging": judging})

    assert read_threshold(tmp_path) == threshold


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"judging": {}},
        {"judging": 0.5},
        {"judging": {"threshold": None}},
        {"judging": {"threshold": "0.5"}},
        {"judging": {"threshold": True}},
        {"judging": {"threshold": 1.5}},
        {"judging": {"threshold": -0.5}},
    ],
)
def test_a_model_that_says_none_is_refused_with_what_to_do(tmp_path, sections):
    export(tmp_path, random_network(), DATASET, sections=sections)

    with pytest.raises(InvalidArtifactError, match=r"BTCUSDT 15m: metrics\.json has no threshold"):
        read_threshold(tmp_path)


def test_a_threshold_of_another_version_is_not_taken(tmp_path):
    judging = {"judging": {"threshold": 0.25}}
    export(tmp_path, random_network(), DATASET, sections=judging)
    before = load_artifact(tmp_path, "BTCUSDT", Timeframe.M15).manifest
    export(tmp_path, random_network(seed=1), DATASET, sections={"judging": {"threshold": 0.75}})

    assert read_threshold(tmp_path) == 0.75
    with pytest.raises(InvalidArtifactError, match="was changed after the export"):
        judged_threshold(tmp_path, before)


def test_a_changed_file_is_not_believed(tmp_path):
    folder = export(tmp_path, random_network(), DATASET, sections={"judging": {"threshold": 0.75}})
    manifest = load_artifact(tmp_path, "BTCUSDT", Timeframe.M15).manifest
    path = folder / METRICS_FILE
    content = json.loads(path.read_text())
    content["judging"]["threshold"] = 0.0
    path.write_text(json.dumps(content))

    with pytest.raises(InvalidArtifactError, match="was changed after the export"):
        judged_threshold(tmp_path, manifest)


ESTIMATE = {"value": 0.01, "lower": None, "upper": None, "n_rows": 40}
EVALUATION = {
    "model": {"skill": ESTIMATE},
    "best_baseline": "logistic",
    "baselines": [{"name": "majority"}, {"name": "logistic", "skill": ESTIMATE}],
    "against_best": ESTIMATE | {"lower": -0.02, "upper": 0.04},
    "bootstrap": {"confidence": 0.95},
}


def skill_of(folder, sections):
    dataset = make_dataset(bars_to_learn_from(400))
    export(folder, random_network(), dataset, sections=sections)
    manifest = load_artifact(folder, "BTCUSDT", Timeframe.M15).manifest
    return judged_skill(folder, manifest)


def test_the_skill_of_the_test_is_read_back_with_its_interval_and_baseline(tmp_path):
    skill = skill_of(tmp_path, {"evaluation": EVALUATION})
    assert (skill.value, skill.lower, skill.n_rows, skill.confidence) == (0.01, None, 40, 0.95)
    assert (skill.best_baseline, skill.baseline.value) == ("logistic", 0.01)
    assert (skill.against_best.lower, skill.against_best.upper) == (-0.02, 0.04)


@pytest.mark.parametrize("evaluation", [None, {}, {"model": 3}, EVALUATION | {"bootstrap": {}}])
def test_of_a_judgement_in_another_form_nothing_is_said(tmp_path, evaluation):
    assert skill_of(tmp_path, {"evaluation": evaluation}) is None


def read_train_rows(root):
    return train_rows(root, load_artifact(root, "BTCUSDT", Timeframe.M15).manifest)


def test_the_train_rows_are_read_back_to_the_last_bit(tmp_path):
    bins = bin_features(DATASET.feature_names, DATASET.features[DATASET.rows("train")])
    told = TrainRows((0.2, 0.5, 0.3), bins)
    export(tmp_path, random_network(), DATASET, sections={TRAIN_ROWS: told})

    assert read_train_rows(tmp_path) == told


@pytest.mark.parametrize(
    "section",
    [
        None,
        [],
        {},
        {"class_shares": [0.2, 0.5, 0.3], "feature_bins": {}},
        {"class_shares": [0.5, 0.5], "feature_bins": {}},
    ],
)
def test_a_model_that_does_not_tell_of_its_train_rows_has_none(tmp_path, section):
    export(tmp_path, random_network(), DATASET, sections={TRAIN_ROWS: section})

    assert read_train_rows(tmp_path) is None


SHARE = KnownInterval(0.25, 0.2, 0.3)


def read_levels(root):
    return judged_levels(root, load_artifact(root, "BTCUSDT", Timeframe.M15).manifest)


def test_how_often_levels_were_reached_is_read_back(tmp_path):
    told = LevelsReached(700, SHARE, SHARE, SHARE, KnownInterval(0.0, 0.0, 0.01))
    export(tmp_path, random_network(), DATASET, sections={LEVELS: told})

    assert read_levels(tmp_path) == told


@pytest.mark.parametrize("sections", [{}, {LEVELS: None}, {LEVELS: 0.5}, {LEVELS: {}}])
def test_a_model_that_does_not_tell_of_its_levels_has_none(tmp_path, sections):
    export(tmp_path, random_network(), DATASET, sections=sections)

    assert read_levels(tmp_path) is None
