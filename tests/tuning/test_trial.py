import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from tuning_builders import hourly_bars, spoil, tuning

from percoin.config import FixedHorizonConfig
from percoin.errors import DivergedError, MissingClassError
from percoin.network import CnnLstm
from percoin.training.recipes import network
from percoin.training.recipes.network import fit_trial
from percoin.tuning import trial as trial_module
from percoin.tuning.rows import SearchRows
from percoin.tuning.trial import measure

SETTINGS = replace(tuning(), experiment=None, epochs=3, lr=0.02)


def never(epoch: int, skill: float) -> bool:
    return False


@pytest.fixture(scope="module")
def rows() -> SearchRows:
    return SearchRows.of(SETTINGS, hourly_bars())


def test_skill_is_that_of_the_best_epoch_over_the_train_prior(rows):
    reported = []
    measured = measure(SETTINGS, rows, 0.0, lambda *each: reported.append(each) or False)
    dataset = rows.dataset(SETTINGS)
    counts = np.bincount(dataset.label[dataset.rows("train")], minlength=3) + 1
    prior = counts / counts.sum()
    prior_loss = -np.log(prior[dataset.label[dataset.rows("validation")]]).mean()
    losses = fit_trial(SETTINGS, dataset).history["val_loss"]
    skills = [1 - loss / prior_loss for loss in losses]
    assert [epoch for epoch, _ in reported] == [1, 2, 3]
    assert [skill for _, skill in reported] == pytest.approx(skills, abs=1e-12)
    assert measured.skill == max(skill for _, skill in reported)
    assert (measured.n_epochs, measured.ended_early) == (3, False)


def test_spoilt_test_bars_leave_the_skill_as_it_is_to_the_last_bit(rows):
    spoilt = SearchRows.of(SETTINGS, spoil(hourly_bars(), rows.end_time))
    assert measure(SETTINGS, spoilt, 0.0, never) == measure(SETTINGS, rows, 0.0, never)
    seen = spoil(hourly_bars(), rows.end_time - 20 * rows.bars.timeframe.milliseconds)
    other = SearchRows.of(SETTINGS, seen)
    assert measure(SETTINGS, other, 0.0, never) != measure(SETTINGS, rows, 0.0, never)


def test_a_trial_ends_when_it_is_told_to_but_not_after_its_last_epoch(rows):
    early = measure(SETTINGS, rows, 0.0, lambda epoch, _: epoch == 2)
    assert (early.n_epochs, early.ended_early) == (2, True)
    late = measure(SETTINGS, rows, 0.0, lambda epoch, _: epoch == 3)
    assert (late.n_epochs, late.ended_early) == (3, False)


def test_labels_with_a_rare_class_are_refused(rows):
    rare = replace(SETTINGS, labels=FixedHorizonConfig(horizon=3, threshold=0.014))
    shares = rows.dataset(rare).class_counts("train") / len(rows.dataset(rare).rows("train"))
    assert 0 < shares.min() < 0.05
    with pytest.raises(MissingClassError, match=r"is \d\.\d% of the train rows"):
        measure(rare, rows, 0.05, never)
    assert measure(replace(rare, epochs=1), rows, 0.0, never).n_epochs == 1


def test_a_trial_that_diverges_says_so(rows, monkeypatch):
    class Spoilt(CnnLstm):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            torch.nn.init.constant_(self.head[0].weight, torch.nan)

    monkeypatch.setattr(network, "CnnLstm", Spoilt)
    with pytest.raises(DivergedError, match="smaller learning rate"):
        measure(SETTINGS, rows, 0.0, never)


def test_a_trial_writes_nothing_and_speaks_only_when_it_is_slow(
    rows, monkeypatch, tmp_path, caplog
):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, logger="percoin"):
        measure(SETTINGS, rows, 0.0, never)
        assert caplog.messages == []
        monkeypatch.setattr(trial_module, "_SILENCE_SECS", 0.0)
        measure(replace(SETTINGS, epochs=1), rows, 0.0, never)
    assert len(caplog.messages) == 1
    assert "epoch 1/1: validation skill" in caplog.messages[0]
    assert list(tmp_path.iterdir()) == []
