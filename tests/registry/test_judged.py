import json

import pytest
from exported_models import bars_to_learn_from, export, make_dataset, random_network

from percoin.errors import InvalidArtifactError
from percoin.registry.artifact import load_artifact
from percoin.registry.judged import judged_threshold
from percoin.registry.layout import METRICS_FILE
from percoin.types import Timeframe

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

    with pytest.raises(InvalidArtifactError, match=r"BTCUSDT 15m: metrics\.json says no threshold"):
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
