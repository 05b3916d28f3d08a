"""Label rules of the user's own: how far they see, what they learn from, how they are kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
from builders import make_bars
from own_code import labels_file

from percoin.assembly import dataset_spec
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.dataset import DatasetSpec, build_dataset
from percoin.errors import ConfigError, OwnCodeError
from percoin.labels import FixedHorizon, OwnRule, label_rule_from_json
from percoin.monitoring.resolution import rule_text
from percoin.plugins import allow_plugins
from percoin.types import UNKNOWN_LABEL

BARS = make_bars(1500)


@pytest.fixture(autouse=True)
def own(tmp_path):
    path = labels_file(tmp_path)
    allow_plugins([str(path)])
    yield path
    allow_plugins([])


def rule(name: str, horizon: int = 3, **arguments: object) -> OwnRule:
    return OwnRule.of(f"my_labels:{name}", horizon, arguments)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("TooFar", r"looks ahead further than 3 bars: .* are (cut off|changed|scaled); correct"),
        ("Ranked", r"looks ahead further than 3 bars"),
        ("SinceTheStart", r"depends on where the history begins"),
        ("Strange", r"label gives shape \(1500,\)"),
    ],
)
def test_a_rule_that_sees_too_much_is_refused(name, found):
    with pytest.raises(OwnCodeError, match=rf"BTCUSDT 15m: my_labels:{name} {found}"):
        build_dataset(BARS, DatasetSpec(rule(name)))


def test_the_labels_are_those_of_the_built_in_rule_with_the_same_idea():
    found = build_dataset(BARS, DatasetSpec(rule("UpOrDown", width=0.002)))
    expected = build_dataset(BARS, DatasetSpec(FixedHorizon(3, 0.002)))
    np.testing.assert_array_equal(found.label, expected.label)
    np.testing.assert_array_equal(found.forward_return, expected.forward_return)
    assert found.spec.split_spec.purge_bars == 3


def test_what_a_rule_learns_comes_from_train_rows_alone():
    before = build_dataset(BARS, DatasetSpec(rule("Scaled")))
    last = int(before.rows("train")[-1]) + 3
    frame = BARS.frame.copy()
    frame.iloc[last + 1 :, :4] *= np.linspace(1, 3, len(frame) - last - 1)[:, np.newaxis]
    after = build_dataset(replace(BARS, frame=frame), DatasetSpec(rule("Scaled")))
    assert before.label_rule.learnt == after.label_rule.learnt
    assert before.label_rule.past_bars == 30
    shares = before.class_counts("train") / len(before.rows("train"))
    assert shares[1] == pytest.approx(0.4, abs=0.01)
    assert (before.label[:30] == UNKNOWN_LABEL).all()

    seen = rule("SeesAll").fitted(BARS, np.arange(100))
    assert seen.learnt == {"width": 103.0}
    with pytest.raises(OwnCodeError, match="fit gives values that are neither finite numbers nor"):
        rule("LearnsNothing").fitted(BARS, np.arange(100))


def test_a_rule_survives_json_and_answers_the_same(own):
    dataset = build_dataset(BARS, DatasetSpec(rule("Scaled", share=0.5, spans=[30, 30])))
    text = rule_text(dataset.label_rule)
    again = label_rule_from_json(json.loads(text))
    assert again == dataset.label_rule
    assert again.to_json() == dataset.label_rule.to_json()
    np.testing.assert_array_equal(again.label(BARS).label, dataset.label)
    assert len(text) <= 300

    allow_plugins([])
    unknown = label_rule_from_json(json.loads(text))
    assert (unknown.horizon, unknown.past_bars) == (3, 30)
    with pytest.raises(ConfigError, match="which plugins="):
        unknown.label(BARS)


@pytest.mark.parametrize(
    "change",
    [
        {"horizon": "3"},
        {"horizon": 0},
        {"past_bars": -1},
        {"sha256": 3},
        {"arguments": {"a": [[]]}},
        {"arguments": 3},
        {"arguments": None},
        {"learnt": [1]},
        {"spam": 1},
        {"target": None},
    ],
)
def test_a_stored_rule_that_is_none_is_refused(change):
    stored = {"kind": "own", "horizon": 3, "target": "a:B", "sha256": "0", "arguments": {}}
    assert label_rule_from_json(stored).horizon == 3
    with pytest.raises(ConfigError, match=r"label rule own|labels\.horizon"):
        label_rule_from_json(stored | change)


def test_the_settings_name_a_rule_and_its_arguments(own):
    words = ["symbol=BTCUSDT", f"plugins=[{own}]"]
    asked = [*words, "labels._target_=my_labels.UpOrDown", "labels.width=0.01", "labels.horizon=5"]
    settings = typed(compose_config("train", asked), TrainConfig)
    made = dataset_spec(settings).label_rule
    assert made == rule("UpOrDown", 5, width=0.01)
    assert settings.split.purge_bars == 5


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("UpDown", "my_labels has no UpDown; did you mean UpOrDown"),
        ("NoLabel", r"my_labels:NoLabel has no method label\(bars\)"),
        ("UpOrDown labels.widht=1", "cannot be made: TypeError: .*widht"),
    ],
)
def test_a_rule_that_cannot_be_made_is_one_line_before_any_bar_is_read(own, name, found):
    words = f"symbol=BTCUSDT plugins=[{own}] labels._target_=my_labels:{name}".split()
    with pytest.raises(ConfigError, match=found) as error:
        typed(compose_config("train", words), TrainConfig)
    assert "\n" not in str(error.value)
