"""Many markets in one call, and one predictor for threads while versions change under it."""

import errno
import itertools
import os
import shutil
import threading
import time
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from builders import drop_bars
from exported_models import LOOKBACK, bars_to_learn_from, export, make_dataset, random_network

from percoin import Predictor
from percoin.bars.panel import with_panel
from percoin.errors import ConfigError, InvalidArtifactError, ModelNotFoundError, NotEnoughBarsError
from percoin.features.feature_set import FeatureDefinition, history_bars
from percoin.inference import Answers, NoPrediction, NoPredictionReason, find_levels
from percoin.registry import artifact, publish
from percoin.registry.layout import MANIFEST_FILE, SERVED_WEIGHTS_FILE, MarketFolder
from percoin.types import Prediction, Signal, Timeframe

BARS = bars_to_learn_from(1200)
MARKET = ("BTCUSDT", Timeframe.M15)


def market(symbol: str, seed: int, n_bars: int = 1200, **kwargs):
    bars = bars_to_learn_from(n_bars, symbol=symbol, seed=seed, **kwargs)
    return bars, random_network(seed=seed)


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Path:
    """Ten markets: two definitions, extra columns, three timeframes, one that is young."""
    root = tmp_path_factory.mktemp("ten")
    for seed, (bars, definition) in enumerate(zip(markets(), definitions(), strict=True)):
        # Of each timeframe one model of three, with as many columns as its timeframe has.
        dataset = make_dataset(bars, definition, extra_of(seed))
        export(root, random_network(seed=seed, n_features=len(dataset.feature_names)), dataset)
    return root


def extra_of(seed: int) -> tuple[str, ...]:
    return (("volatility", "clock"), (), ("clock",))[seed // 3] if seed < 9 else ()


def markets():
    frames = [Timeframe.M15, Timeframe.H1, Timeframe.H4]
    ten = [
        bars_to_learn_from(1200, symbol=f"COIN{k}USDT", seed=k, timeframe=frames[k % 3])
        for k in range(9)
    ]
    return [*ten, bars_to_learn_from(500, symbol="YOUNGUSDT", seed=9)]


def definitions():
    return [list(FeatureDefinition)[k % 2] for k in range(10)]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_many_at_once_are_each_as_alone(registry, workers):
    together = Predictor(registry, workers=workers).predict_many(markets())
    alone = [Predictor(registry).predict(bars) for bars in markets()]

    assert together.missing == ()
    for found, expected in zip(together.predictions, alone, strict=True):
        # A library may add up in another order where its input lies elsewhere in memory.
        probabilities = found.probabilities
        assert probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert replace(expected, probabilities=probabilities, confidence=found.confidence) == found
        assert found.confidence == max(probabilities)
    assert len({prediction.probabilities for prediction in together.predictions}) == 10
    assert {prediction.signal for prediction in together} > {Signal.NO_TRADE}


def test_a_market_may_be_asked_twice_and_nobody_at_all(registry):
    bars = markets()[0]
    predictor = Predictor(registry)
    twice = predictor.predict_many([bars, bars.slice(0, 1100), bars])

    assert [answer.ts for answer in twice] == [
        bars.close_time(position) for position in (-1, 1099, -1)
    ]
    assert twice[0].probabilities == pytest.approx(twice[2].probabilities, abs=1e-6)
    assert twice[0].probabilities != pytest.approx(twice[1].probabilities, abs=1e-6)
    assert list(predictor.predict_many([])) == []
    assert predictor.predict_many([]).to_frame().empty


def test_one_bad_market_of_each_kind_leaves_the_others_their_answers(tmp_path):
    good = [bars for bars, network in (market("AUSDT", 1), market("BUSDT", 2))]
    for seed, bars in enumerate([*good, *map(renamed, ("BROKENUSDT", "FORGEDUSDT", "NANUSDT"))]):
        export(tmp_path, random_network(seed=seed), make_dataset(bars))
    damage(tmp_path, "BROKENUSDT", SERVED_WEIGHTS_FILE)
    damage(tmp_path, "FORGEDUSDT", MANIFEST_FILE)
    asked = [
        good[0],
        renamed("MISSINGUSDT"),
        renamed("BROKENUSDT"),
        renamed("FORGEDUSDT"),
        good[0].slice(300),
        drop_bars(good[0], [1150]),
        good[0].slice(0, 0),
        replace(good[0], frame=good[0].frame.drop(columns="volume")),
        replace(good[0], frame=good[0].frame.astype({"close": str}).assign(close="x")),
        replace(good[0], frame=good[0].frame.reset_index(drop=True)),
        replace(good[0], frame=good[0].frame * float("nan")),
        replace(good[0], frame=good[0].frame * np.where(np.arange(1200) == 1190, -1, 1)[:, None]),
        replace(good[0], frame=good[0].frame * np.where(np.arange(1200) == 1190, 0, 1)[:, None]),
        renamed("../../etc"),
        good[1],
    ]
    answers = Predictor(tmp_path).predict_many(asked)
    reasons = [answer.reason for answer in answers.missing]

    assert isinstance(answers[0], Prediction)
    assert isinstance(answers[-1], Prediction)
    assert reasons == [
        NoPredictionReason.MODEL_MISSING,
        NoPredictionReason.MODEL_INVALID,
        NoPredictionReason.MODEL_INVALID,
        *[NoPredictionReason.INSUFFICIENT_DATA] * 3,
        *[NoPredictionReason.INVALID_BARS] * 7,
    ]
    for answer, bars in zip(answers, asked, strict=True):
        assert (answer.symbol, answer.timeframe) == (bars.symbol, bars.timeframe)
    for missing in answers.missing:
        assert "\n" not in missing.detail
        assert missing.symbol in missing.detail


def test_a_market_without_a_model_still_serves_as_a_reference(tmp_path):
    asked = [bars_to_learn_from(1200, symbol=f"COIN{k}USDT", seed=k) for k in range(3)]
    names = tuple(bars.symbol for bars in asked)
    dataset = make_dataset(with_panel(asked[0], asked), extra=("market",), references=names)
    network = random_network(n_features=len(dataset.feature_names))
    export(tmp_path, network, dataset)
    first, second, third = Predictor(tmp_path).predict_many(asked)
    alone = Predictor(tmp_path).predict(with_panel(asked[0], asked))
    assert first.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    assert [second.reason, third.reason] == [NoPredictionReason.MODEL_MISSING] * 2
    [lacking] = Predictor(tmp_path).predict_many(asked[:1])
    assert lacking.reason is NoPredictionReason.INSUFFICIENT_DATA


def renamed(symbol: str):
    return replace(BARS, symbol=symbol)


def damage(root: Path, symbol: str, name: str) -> None:
    path = root / "per_coin" / symbol / "15m" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_many_give_as_an_answer_one_raises(tmp_path):
    export(tmp_path, random_network(), make_dataset(BARS))
    predictor = Predictor(tmp_path)
    for bars, kind in (
        (renamed("ETHUSDT"), ModelNotFoundError),
        (BARS.slice(1000), NotEnoughBarsError),
        (renamed("../x"), ConfigError),
    ):
        with pytest.raises(kind) as raised:
            predictor.predict(bars)
        [answer] = predictor.predict_many([bars])
        assert isinstance(answer, NoPrediction)
        assert answer.detail == str(raised.value)


def test_weights_that_overflow_are_an_invalid_model_not_a_nan(tmp_path):
    network = random_network()
    for layer in (0, 4, 8):
        network.head[layer].weight.data *= 1e30
    export(tmp_path, network, make_dataset(BARS))

    with pytest.raises(
        InvalidArtifactError,
        match=r"BTCUSDT 15m: version .* gives no valid answer: logits are not finite",
    ):
        Predictor(tmp_path).predict(BARS)
    [answer] = Predictor(tmp_path).predict_many([BARS])
    assert isinstance(answer, NoPrediction)
    assert answer.reason is NoPredictionReason.MODEL_INVALID


@pytest.mark.parametrize("definition", list(FeatureDefinition))
@pytest.mark.parametrize("signal", [Signal.SHORT, Signal.LONG])
def test_levels_are_those_of_the_bars_whatever_the_features(tmp_path, definition, signal):
    export(tmp_path, random_network(signal), make_dataset(BARS, definition))
    [prediction] = Predictor(tmp_path).predict_many([BARS])
    found, expected = (astuple(levels) for levels in (prediction.levels, find_levels(BARS, signal)))

    assert found == pytest.approx(expected, rel=1e-12)


def test_answers_as_a_table(tmp_path):
    export(tmp_path, random_network(Signal.LONG), make_dataset(BARS))
    answers = Predictor(tmp_path).predict_many([BARS, renamed("ETHUSDT")])
    frame = answers.to_frame()
    known, missing = frame.iloc[0], frame.iloc[1]
    [prediction] = answers.predictions

    assert frame["symbol"].tolist() == ["BTCUSDT", "ETHUSDT"]
    assert (known["signal"], known["tf"], known["ts"]) == ("LONG", "15m", BARS.close_time())
    assert known[["SHORT", "NO_TRADE", "LONG"]].tolist() == list(prediction.probabilities)
    assert known["tp3"] == prediction.levels.tp3
    assert known["version_id"] == prediction.version_id
    assert known[["reason", "detail"]].isna().all()
    assert missing["reason"] == "model_missing"
    assert missing[["signal", "confidence", "LONG", "entry_price"]].isna().all()
    assert isinstance(answers[:1], Answers)
    assert answers[:1].to_frame().equals(frame[:1])


# --- Versions that change


def versions(root: Path) -> dict[str, Signal]:
    """Two versions, of which one always says SHORT and the other LONG."""
    made = {}
    for signal in (Signal.SHORT, Signal.LONG):
        folder = export(root, random_network(signal), make_dataset(BARS))
        made[folder.name] = signal
    return made


def serve_version(root: Path, version_id: str) -> None:
    folder = MarketFolder(root, *MARKET)
    aside = folder.temporary("link")
    aside.symlink_to(folder.link_target(version_id))
    aside.replace(folder.link)


def test_a_model_is_loaded_once_and_again_when_another_is_served(tmp_path, caplog):
    first, second = versions(tmp_path)
    predictor = Predictor(tmp_path)
    caplog.set_level("INFO")

    loaded = predictor.model(*MARKET)
    assert predictor.predict(BARS).version_id == second
    assert predictor.model(*MARKET) is loaded
    assert [record.getMessage() for record in caplog.records] == [
        "Loaded metadata: BTCUSDT 15m",
        "Loaded model: BTCUSDT 15m (features=15)",
        "Loaded scaler: BTCUSDT 15m",
    ]
    serve_version(tmp_path, first)
    assert (predictor.predict(BARS).version_id, predictor.predict(BARS).signal) == (first, 0)
    serve_version(tmp_path, second)
    [answer] = predictor.predict_many([BARS])
    assert answer.version_id == second
    assert len(caplog.records) == 9


def test_a_market_that_loses_its_model_loses_its_answers(tmp_path):
    export(tmp_path, random_network(), make_dataset(BARS))
    predictor = Predictor(tmp_path)
    predictor.predict(BARS)
    MarketFolder(tmp_path, *MARKET).link.unlink()

    with pytest.raises(ModelNotFoundError):
        predictor.predict(BARS)
    export(tmp_path, random_network(Signal.LONG), make_dataset(BARS))
    assert predictor.predict(BARS).signal is Signal.LONG


def test_a_plain_folder_in_the_links_place_is_noticed_when_it_changes(tmp_path):
    source = tmp_path / "source"
    first, second = versions(source)
    plain = tmp_path / "plain" / "per_coin" / "BTCUSDT" / "15m"
    shutil.copytree(MarketFolder(source, *MARKET).version(first), plain)
    predictor = Predictor(tmp_path / "plain")
    model = predictor.model(*MARKET)

    assert predictor.predict(BARS).signal is Signal.SHORT
    assert predictor.model(*MARKET) is model
    shutil.rmtree(plain)
    shutil.copytree(MarketFolder(source, *MARKET).version(second), plain)
    assert predictor.predict(BARS).signal is Signal.LONG


def test_threads_get_whole_answers_while_versions_change_and_vanish(tmp_path):
    made, dataset = versions(tmp_path), make_dataset(BARS)
    predictor = Predictor(tmp_path, workers=2)
    stop = threading.Event()
    answers: list[Prediction] = []
    failures: list[Exception] = []

    def ask(many: bool) -> None:
        try:
            while not stop.is_set():
                answers.extend(
                    predictor.predict_many([BARS] * 3).answers
                    if many
                    else [predictor.predict(BARS)]
                )
        except Exception as error:  # noqa: BLE001 - whatever a thread ends with is to be seen
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(k % 2 == 0,), daemon=True) for k in range(8)]
    for thread in threads:
        thread.start()
    # Each new version is served by its export; the one before goes, as by a pruning.
    turns, give_up_at = itertools.count(), time.monotonic() + 60
    served = next(reversed(made))

    def answered() -> set[str]:
        return {answer.version_id for answer in list(answers)}

    # On a busy machine the threads may take longer to get a turn than a few changes last.
    while (turn := next(turns)) < 8 or (
        len(answered()) < 4 and not failures and time.monotonic() < give_up_at
    ):
        signal = (Signal.SHORT, Signal.LONG)[turn % 2]
        folder = export(tmp_path, random_network(signal), dataset)
        made[folder.name] = signal
        shutil.rmtree(folder.with_name(served))
        served = folder.name
    stop.set()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(answered()) >= 4
    assert {(answer.version_id, answer.signal) for answer in answers} <= set(made.items())
    assert predictor.predict(BARS).version_id == served


def test_a_version_that_vanishes_while_it_is_read_gives_way_to_the_next(tmp_path, monkeypatch):
    first, second = versions(tmp_path)
    read_manifest = artifact.read_manifest

    def read_late(market, folder):
        if folder.name == second:
            serve_version(tmp_path, first)
            shutil.rmtree(folder)
        return read_manifest(market, folder)

    monkeypatch.setattr(artifact, "read_manifest", read_late)
    assert Predictor(tmp_path).predict(BARS).version_id == first


def test_a_version_that_vanishes_once_its_link_is_read_gives_way_to_the_next(tmp_path, monkeypatch):
    first, second = versions(tmp_path)
    checked_folder = publish._checked_folder

    def check_late(market, target):
        if target == market.link_target(second):
            serve_version(tmp_path, first)
            shutil.rmtree(market.version(second))
        return checked_folder(market, target)

    monkeypatch.setattr(publish, "_checked_folder", check_late)
    assert Predictor(tmp_path).predict(BARS).version_id == first


def test_what_could_not_be_read_for_a_moment_is_read_again(tmp_path, monkeypatch):
    """No free file descriptor, then a file that is not there yet: the version is whole."""
    folder = export(tmp_path, random_network(), make_dataset(BARS)).resolve()
    predictor, opened = Predictor(tmp_path), os.open

    def refuse(path, *args, **kwargs):
        if Path(path).name == SERVED_WEIGHTS_FILE:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        [missing] = predictor.predict_many([BARS])
    assert missing.reason is NoPredictionReason.MODEL_INVALID
    assert "Too many open files; it is read again" in missing.detail
    assert "train the model again" not in missing.detail

    weights = (folder / SERVED_WEIGHTS_FILE).rename(tmp_path / "on-its-way")
    [missing] = predictor.predict_many([BARS])
    assert missing.reason is NoPredictionReason.MODEL_INVALID
    weights.rename(folder / SERVED_WEIGHTS_FILE)
    [answer] = predictor.predict_many([BARS])
    assert answer.version_id == folder.name


def test_many_threads_load_a_model_once(tmp_path, caplog):
    export(tmp_path, random_network(), make_dataset(BARS))
    caplog.set_level("INFO")
    predictor = Predictor(tmp_path)
    barrier = threading.Barrier(8)
    found = []

    def load() -> None:
        barrier.wait()
        found.append(predictor.model(*MARKET))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert len(caplog.records) == 3


def test_the_models_of_many_markets_are_loaded_at_once_and_a_broken_one_says_why_later(tmp_path):
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    bars = [replace(BARS, symbol=symbol) for symbol in symbols]
    folders = [export(tmp_path, random_network(), make_dataset(each)) for each in bars]
    (folders[1] / SERVED_WEIGHTS_FILE).write_bytes(b"")
    predictor = Predictor(tmp_path, workers=2)
    missing = ("XRPUSDT", Timeframe.M15)
    predictor.preload([*((symbol, Timeframe.M15) for symbol in symbols), missing])

    for folder in folders:
        (folder / MANIFEST_FILE).rename(folder / "away")
    assert {predictor.predict(bars[k]).version_id for k in (0, 2)} == {
        folders[k].name for k in (0, 2)
    }
    (folders[1] / "away").rename(folders[1] / MANIFEST_FILE)
    with pytest.raises(InvalidArtifactError, match=r"was changed after the export|is empty"):
        predictor.predict(bars[1])
    with pytest.raises(ModelNotFoundError):
        predictor.model(*missing)


def test_markets_without_a_model_are_looked_up_once_for_each_question(tmp_path, monkeypatch):
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    asked = []
    load = artifact.load_fastest
    monkeypatch.setattr(
        "percoin.inference.predictor.load_fastest",
        lambda *market: (asked.append(market[1]), load(*market))[1],
    )
    predictor = Predictor(tmp_path, workers=1)
    bars = [replace(BARS, symbol=symbol) for symbol in symbols]
    predictor.predict_many(bars)
    asked.clear()
    assert len(predictor.predict_many(bars).missing) == 3
    assert sorted(asked) == sorted(symbols)


# --- A range


HISTORY = history_bars(LOOKBACK)


def test_a_range_says_of_each_bar_what_was_said_when_it_closed(tmp_path):
    bars = drop_bars(bars_to_learn_from(1300), range(1150, 1153))
    export(tmp_path, random_network(), make_dataset(bars))
    predictor = Predictor(tmp_path)
    index = bars.frame.index
    answers = predictor.predict_range(bars, index[1100], index[1250], in_sample=True)

    assert len(answers) == 151
    assert answers.open_time.equals(index[1100:1251])
    for position in range(1100, 1251, 10):
        seen = bars.slice(position + 1 - HISTORY, position + 1)
        [live] = predictor.predict_many([seen])
        found = answers.probabilities[position - 1100]
        if isinstance(live, NoPrediction):
            assert np.isnan(found).all()
        else:
            np.testing.assert_allclose(found, live.probabilities, atol=1e-5)
            assert answers.signal[position - 1100] == live.signal
    n_unknown = np.isnan(answers.probabilities).any(axis=1).sum()
    assert n_unknown == (answers.signal == -1).sum() > LOOKBACK


@pytest.mark.parametrize("first", [None, 0, 100, 700, HISTORY - 1, HISTORY, 1100])
def test_bars_whose_indicators_remember_the_start_have_no_answer(tmp_path, first):
    export(tmp_path, random_network(), make_dataset(bars_to_learn_from(2000)))
    late = bars_to_learn_from(2000).slice(700)
    index = late.frame.index
    answers = Predictor(tmp_path).predict_range(
        late, None if first is None else index[first], in_sample=True
    )

    n_unknown = max(0, HISTORY - 1 - (first or 0))
    assert len(answers) == 1300 - (first or 0)
    assert np.isnan(answers.probabilities[:n_unknown]).all()
    assert np.isfinite(answers.probabilities[n_unknown:]).all()


def test_bars_from_the_start_of_training_have_answers_from_the_warm_up_on(tmp_path):
    export(tmp_path, random_network(), make_dataset(BARS))
    answers = Predictor(tmp_path).predict_range(BARS, in_sample=True)

    assert np.flatnonzero(answers.signal >= 0)[0] == 49 + LOOKBACK - 1


@pytest.mark.parametrize(
    ("first", "last", "n_bars"),
    [
        ("2024-01-12", "2024-01-12 00:00", 1),
        ("2024-01-12", "2024-01-12", 96),
        ("2024-01-12 00:01", "2024-01-12 01:00", 4),
        ("2024-01-12T02:00+02:00", "2024-01-12T00:00Z", 1),
        ("2020-01-01", "2020-01-02", 0),
        ("2030-01-01", None, 0),
        (None, "2023-12-31", 0),
    ],
)
def test_a_range_is_given_by_open_times_with_both_ends_in_it(tmp_path, first, last, n_bars):
    export(tmp_path, random_network(), make_dataset(BARS))
    answers = Predictor(tmp_path).predict_range(BARS, first, last, in_sample=True)

    assert len(answers) == len(answers.to_frame()) == n_bars
    with pytest.raises(ValueError, match="the range ends on 2024-01-01, before it begins"):
        Predictor(tmp_path).predict_range(BARS, "2024-01-02", "2024-01-01", in_sample=True)


def test_a_range_without_bars_is_empty_and_a_warning_says_where_the_bars_lie(tmp_path, caplog):
    export(tmp_path, random_network(), make_dataset(BARS))
    answers = Predictor(tmp_path).predict_range(BARS, "2031-01-01", in_sample=True)

    assert len(answers) == 0
    said = caplog.records[-1].getMessage()
    assert "BTCUSDT 15m: no bar opens in the asked range" in said
    assert said.endswith(f"from {BARS.frame.index[0]} to {BARS.frame.index[-1]}")


def test_a_range_as_a_table(tmp_path):
    export(tmp_path, random_network(), make_dataset(BARS))
    answers = Predictor(tmp_path).predict_range(
        BARS, BARS.frame.index[90], BARS.frame.index[120], in_sample=True
    )
    frame = answers.to_frame()
    unknown, known = frame.iloc[0], frame.iloc[-1]

    assert frame.index.equals(BARS.frame.index[90:121])
    assert (frame["ts"] - frame.index == Timeframe.M15.timedelta).all()
    assert known["signal"] == Signal(known[["SHORT", "NO_TRADE", "LONG"]].argmax()).name
    assert known["confidence"] == known[["SHORT", "NO_TRADE", "LONG"]].max()
    assert unknown[["signal", "confidence", "SHORT", "NO_TRADE", "LONG"]].isna().all()


def test_an_empty_history_has_an_empty_range(tmp_path):
    export(tmp_path, random_network(), make_dataset(BARS))
    answers = Predictor(tmp_path).predict_range(BARS.slice(0, 0), in_sample=True)

    assert len(answers) == 0
    assert answers.to_frame().empty


def test_a_single_window_is_not_shared_out_and_the_setting_stays(tmp_path):
    import torch

    export(tmp_path, random_network(), make_dataset(BARS))
    predictor = Predictor(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    predictor.predict(BARS)
    predictor.predict_many([BARS, BARS])
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_history_longer_than_needed_changes_nothing(tmp_path):
    export(tmp_path, random_network(), make_dataset(BARS))
    predictor = Predictor(tmp_path)

    short = predictor.predict(BARS.slice(len(BARS) - HISTORY))
    assert predictor.predict(BARS).levels == short.levels
    assert predictor.predict(BARS).probabilities == pytest.approx(short.probabilities, abs=1e-6)
