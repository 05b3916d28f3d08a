"""How a run stands, as its folder says."""

import json
import math

import pytest

from percoin.run_record import (
    can_go_on,
    facts_hash,
    has_checkpoint,
    is_finished,
    mark_diverged,
    read_result,
    write_result,
)

RESULT = {"version": "v-1", "verdict": "accepted", "epochs": 3}


def make_checkpoint(folder):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()


def standing(folder) -> tuple[bool, bool]:
    return can_go_on(folder), is_finished(folder)


def test_a_run_goes_on_from_its_first_finished_epoch_until_it_is_finished(tmp_path):
    assert standing(tmp_path) == standing(tmp_path / "nowhere") == (False, False)
    make_checkpoint(tmp_path)
    assert standing(tmp_path) == (True, False)
    write_result(tmp_path, RESULT)
    assert standing(tmp_path) == (True, True)
    assert read_result(tmp_path) == RESULT


def test_a_run_that_diverged_does_not_go_on(tmp_path):
    make_checkpoint(tmp_path)
    mark_diverged(tmp_path, "the loss is no longer a number")
    assert standing(tmp_path) == (False, False)
    assert (tmp_path / "diverged.txt").read_text() == "the loss is no longer a number\n"


@pytest.mark.parametrize("part", ["fold-1", "seed-3"])
def test_an_epoch_of_a_part_of_a_run_is_one_of_the_run(tmp_path, part):
    make_checkpoint(tmp_path / part)
    assert has_checkpoint(tmp_path)


def test_another_job_s_folder_below_is_no_part_of_the_run(tmp_path):
    make_checkpoint(tmp_path / "lr=0.1")
    assert not has_checkpoint(tmp_path)


def test_a_figure_that_is_no_number_is_null_in_a_result(tmp_path):
    write_result(tmp_path, {**RESULT, "skill": math.nan})
    assert read_result(tmp_path)["skill"] is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"version": 1}', '{"epochs": -1}', '{"markets": {"A": {}}}', '{"a": NaN}'],
)
def test_what_no_run_wrote_is_no_result(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        read_result(tmp_path)


def test_the_same_facts_are_the_same_job_in_whatever_order_they_are_told():
    facts = {"symbol": "BTCUSDT", "lr": 0.001}
    key = facts_hash(facts, n_digits=16)
    assert len(key) == 16
    assert key == facts_hash(json.loads('{"lr": 0.001, "symbol": "BTCUSDT"}'), n_digits=16)
    assert key != facts_hash({**facts, "lr": 0.002}, n_digits=16)
