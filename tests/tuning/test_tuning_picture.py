from dataclasses import replace

import pytest
from tuning_builders import make_space

from percoin.plot.picture import write_picture
from percoin.tuning.picture import draw_search
from percoin.tuning.screen import Screen, describe_trial, secs_left
from percoin.tuning.search import Fate, Tried

pytestmark = pytest.mark.usefixtures("painted")


@pytest.fixture(scope="module")
def trial() -> Tried:
    space = make_space()
    return Tried(
        number=1,
        trial=0,
        candidate=space.candidate(space.own()),
        parameters=space.own(),
        fate=Fate.WHOLE,
        skill=0.01,
        is_own=True,
        n_epochs=2,
        secs=10.0,
        reason=None,
    )


@pytest.fixture(scope="module")
def several(trial) -> list[Tried]:
    barrier = {
        **{name: trial.parameters[name] for name in ("lr", "dropout", "width", "lookback")},
        "labels": "triple_barrier",
        "triple_barrier.horizon": 8,
        "triple_barrier.barrier_width": 1.5,
    }
    plain = replace(trial, is_own=False)
    return [
        trial,
        replace(plain, number=2, skill=0.02, parameters=barrier),
        replace(plain, number=3, skill=-3.0),
        replace(plain, number=4, skill=0.005, fate=Fate.ENDED_EARLY),
        replace(plain, number=5, skill=None, fate=Fate.FAILED, reason="too long"),
    ]


def points(axes) -> list[tuple[float, float]]:
    return [tuple(map(float, point)) for each in axes.collections for point in each.get_offsets()]


def test_every_trial_is_drawn_and_every_parameter_has_its_axes(several):
    figure = draw_search(several, "BTCUSDT 1h")
    history, *parameters = figure.axes
    assert history.get_title(loc="left") == "BTCUSDT 1h"
    assert {x for x, _ in points(history)} == {1, 2, 3, 4, 5}
    names = [axes.get_xlabel() for axes in parameters]
    assert names == list(dict.fromkeys([*several[0].parameters, *several[1].parameters]))
    labels = history.get_legend_handles_labels()[1]
    assert set(labels) == {*("own settings", "whole", "ended early", "best", "failed", "far below")}
    width = dict(zip(names, parameters, strict=True))["triple_barrier.barrier_width"]
    assert {x for x, _ in points(width)} == {1.5}


def test_skill_far_below_the_rest_stays_within_the_picture(several):
    history = draw_search(several, "").axes[0]
    bottom, top = history.get_ylim()
    assert -0.05 < bottom < 0 < top < 0.05
    assert all(bottom <= y <= top for _, y in points(history))


@pytest.mark.parametrize("fate", [Fate.WHOLE, Fate.ENDED_EARLY, Fate.FAILED])
def test_a_single_trial_can_be_drawn(trial, fate, tmp_path):
    skill = None if fate is Fate.FAILED else 0.01
    figure = draw_search([replace(trial, fate=fate, skill=skill)], "one")
    write_picture(figure, tmp_path / "study.png")
    assert [path.name for path in tmp_path.iterdir()] == ["study.png"]
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_the_line_of_a_trial_says_what_became_of_it(several):
    lines = [describe_trial(several[:n], 20, 61) for n in range(1, 6)]
    assert lines[0].startswith("trial 1/20: own settings lr=0.001 dropout=0.3 width=1 ")
    assert lines[0].endswith(": skill +0.0100 (best)  10.0 s, about 01:01 left")
    assert ": skill +0.0200 (best)" in lines[1]
    assert ": skill -3.0000  10.0 s" in lines[2]
    assert ": ended early after epoch 2, skill +0.0050" in lines[3]
    assert ": failed: too long" in lines[4]


def test_the_rest_is_expected_to_take_what_trials_took(several):
    assert secs_left(several, 20) == 150
    assert secs_left(several, 5) == 0


def screen(tried: list[Tried], best: Tried, **changes) -> str:
    from pathlib import Path

    values = {
        "title": "BTCUSDT 1h",
        "tried": tried,
        "best": best,
        "importances": {"lr": 0.75},
        "n_counted": 12,
        "n_looks": 1,
        "command": "python train.py lr=0.002",
        "folder": Path("study"),
        "study_file": Path("study.db"),
        **changes,
    }
    return Screen(**values).render()


def test_the_screen_holds_the_best_beside_the_own_settings(several):
    text = screen(several, several[1])
    assert "best of 5 trials on validation rows: skill +0.0200 (trial 2)" in text
    assert "the command's own settings: skill +0.0100" in text
    assert "trials   3 whole, 1 ended early, 1 failed" in text
    assert "counted  12 of this market, against the model" in text
    assert "looks" not in text
    (row,) = (line.strip("│ ").split() for line in text.splitlines() if " lr " in line)
    assert row == ["lr", "0.001", "0.001", "75%"]
    assert text.endswith("\npython train.py lr=0.002\n")


def test_the_screen_says_when_nothing_better_was_found_and_when_rows_are_worn(several):
    assert "nothing better was found" in screen(several, several[0])
    failed = replace(several[0], fate=Fate.FAILED, skill=None, reason="too long")
    text = screen([failed, several[1]], several[1], n_looks=3)
    assert "the command's own settings failed: too long" in text
    assert "looks    3 chosen models at these test rows, with this one" in text
