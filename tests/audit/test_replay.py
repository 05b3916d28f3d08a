import os
import pty
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import warm_processes
from builders import drop_bars
from exported_models import (
    LOOKBACK,
    SMALL,
    bars_to_learn_from,
    export,
    make_dataset,
    make_draft,
    random_network,
)

from percoin.audit import replay as replay_module
from percoin.audit.findings import FindingStatus
from percoin.audit.replay import TOLERANCE, Replay, ReplayedSignal, Step, replay, replay_market
from percoin.audit.served import check_served_scaling
from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.bars.store import BarStore
from percoin.errors import ModelNotFoundError, NotEnoughBarsError
from percoin.features import indicators
from percoin.features.feature_set import WARM_UP_BARS, history_bars
from percoin.features.scaling import Scaling
from percoin.inference import Backend, Predictor
from percoin.registry.artifact import export_artifact
from percoin.registry.manifest import ScalingNumbers, StoredVerdict
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.training.onnx_export import export_onnx
from percoin.types import Prediction, Signal, Timeframe

HISTORY = history_bars(LOOKBACK)
M15 = Timeframe.M15


def halted(bars: Bars, start: int, stop: int) -> Bars:
    """The same bars with an exchange halt: a price that stands still, and no volume."""
    frame = bars.frame.copy()
    price = frame["close"].iloc[start - 1]
    frame.iloc[start:stop, :4] = price
    frame.iloc[start:stop, frame.columns.get_loc("volume")] = 0.0
    frame.iloc[stop, frame.columns.get_loc("open")] = price
    frame["high"] = frame[["open", "high", "close"]].max(axis=1)
    frame["low"] = frame[["open", "low", "close"]].min(axis=1)
    return replace(bars, frame=frame)


# Two gaps, the second of 12 bars, and a halt of 5 bars; 1,600 bars are left.
ODD = drop_bars(halted(bars_to_learn_from(1613), 1450, 1455), [1240, *range(1320, 1332)])
N_REPLAYED = 400


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network, served for the market with gaps and a halt."""
    root = tmp_path_factory.mktemp("models")
    export(root, random_network(), make_dataset(ODD))
    return root


def replayed_by(predictor: Predictor, models: Path, n_bars: int = 150) -> Replay:
    return replay(predictor, Predictor(models).model("BTCUSDT", M15), ODD, n_bars)


def test_live_says_what_the_batch_says_through_gaps_and_a_halt(models: Path) -> None:
    found = replay_market(models, ODD, N_REPLAYED)

    assert (len(found.steps), found.n_gaps, found.n_silent_bars) == (N_REPLAYED, 2, 5)
    assert found.differing == []
    assert found.largest_difference is not None
    assert found.largest_difference <= TOLERANCE
    # The answers must differ from bar to bar, or equality would prove nothing.
    answers = np.array([step.live.probabilities for step in found.compared if step.live])
    assert answers.std(axis=0).max() > 0.05
    # A window of 60 after each gap, and with it 20 bars of volatility that reach into the
    # next window; after the halt the bar after each of its bars.
    reasons = {str(silence["reason"]) for silence in found.silences()}
    assert "a gap lies in the window" in reasons
    assert "volume_change not defined on every bar of the window" in reasons
    n_silent = sum(step.answered_by == "nobody" for step in found.steps)
    assert n_silent + len(found.compared) == N_REPLAYED
    assert n_silent == 2 * (60 + 19) + 64
    assert [finding.status for finding in found.findings()] == [FindingStatus.OK, FindingStatus.OK]


def test_a_young_market_is_replayed_from_its_first_bar_on(tmp_path: Path) -> None:
    bars = ODD.slice(0, 450)
    export(tmp_path, random_network(), make_dataset(bars))
    found = replay_market(tmp_path, bars)

    assert len(found.steps) == 450
    assert found.differing == []
    assert len(found.compared) == 450 - (WARM_UP_BARS + LOOKBACK - 1)
    assert found.n_gaps == 0
    [silence] = found.silences()
    assert silence["reason"] == "the first bars of the history only warm up the indicators"


def test_where_the_stored_history_begins_late_live_rightly_waits(models: Path) -> None:
    later = ODD.slice(200, 1230)
    found = replay_market(models, later, len(later) - 900)

    waiting = [step for step in found.steps if step.is_warm_up]
    assert found.differing == []
    assert {step.reason for step in waiting} == {f"live waits for {HISTORY} bars"}
    assert {step.answered_by for step in waiting} == {"batch"}
    assert waiting[-1].closed == later.close_time(HISTORY - 2)
    assert f"no answer on {len(waiting)}, as it should be" in found.findings()[1].evidence


def test_more_bars_than_there_are_means_all_of_them(models: Path) -> None:
    assert len(replay_market(models, ODD.slice(0, 120), 5000).steps) == 120


def test_nothing_to_compare_is_no_success(models: Path) -> None:
    found = replay_market(models, ODD.slice(0, 100))

    assert found.largest_difference is None
    assert found.findings()[0].status is FindingStatus.CANNOT_TELL
    assert found.findings()[0].evidence.startswith(
        "no bar has an answer from both sides: 100 bars from 2024-01-01 00:15 to "
    )


def test_a_market_without_a_model_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="BTCUSDT 15m"):
        replay_market(tmp_path, ODD)


# --- Divergences, planted in the live path


class OneBarTooFew(Predictor):
    """The volatility of 19 returns in place of 20."""

    def predict(self, bars: Bars) -> Prediction:
        with changed(indicators, "VOLATILITY_BARS", indicators.VOLATILITY_BARS - 1):
            return super().predict(bars)


class ShiftedByOne(Predictor):
    """The window that ended one bar earlier."""

    def predict(self, bars: Bars) -> Prediction:
        return super().predict(bars.slice(0, len(bars) - 1))


class ClassesSwapped(Predictor):
    """SHORT and NO_TRADE have changed places, as in the system that percoin replaces."""

    def predict(self, bars: Bars) -> Prediction:
        prediction = super().predict(bars)
        assert prediction.probabilities is not None
        short, no_trade, long = prediction.probabilities
        return replace(prediction, probabilities=(no_trade, short, long))


class OtherDecision(Predictor):
    """The right probabilities, and not the signal that they speak for."""

    def predict(self, bars: Bars) -> Prediction:
        prediction = super().predict(bars)
        return replace(prediction, signal=Signal((prediction.signal + 1) % 3))


class MissingBarsFilled(Predictor):
    """Gaps closed with the bars before them, as a feed may do that does not say so."""

    def predict(self, bars: Bars) -> Prediction:
        frame = bars.frame.asfreq("15min").ffill().iloc[-len(bars) :]
        return super().predict(replace(bars, frame=frame))


@contextmanager
def changed(module: object, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@pytest.mark.parametrize("cheat", [OneBarTooFew, ShiftedByOne, ClassesSwapped, OtherDecision])
def test_a_planted_divergence_is_found_with_its_first_bar(
    models: Path, cheat: type[Predictor]
) -> None:
    found = replayed_by(cheat(models), models)

    assert len(found.differing) > 0.9 * len(found.compared)
    answers, _ = found.findings()
    assert answers.status is FindingStatus.DIFFERS
    first = next(step for step in found.differing if step.answered_by == "both")
    assert f"the first at {first.closed:%Y-%m-%d %H:%M} UTC: live " in answers.evidence
    assert found.to_json()["first_differing"] == found.differing[0].to_json()


def test_a_swapped_scaler_is_found(models: Path, tmp_path: Path) -> None:
    """The same weights and bars; live scales with what another market's rows gave."""
    others = replace(ODD, frame=bars_to_learn_from(1600, seed=1).frame)
    export(tmp_path, random_network(), make_dataset(others))
    found = replayed_by(Predictor(tmp_path), models)

    assert len(found.differing) > 0.9 * len(found.compared)
    assert found.findings()[0].status is FindingStatus.DIFFERS


def test_a_history_one_bar_too_short_is_found(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "newest_bars", lambda n_bars: n_bars - 1)
    found = replay_market(models, ODD.slice(100, 1230), 20)

    assert {step.answered_by for step in found.differing} == {"batch"}
    assert len(found.differing) == 20
    assert found.findings()[1].status is FindingStatus.DIFFERS
    assert "960 bars are too few" in found.findings()[1].evidence


def test_a_young_market_that_live_keeps_waiting_is_found(models: Path) -> None:
    """Its bars begin where training's did, so that there is nothing to wait for."""

    class Patient(Predictor):
        def predict(self, bars: Bars) -> Prediction:
            if len(bars) < HISTORY:
                raise NotEnoughBarsError(bars.symbol, bars.timeframe, "too few", "wait")
            return super().predict(bars)

    batch = Predictor(models).model("BTCUSDT", M15)
    found = replay(Patient(models), batch, ODD.slice(0, 300), 20)

    assert len(found.differing) == 20


def test_answers_in_a_gap_are_found_with_the_batchs_reason(models: Path) -> None:
    end = 1240 + 40
    batch = Predictor(models).model("BTCUSDT", M15)
    found = replay(MissingBarsFilled(models), batch, ODD.slice(0, end), 30)

    assert {step.answered_by for step in found.differing} == {"live"}
    silences = found.findings()[1]
    assert silences.status is FindingStatus.DIFFERS
    assert "only live answers 30 bars, the first at " in silences.evidence
    assert "batch nothing (a gap lies in the window)" in silences.evidence


def test_a_bar_that_live_alone_refuses_is_found_with_its_reason(models: Path) -> None:
    refused = ODD.close_time(1580)

    class Refusing(Predictor):
        def predict(self, bars: Bars) -> Prediction:
            if bars.close_time() == refused:
                raise NotEnoughBarsError(bars.symbol, bars.timeframe, "out of sorts", "wait")
            return super().predict(bars)

    found = replayed_by(Refusing(models), models, 40)

    [step] = found.differing
    assert (step.closed, step.answered_by, step.reason) == (refused, "batch", "out of sorts")
    assert "only batch answers 1 bar, the first at " in found.findings()[1].evidence
    assert found.to_json()["n_differing"] == 1


# --- What counts as a difference


def step(live: list[float], batch: list[float], signal: Signal | None = None) -> Step:
    answers = [np.array(live), np.array(batch)]
    signals = [Signal(int(values.argmax())) for values in answers]
    if signal is not None:
        signals[0] = signal
    sides = [
        ReplayedSignal(decided, values) for decided, values in zip(signals, answers, strict=True)
    ]
    return Step(pd.Timestamp("2025-01-01", tz="UTC"), *sides)


def test_two_classes_as_good_as_equal_may_swap_places() -> None:
    tie = step([0.400001, 0.4, 0.2], [0.4, 0.400001, 0.2])
    assert not tie.differs
    assert step([0.4, 0.3, 0.3], [0.4, 0.3, 0.3], Signal.LONG).differs


def test_no_number_is_a_difference() -> None:
    assert step([np.nan, 0.5, 0.5], [0.2, 0.4, 0.4], Signal.LONG).differs


@pytest.mark.parametrize(("distance", "differs"), [(0.9, False), (1.1, True)])
def test_the_tolerance_is_that_of_a_probability(distance: float, differs: bool) -> None:
    moved = distance * TOLERANCE
    assert step([0.5 - moved, 0.3 + moved, 0.2], [0.5, 0.3, 0.2]).differs is differs


# --- The model's own scaler, against training's


def export_with(root: Path, scaling: Scaling) -> None:
    """A model whose manifest says how to make its dataset again."""
    dataset = make_dataset(ODD)
    spec = dataset.spec.split_spec
    shares = dict(zip(("train", "validation", "test"), spec.fractions, strict=True))
    split = {**shares, "purge_bars": spec.purge_bars, "embargo_bars": spec.embargo_bars}
    draft = replace(
        make_draft(dataset, StoredVerdict.ACCEPTED, SMALL),
        config={"history_days": 3650, "split": split},
        scaling=ScalingNumbers.of(scaling),
    )
    weights = random_network().state_dict()
    record = TrainingRecord({}, TrainingHistory([1.1], [0.3], [1.1], [0.3]))
    export_artifact(root, draft, weights, weights, record)


def test_a_scaler_that_was_swapped_before_the_export_is_found(tmp_path: Path) -> None:
    honest = make_dataset(ODD).scaling
    export_with(tmp_path / "honest", honest)
    export_with(tmp_path / "swapped", Scaling(honest.mean_, honest.scale_ * 1.001))

    assert check_served_scaling(tmp_path / "honest", ODD).status is FindingStatus.OK
    swapped = check_served_scaling(tmp_path / "swapped", ODD)
    assert (swapped.check, swapped.status) == ("model: scaler knows train only", FindingStatus.LEAK)
    # Both sides of the replay scale with it, so that it alone would not tell.
    assert replay_market(tmp_path / "swapped", ODD, 5).differing == []


def test_without_the_bars_it_was_made_from_the_scaler_cannot_be_told_about(
    models: Path,
) -> None:
    assert check_served_scaling(models, ODD.slice(1)).status is FindingStatus.CANNOT_TELL


# --- Real bars


@pytest.mark.parametrize(
    ("symbol", "timeframe", "n_gaps", "n_silent_bars"),
    [
        # 2024-10-28: four bars without volume.
        ("BTCUSDT", M15, 0, 4),
        # 2023-03-24: 14 bars without volume, then 16 that are missing.
        ("SUSDT", Timeframe.M5, 1, 14),
    ],
)
def test_real_bars_are_replayed_through_an_exchange_halt(
    klines: Path,
    tmp_path: Path,
    symbol: str,
    timeframe: Timeframe,
    n_gaps: int,
    n_silent_bars: int,
) -> None:
    bars = FilesSource(klines).load(symbol, timeframe)
    halt = int(np.flatnonzero(bars.column("volume") == 0)[0])
    bars = bars.slice(halt - 2500, halt + 200)
    export(tmp_path, random_network(), make_dataset(bars))
    found = replay_market(tmp_path, bars, 300)

    assert (found.n_gaps, found.n_silent_bars) == (n_gaps, n_silent_bars)
    assert found.differing == []
    assert found.largest_difference is not None
    assert found.largest_difference <= TOLERANCE
    assert len(found.compared) > 200
    assert [finding.status for finding in found.findings()] == [FindingStatus.OK, FindingStatus.OK]


# --- ONNX Runtime


@pytest.mark.slow
def test_onnx_says_live_what_torch_says_in_the_batch(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install 'percoin[onnx]'")
    dataset, network = make_dataset(ODD), random_network()
    windows = dataset.windows[dataset.rows("validation")[:8] - LOOKBACK + 1]
    weights = network.state_dict()
    record = TrainingRecord({}, TrainingHistory([1.1], [0.3], [1.1], [0.3]))
    draft = make_draft(dataset, StoredVerdict.ACCEPTED, SMALL)
    content = export_onnx(network, windows, ("BTCUSDT", "15m"))
    export_artifact(tmp_path, draft, weights, weights, record, content)
    found = replay_market(tmp_path, ODD, 100, Backend.ONNX)

    assert found.differing == []
    assert found.largest_difference is not None
    # It is another library: to the last bit they would hardly agree.
    assert 0 < found.largest_difference <= TOLERANCE


# --- A terminal


def test_a_terminal_sees_a_progress_bar(models: Path, tmp_path: Path) -> None:
    BarStore(tmp_path / "data" / "bars").write(ODD)
    main, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    os.set_blocking(main, False)
    arguments = ("symbol=BTCUSDT", "tf=15m", "replay=true", "replay_bars=5")
    command = ("-m", "percoin.audit", *arguments, f"models_dir={models}")
    with warm_processes.Process(command, tmp_path, stderr=terminal) as process:
        stdout, _ = process.communicate(240)
    shown = os.read(main, 65536).decode()
    os.close(terminal)
    os.close(main)

    assert process.returncode == 0
    assert "replay BTCUSDT 15m" in shown
    assert "5 of 5 bars" in stdout
