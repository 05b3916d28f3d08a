import logging
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from training_builders import (
    OPTIMIZER,
    learnable_dataset,
    make_dataset,
    make_plan,
    tiny_network,
)

from percoin.dataset import MarketDataset
from percoin.errors import DivergedError, InterruptedRunError, ResumeError, TrainingError
from percoin.run_record import CHECKPOINT_FOLDER, LAST_CHECKPOINT
from percoin.training import datamodule
from percoin.training.run import (
    BEST_CHECKPOINT,
    TrainedModel,
    TrainingPlan,
    check_checkpoint,
    fit,
    train,
)

# A learning rate at which the validation loss goes up and down, cut at once when it
# goes up: the schedule, the best epoch and early stopping all have something to do.
RESTLESS = make_plan(
    epochs=4,
    lr=0.05,
    batch_size=128,
    optimizer=replace(OPTIMIZER, plateau_patience=0, early_stopping_patience=2),
)


def early_stopping_plan(patience: int = 1) -> TrainingPlan:
    optimizer = replace(OPTIMIZER, early_stopping_patience=patience, plateau_patience=50)
    return replace(RESTLESS, epochs=30, lr=0.2, optimizer=optimizer)


@pytest.fixture(scope="module")
def dataset() -> MarketDataset:
    return learnable_dataset()


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory) -> tuple[TrainedModel, "LearningRates"]:
    learning_rates = LearningRates()
    folder = tmp_path_factory.mktemp("uninterrupted")
    trained = train(dataset, tiny_network(), RESTLESS, folder, callbacks=[learning_rates])
    return trained, learning_rates


class NoTest(pl.Callback):
    """Refuses a test, which a fit must not make."""

    def on_test_start(self, *_) -> None:
        raise AssertionError("the test rows were asked for")


def test_a_fit_learns_as_a_training_does_but_tests_and_writes_nothing(
    dataset, uninterrupted, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    module = fit(dataset, tiny_network(), RESTLESS, [NoTest()])
    trained, _ = uninterrupted
    assert module.history == trained.module.history
    assert len(module.test_labels) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_is_interrupted_has_nothing_to_go_on_with(dataset):
    with pytest.raises(
        InterruptedRunError, match="no finished epoch is kept; start again"
    ) as caught:
        fit(dataset, tiny_network(), RESTLESS, [Interrupt("batch")])
    assert caught.value.exit_code == 130


class LearningRates(pl.Callback):
    """The learning rate of each batch, and the first batch of each epoch."""

    def __init__(self) -> None:
        self.by_step: list[float] = []
        self.first_batches: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.by_step.append(trainer.optimizers[0].param_groups[0]["lr"])
        if batch_idx == 0:
            self.first_batches.append(batch[0])


class Interrupt(pl.Callback):
    """Sends this process a signal in an epoch, by default the third, or in the test."""

    def __init__(
        self, moment: str, number: signal.Signals = signal.SIGINT, in_epoch: int = 3
    ) -> None:
        self._moment = moment
        self._number = number
        self._epoch = in_epoch

    def _at(self, moment: str, trainer: pl.Trainer) -> None:
        if moment != self._moment:
            return
        if moment in ("test", "at once") or trainer.current_epoch + 1 == self._epoch:
            os.kill(os.getpid(), self._number)

    def on_train_start(self, trainer, pl_module) -> None:
        self._at("at once", trainer)

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self._at("epoch start", trainer)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if batch_idx == 2:
            self._at("batch", trainer)

    def on_validation_start(self, trainer, pl_module) -> None:
        self._at("validation", trainer)

    def on_test_start(self, trainer, pl_module) -> None:
        self._at("test", trainer)


def interrupted(
    dataset: MarketDataset, plan: TrainingPlan, folder: Path, moment: str, in_epoch: int = 3
) -> LearningRates:
    """Train until the moment; returns what was seen until then."""
    learning_rates = LearningRates()
    callbacks = [learning_rates, Interrupt(moment, in_epoch=in_epoch)]
    with pytest.raises(InterruptedRunError):
        train(dataset, tiny_network(), plan, folder, callbacks=callbacks)
    return learning_rates


def check_same(found: TrainedModel, expected: TrainedModel) -> None:
    assert found.module.history == expected.module.history
    assert (found.n_epochs, found.best_epoch) == (expected.n_epochs, expected.best_epoch)
    check_weights(found, expected.module.state_dict())
    assert torch.equal(found.module.test_probabilities, expected.module.test_probabilities)


def check_weights(found: TrainedModel, expected: dict[str, torch.Tensor]) -> None:
    weights = found.module.state_dict()
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name


def checkpoint(folder: Path, name: str) -> Path:
    return folder / CHECKPOINT_FOLDER / f"{name}.ckpt"


def test_the_validation_loss_falls_on_a_learnable_market(dataset, tmp_path):
    plan = make_plan(epochs=4, batch_size=16)
    trained = train(dataset, tiny_network(dropout=0.0), plan, tmp_path)
    history = trained.module.history
    assert trained.n_epochs == 4
    assert {len(values) for values in history.values()} == {4}
    assert history["val_loss"][-1] < 0.8 * history["val_loss"][0]
    assert history["train_loss"][-1] < 0.8 * history["train_loss"][0]
    assert history["val_acc"][-1] > 0.6


def test_a_gradient_is_clipped_to_its_norm(dataset):
    optimizer = replace(OPTIMIZER, gradient_clip_norm=1e-13, weight_decay=0.0)
    plan = make_plan(epochs=1, optimizer=optimizer)
    before = tiny_network()
    # So short a gradient is lost beside the epsilon of AdamW, 1e-8.
    clipped = fit(dataset, tiny_network(), plan).network
    for name, parameter in clipped.named_parameters():
        change = (parameter - before.get_parameter(name)).abs().max()
        assert change < 1e-5, name


def test_every_row_counts_the_same_in_the_loss_of_an_epoch(dataset, monkeypatch):
    def losses(batch_size: int) -> list[float]:
        monkeypatch.setattr(datamodule, "EVALUATION_BATCH_SIZE", batch_size)
        return fit(dataset, tiny_network(), make_plan()).history["val_loss"]

    n_rows = len(dataset.rows("validation"))
    # A whole batch and one of a single row.
    assert losses(n_rows - 1) == pytest.approx(losses(n_rows), rel=1e-5)


def test_the_best_epoch_is_restored(dataset, tmp_path):
    plan = early_stopping_plan()
    trained = train(dataset, tiny_network(), plan, tmp_path / "long")
    val_loss = trained.module.history["val_loss"]
    assert trained.best_epoch == val_loss.index(min(val_loss)) + 1
    assert trained.best_epoch < trained.n_epochs  # else the last weights would do as well
    best = torch.load(checkpoint(tmp_path / "long", BEST_CHECKPOINT), weights_only=True)
    check_weights(trained, best["state_dict"])
    # A run of so many epochs ends with the very weights that were restored.
    train(dataset, tiny_network(), replace(plan, epochs=trained.best_epoch), tmp_path / "short")
    last = torch.load(checkpoint(tmp_path / "short", LAST_CHECKPOINT), weights_only=True)
    check_weights(trained, last["state_dict"])


def test_test_outputs_are_the_networks_answers_in_time_order(dataset, uninterrupted):
    module = uninterrupted[0].module
    rows = dataset.rows("test")
    windows = torch.tensor(dataset.windows[rows - dataset.lookback + 1])
    with torch.inference_mode():
        expected = module.network.eval()(windows).softmax(dim=1)
    torch.testing.assert_close(module.test_probabilities, expected, atol=1e-6, rtol=0)
    assert module.test_labels.tolist() == dataset.label[rows].tolist()


def test_two_runs_are_the_same_and_another_seed_is_not(dataset, uninterrupted, tmp_path):
    check_same(train(dataset, tiny_network(), RESTLESS, tmp_path / "again"), uninterrupted[0])
    other = train(dataset, tiny_network(), replace(RESTLESS, seed=4), tmp_path / "other")
    assert other.module.history != uninterrupted[0].module.history


@pytest.mark.parametrize("moment", ["batch", "validation", "test"])
def test_a_resumed_run_equals_the_uninterrupted_one(dataset, uninterrupted, tmp_path, moment):
    expected, expected_rates = uninterrupted
    before = interrupted(dataset, RESTLESS, tmp_path, moment)
    after = LearningRates()
    # The weights come from the checkpoint, whatever the new network begins with.
    resumed = train(dataset, tiny_network(9), RESTLESS, tmp_path, callbacks=[after], resume=True)
    check_same(resumed, expected)
    n_resumed = len(after.by_step)
    assert after.by_step == expected_rates.by_step[len(expected_rates.by_step) - n_resumed :]
    assert len(set(expected_rates.by_step)) > 1
    n_epochs = len(after.first_batches)
    assert n_epochs == (0 if moment == "test" else expected.n_epochs - 2)
    for found, wanted in zip(
        after.first_batches, expected_rates.first_batches[-n_epochs:], strict=False
    ):
        assert torch.equal(found, wanted)
    assert len(before.first_batches) >= 2


def test_a_run_may_be_interrupted_more_than_once(dataset, uninterrupted, tmp_path):
    interrupted(dataset, RESTLESS, tmp_path, "batch")
    with pytest.raises(InterruptedRunError):
        train(
            dataset,
            tiny_network(),
            RESTLESS,
            tmp_path,
            callbacks=[Interrupt("validation", signal.SIGTERM)],
            resume=True,
        )
    check_same(train(dataset, tiny_network(), RESTLESS, tmp_path, resume=True), uninterrupted[0])


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_epochs(dataset, tmp_path):
    train(dataset, tiny_network(), make_plan(epochs=1), tmp_path)
    path = checkpoint(tmp_path, LAST_CHECKPOINT)
    content = torch.load(path, weights_only=True)
    assert 0 < content["secs"] < 100
    torch.save(content | {"secs": 1000.0}, path)
    resumed = train(dataset, tiny_network(), make_plan(epochs=2), tmp_path, resume=True)
    assert 1000 < resumed.secs < 1100
    assert torch.load(path, weights_only=True)["secs"] > 1000
    # Of a version that did not note them yet.
    del content["secs"]
    torch.save(content, path)
    old = train(dataset, tiny_network(), make_plan(epochs=2), tmp_path, resume=True)
    assert 0 < old.secs < 100


def test_more_epochs_go_on_where_fewer_ended(dataset, uninterrupted, tmp_path):
    train(dataset, tiny_network(), replace(RESTLESS, epochs=2), tmp_path)
    check_same(train(dataset, tiny_network(), RESTLESS, tmp_path, resume=True), uninterrupted[0])


def test_a_moved_run_resumes_and_still_knows_its_best_epoch(dataset, uninterrupted, tmp_path):
    interrupted(dataset, RESTLESS, tmp_path / "here", "batch")
    shutil.move(tmp_path / "here", tmp_path / "there")
    resumed = train(dataset, tiny_network(), RESTLESS, tmp_path / "there", resume=True)
    check_same(resumed, uninterrupted[0])
    assert not (tmp_path / "here").exists()


class Overwrite(pl.Callback):
    """Puts another run's best checkpoint in the place of this one's when the fit has ended."""

    def __init__(self, mine: Path, theirs: Path) -> None:
        self._mine, self._theirs = mine, theirs

    def on_train_end(self, trainer, pl_module) -> None:
        shutil.copy(self._theirs, self._mine)


@pytest.mark.parametrize("seed", [3, 4], ids=["same seed", "other seed"])
def test_weights_of_another_process_are_never_exported(dataset, tmp_path, seed):
    plan = make_plan(epochs=1)
    train(dataset, tiny_network(5), replace(plan, seed=seed), tmp_path / "theirs")
    paths = [checkpoint(tmp_path / name, BEST_CHECKPOINT) for name in ("mine", "theirs")]
    exported = Exported()
    with pytest.raises(TrainingError, match=r"best\.ckpt is not what this training wrote"):
        train(
            dataset,
            tiny_network(),
            plan,
            tmp_path / "mine",
            callbacks=[exported, Overwrite(*paths)],
        )
    assert exported.count == 0


def test_a_kill_between_the_best_checkpoint_and_the_last_one_loses_no_run(tmp_path):
    dataset = make_dataset()  # its second epoch is the better one
    first, both = (make_plan(epochs=epochs, lr=1e-3) for epochs in (1, 2))
    train(dataset, tiny_network(), first, tmp_path)
    last = checkpoint(tmp_path, LAST_CHECKPOINT)
    before = last.read_bytes()
    whole = train(dataset, tiny_network(), both, tmp_path, resume=True)
    assert whole.best_epoch == 2
    # The best checkpoint of an epoch is written before the last one.
    last.write_bytes(before)
    with pytest.raises(ResumeError, match="has trained 2 epochs already"):
        train(dataset, tiny_network(), first, tmp_path, resume=True)
    check_same(train(dataset, tiny_network(), both, tmp_path, resume=True), whole)


def test_a_best_checkpoint_of_another_run_is_not_resumed_with(dataset, tmp_path):
    for name, seed in (("mine", 3), ("theirs", 4)):
        train(dataset, tiny_network(), make_plan(epochs=1, seed=seed), tmp_path / name)
    paths = [checkpoint(tmp_path / name, BEST_CHECKPOINT) for name in ("theirs", "mine")]
    shutil.copy(*paths)
    with pytest.raises(ResumeError, match=r"best\.ckpt is not of the run that wrote .*last\.ckpt"):
        train(dataset, tiny_network(), make_plan(epochs=2), tmp_path / "mine", resume=True)


def test_a_resumed_run_refuses_a_best_checkpoint_that_changed_meanwhile(dataset, tmp_path):
    plan = early_stopping_plan(patience=2)
    whole = train(dataset, tiny_network(), plan, tmp_path / "whole")
    interrupted(dataset, plan, tmp_path / "mine", "batch", in_epoch=whole.best_epoch + 2)
    train(dataset, tiny_network(), replace(plan, seed=4, epochs=1), tmp_path / "theirs")
    paths = [checkpoint(tmp_path / name, BEST_CHECKPOINT) for name in ("mine", "theirs")]
    # No better epoch follows, so that this process does not write the best one itself.
    with pytest.raises(TrainingError, match="is not what this training wrote"):
        train(
            dataset,
            tiny_network(),
            plan,
            tmp_path / "mine",
            callbacks=[Overwrite(*paths)],
            resume=True,
        )


def test_early_stopping_ends_after_patience_epochs_without_a_better_one(dataset, tmp_path):
    plan = early_stopping_plan()
    trained = train(dataset, tiny_network(), plan, tmp_path)
    assert trained.n_epochs == trained.best_epoch + 1 < plan.epochs


def test_a_run_that_had_stopped_early_stays_stopped_when_resumed(dataset, tmp_path):
    plan = early_stopping_plan()
    expected = train(dataset, tiny_network(), plan, tmp_path / "whole")
    interrupted(dataset, plan, tmp_path / "cut", "test")
    check_same(
        train(dataset, tiny_network(), plan, tmp_path / "cut", resume=True),
        expected,
    )


def test_the_count_of_early_stopping_survives_an_interruption(dataset, tmp_path):
    plan = early_stopping_plan(patience=2)
    expected = train(dataset, tiny_network(), plan, tmp_path / "whole")
    assert expected.n_epochs == expected.best_epoch + 2
    # One of the two epochs without a better one is over by then.
    interrupted(dataset, plan, tmp_path / "cut", "batch", in_epoch=expected.n_epochs)
    check_same(train(dataset, tiny_network(), plan, tmp_path / "cut", resume=True), expected)


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_ends_training_with_its_exit_code_and_one_line(
    dataset, tmp_path, number, exit_code
):
    usual = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(InterruptedRunError) as caught:
        train(dataset, tiny_network(), RESTLESS, tmp_path, callbacks=[Interrupt("batch", number)])
    assert caught.value.exit_code == exit_code
    message = str(caught.value)
    assert message.startswith(f"BTCUSDT 15m: interrupted by {number.name}; ")
    assert "resume=true goes on" in message
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == usual


def test_an_interruption_before_the_first_epoch_does_not_promise_a_resumption(dataset, tmp_path):
    with pytest.raises(InterruptedRunError, match="no finished epoch is kept; start again"):
        train(dataset, tiny_network(), RESTLESS, tmp_path, callbacks=[Interrupt("at once")])
    assert not checkpoint(tmp_path, LAST_CHECKPOINT).exists()


def test_a_signal_within_a_log_line_is_not_lost(dataset, tmp_path, caplog):
    class Signalling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # As StreamHandler does it: whatever is raised in here is taken for its own fault.
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
            except Exception:  # noqa: BLE001
                self.handleError(record)

    handler = Signalling()
    log = logging.getLogger("percoin.training.callbacks")
    log.addHandler(handler)
    try:
        with (
            caplog.at_level(logging.INFO),
            pytest.raises(InterruptedRunError, match="interrupted by SIGTERM"),
        ):
            train(dataset, tiny_network(), RESTLESS, tmp_path)
    finally:
        log.removeHandler(handler)


def test_a_signal_after_the_last_batch_keeps_the_model_from_being_exported(dataset, tmp_path):
    class Late(pl.Callback):
        def on_test_epoch_end(self, trainer, pl_module) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    exported = Exported()
    with pytest.raises(InterruptedRunError):
        train(dataset, tiny_network(), make_plan(), tmp_path, callbacks=[exported, Late()])
    assert exported.count == 0


def test_checkpoints_are_replaced_whole(dataset, tmp_path, monkeypatch):
    train(dataset, tiny_network(), make_plan(epochs=1), tmp_path)
    path = checkpoint(tmp_path, LAST_CHECKPOINT)
    before = path.read_bytes()

    def killed_half_way(descriptor) -> None:
        os.truncate(descriptor, 1000)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed_half_way)
    with pytest.raises(SystemExit):  # Lightning's answer to a KeyboardInterrupt
        train(dataset, tiny_network(), make_plan(epochs=2), tmp_path, resume=True)
    assert path.read_bytes() == before
    monkeypatch.undo()
    resumed = train(dataset, tiny_network(), make_plan(epochs=2), tmp_path, resume=True)
    check_same(resumed, train(dataset, tiny_network(), make_plan(epochs=2), tmp_path / "whole"))
    names = {path.name for path in (tmp_path / CHECKPOINT_FOLDER).iterdir()}
    assert names == {"best.ckpt", "last.ckpt"}


def test_what_a_killed_process_left_of_a_checkpoint_is_taken_away(dataset, tmp_path):
    path = checkpoint(tmp_path, BEST_CHECKPOINT)
    left = path.with_name(f".{path.name}.{'0' * 32}.tmp")
    train(dataset, tiny_network(), make_plan(epochs=1), tmp_path)
    left.write_bytes(b"half of it")
    train(dataset, tiny_network(), make_plan(epochs=1), tmp_path, resume=True)
    assert not left.exists()


def test_a_damaged_checkpoint_is_refused(dataset, tmp_path):
    train(dataset, tiny_network(), make_plan(epochs=1), tmp_path)
    path = checkpoint(tmp_path, LAST_CHECKPOINT)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ResumeError, match=r"last\.ckpt cannot be read; start afresh"):
        train(dataset, tiny_network(), make_plan(epochs=2), tmp_path, resume=True)


@pytest.mark.parametrize(
    "planted",
    [
        {"epoch": "x"},
        {"epoch": -1},
        {"history": []},
        {"history": {}},
        {"history": {"val_loss": ["x"]}},
        {"history": {"val_loss": [0.1, 0.2]}},
    ],
)
def test_a_checkpoint_that_no_training_wrote_is_refused(tmp_path, planted):
    path = checkpoint(tmp_path, LAST_CHECKPOINT)
    path.parent.mkdir()
    names = ("train_loss", "train_acc", "val_loss", "val_acc")
    sound = {"epoch": 0, "history": {name: [0.5] for name in names}}
    torch.save(sound, path.with_stem(BEST_CHECKPOINT))
    torch.save(sound, path)
    check_checkpoint(path, 1, ("BTCUSDT", "15m"))
    torch.save(sound | planted, path)
    with pytest.raises(ResumeError, match="start afresh without resume=true"):
        check_checkpoint(path, 1, ("BTCUSDT", "15m"))


def test_fewer_epochs_than_were_trained_are_refused(dataset, tmp_path):
    train(dataset, tiny_network(), make_plan(epochs=2), tmp_path)
    with pytest.raises(ResumeError, match="has trained 2 epochs already; use epochs=2 or more"):
        train(dataset, tiny_network(), make_plan(epochs=1), tmp_path, resume=True)


def test_a_weight_that_is_not_a_number_is_a_diverged_run(dataset, tmp_path):
    network = tiny_network()
    with torch.no_grad():
        network.head[0].weight[0, 0] = torch.nan
    exported = Exported()
    with pytest.raises(DivergedError, match=r"BTCUSDT 15m: the train loss became nan in epoch 1"):
        train(dataset, network, make_plan(), tmp_path, callbacks=[exported])
    assert exported.count == 0


def test_a_loss_lost_within_an_epoch_is_a_diverged_run(dataset, tmp_path):
    exported = Exported()
    with pytest.raises(DivergedError, match=r"loss became (nan|inf) in epoch 2.*lr=0.01"):
        train(dataset, tiny_network(), make_plan(), tmp_path, callbacks=[exported, Poison()])
    assert exported.count == 0


class Poison(pl.Callback):
    """Spoils a weight in the middle of the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.current_epoch == 1 and batch_idx == 3:
            with torch.no_grad():
                pl_module.network.head[0].weight[0, 0] = torch.inf


class Exported(pl.Callback):
    """Counts how often a model would have been exported."""

    def __init__(self) -> None:
        self.count = 0

    def on_test_end(self, trainer, pl_module) -> None:
        self.count += 1


def test_an_error_of_a_callback_fails_the_run(dataset, tmp_path):
    class FailingExport(pl.Callback):
        def on_test_end(self, trainer, pl_module) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        train(dataset, tiny_network(), make_plan(epochs=1), tmp_path, callbacks=[FailingExport()])


def test_each_epoch_has_one_line_and_lightning_is_quiet(dataset, tmp_path, caplog, capfd):
    with caplog.at_level(logging.INFO):
        train(dataset, tiny_network(), make_plan(epochs=2), tmp_path)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert capfd.readouterr() == ("", "")


def test_an_epoch_of_few_batches_takes_few_steps(tmp_path):
    dataset, plan = make_dataset(), make_plan(epochs=3, train_batches=2, val_batches=1)

    trained = train(dataset, tiny_network(), plan, tmp_path)

    last = torch.load(checkpoint(tmp_path, LAST_CHECKPOINT), weights_only=True)
    assert (trained.n_epochs, last["global_step"]) == (3, 6)
    assert len(trained.module.test_labels) == len(dataset.rows("test")), "all are judged"


def test_a_few_batches_are_learnt_by_heart(tmp_path):
    optimizer = replace(OPTIMIZER, early_stopping_patience=60)
    plan = make_plan(epochs=60, overfit_batches=1, batch_size=32, optimizer=optimizer)
    dataset = make_dataset()

    trained = train(dataset, tiny_network(dropout=0.0), plan, tmp_path)

    losses = trained.module.history["val_loss"]
    assert min(losses) < losses[0] / 2, "the labels of a random walk cannot be told otherwise"
    assert len(trained.module.test_labels) == len(dataset.rows("test"))
