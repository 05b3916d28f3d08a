"""Exact dates: ``start`` and ``end`` choose the same bars for ever."""

import logging
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from builders import make_bars, write_parquet

from percoin.bars.schema import Bars
from percoin.cli import compose_config
from percoin.config import AuditConfig, FetchConfig, JudgeConfig, SignalsConfig, TrainConfig, typed
from percoin.dataset import DatasetSpec, build_dataset
from percoin.errors import ConfigError, NotEnoughBarsError
from percoin.labels import FixedHorizon
from percoin.training.folds import load_bars, make_folds, n_bars_to_load
from percoin.training.recipes.pool import build_pool
from percoin.tuning.rows import SearchRows
from percoin.types import Timeframe

H1 = Timeframe.H1
RULE = FixedHorizon(horizon=3, threshold=0.0025)
FIRST = pd.Timestamp("2024-01-01", tz="UTC")


def ms(text: str) -> int:
    return int(pd.Timestamp(text, tz="UTC").timestamp() * 1000)


def hourly(n_days: int) -> Bars:
    return make_bars(24 * n_days, timeframe=H1, start=FIRST)


def spec(start: str | None = None, end: str | None = None, **further) -> DatasetSpec:
    moments = {"start": start and ms(start), "end": end and ms(end)}
    return DatasetSpec(RULE, lookback=20, **{**moments, **further})


def settings(folder: Path, *words: str) -> TrainConfig:
    common = ("symbol=BTCUSDT", "tf=1h", "source=files", f"source.path={folder}", "lookback=20")
    folders = [f"{key}={folder}" for key in ("data_dir", "models_dir", "outputs_dir")]
    return typed(compose_config("train", [*common, *folders, *words]), TrainConfig)


def test_rows_open_from_start_on_and_no_bar_opens_at_end_or_later():
    made = build_dataset(hourly(200), spec("2024-03-01", "2024-05-01"))

    rows = [made.bars.open_time[made.rows(part)] for part in ("train", "validation", "test")]
    assert rows[0][0] == ms("2024-03-01")
    assert rows[2][-1] == ms("2024-05-01") - (1 + RULE.horizon) * H1.milliseconds
    assert made.bars.open_time[-1] == ms("2024-05-01") - H1.milliseconds
    assert made.bars.open_time[0] < ms("2024-03-01"), "indicators warm up before"


def test_the_same_dates_give_the_same_bars_however_many_there_are_by_then():
    dates = spec("2024-03-01", "2024-05-01")
    later = hourly(300)
    known = [later.slice(0, 24 * days) for days in (121, 150, 300)]
    hashes = {build_dataset(bars, dates).bars.sha256() for bars in known}

    assert len(hashes) == 1
    assert build_dataset(later, spec("2024-03-02", "2024-05-01")).bars.sha256() not in hashes


def test_without_a_start_the_history_is_counted_back_from_the_end():
    made = build_dataset(hourly(200), spec(end="2024-05-01", history_days=30))

    assert made.bars.open_time[made.rows("train")[0]] == ms("2024-04-01")


def test_a_time_of_day_is_taken_too():
    made = build_dataset(hourly(200), spec("2024-03-01 05:00", "2024-05-01 12:00"))

    assert made.bars.open_time[made.rows("train")[0]] == ms("2024-03-01 05:00")


def test_as_many_bars_are_asked_for_as_reach_back_to_the_start(tmp_path):
    wanted = n_bars_to_load(settings(tmp_path, "start=2024-01-01", "end=2024-02-01"))
    since_then = (pd.Timestamp.now(tz="UTC") - FIRST) // pd.Timedelta(hours=1)

    assert since_then + 20 < wanted < since_then + 2000


@pytest.mark.parametrize(
    ("start", "end"), [("2025-01-01", None), (None, "2023-06-01"), ("2023-01-01", "2023-02-01")]
)
def test_dates_without_bars_are_named_with_the_bars_that_there_are(start, end):
    with pytest.raises(NotEnoughBarsError) as caught:
        build_dataset(hourly(90), spec(start, end))

    line = str(caught.value)
    assert line.startswith("BTCUSDT 1h: no bars ")
    assert "there are bars from 2024-01-01 00:00 to 2024-03-31 00:00 UTC; give other dates" in line


def test_too_few_rows_between_the_dates_are_told_with_the_dates():
    with pytest.raises(
        NotEnoughBarsError, match=r"bars from 2024-03-01 00:00 and before 2024-03-0"
    ):
        build_dataset(hourly(90), spec("2024-03-01", "2024-03-02"))


def test_a_training_loads_the_bars_between_its_dates_and_stores_all(tmp_path):
    bars = hourly(200)
    write_parquet(bars, tmp_path / "BTCUSDT" / "1h.parquet")
    dated = settings(tmp_path, "start=2024-03-01", "end=2024-05-01")

    loaded = load_bars(dated)

    assert loaded.open_time[-1] == ms("2024-05-01") - H1.milliseconds
    (fold,) = make_folds(dated, loaded)
    assert fold.bars.open_time[fold.rows("train")[0]] == ms("2024-03-01")
    assert len(load_bars(settings(tmp_path))) == len(bars)


def test_bars_that_reach_less_far_than_the_dates_are_a_warning(tmp_path, caplog):
    write_parquet(hourly(100), tmp_path / "BTCUSDT" / "1h.parquet")

    with caplog.at_level(logging.WARNING):
        load_bars(settings(tmp_path, "start=2024-02-01", "end=2024-04-01"))
        assert caplog.messages == []
        load_bars(settings(tmp_path, "start=2024-02-01", "end=2024-06-01"))
    assert "less far than start=2024-02-01 and end=2024-06-01 ask for" in caplog.text


def test_a_search_has_the_rows_of_the_dates(tmp_path):
    dated = settings(tmp_path, "start=2024-03-01", "end=2024-06-01")
    rows = SearchRows.of(
        dated, dated_bars := DatasetSpec(RULE, end=ms("2024-06-01")).in_dates(hourly(200))
    )

    assert rows.first_time == ms("2024-03-01")
    made = rows.dataset(dated)
    assert made.bars.open_time[made.rows("train")[0]] == ms("2024-03-01")
    assert made.bars.open_time[-1] < rows.end_time <= dated_bars.open_time[-1]


def test_a_pool_begins_at_the_start():
    markets = [replace(hourly(150), symbol=name) for name in ("BTCUSDT", "ETHUSDT")]

    pool = build_pool(markets, [], spec("2024-03-01"))

    assert pool.cuts.first_time == ms("2024-03-01")


@pytest.mark.parametrize(
    ("name", "schema", "words"),
    [
        ("audit", AuditConfig, []),
        ("signals", SignalsConfig, ["symbol=BTCUSDT"]),
        ("judge", JudgeConfig, ["symbol=BTCUSDT", "forecasts=f.csv"]),
    ],
)
def test_the_commands_that_make_datasets_take_dates(name, schema, words):
    from percoin.assembly import dataset_spec

    made = typed(compose_config(name, [*words, "start=2024-01-01", "end=2024-06-01"]), schema)

    assert (dataset_spec(made).start, dataset_spec(made).end) == (
        ms("2024-01-01"),
        ms("2024-06-01"),
    )
    with pytest.raises(ConfigError, match="is not before end="):
        typed(compose_config(name, [*words, "start=2024-06-01", "end=2024-06-01"]), schema)


def test_fetching_takes_a_start():
    words = ["symbol=[BTCUSDT]", "start=2024-01-01"]
    assert typed(compose_config("fetch", words), FetchConfig).start == "2024-01-01"
    with pytest.raises(ConfigError, match="is in the future"):
        typed(compose_config("fetch", [*words[:1], "start=2999-01-01"]), FetchConfig)


def first_and_last(fold, part: str = "test") -> tuple[int, int]:
    times = fold.bars.open_time[fold.rows(part)]
    return int(times[0]), int(times[-1])


def test_no_test_row_opens_before_the_moment_that_a_training_names(tmp_path):
    words = ("start=2024-03-01", "end=2024-05-01")
    (plain,) = make_folds(settings(tmp_path, *words), hourly(150))
    (later,) = make_folds(settings(tmp_path, *words, "test_from=2024-04-26T06:00"), hourly(150))

    assert first_and_last(plain)[0] < ms("2024-04-26")
    assert first_and_last(later) == (ms("2024-04-26T06:00"), first_and_last(plain)[1])
    for part in ("train", "validation"):
        assert first_and_last(later, part) == first_and_last(plain, part)
    # On later bars the test part begins later by itself.
    newer = settings(tmp_path, "history_days=60", "test_from=2024-04-26T06:00")
    assert first_and_last(make_folds(newer, hourly(200))[0])[0] > ms("2024-07-01")


def test_in_a_walk_forward_only_the_folds_before_the_moment_lose_test_rows(tmp_path):
    words = ("evaluation=walk_forward", "folds=2", "start=2024-02-01", "end=2024-05-01")
    plain = make_folds(settings(tmp_path, *words), hourly(150))
    later = make_folds(settings(tmp_path, *words, "test_from=2024-03-10"), hourly(150))

    assert first_and_last(plain[0])[0] < first_and_last(later[0])[0] == ms("2024-03-10")
    assert first_and_last(later[1]) == first_and_last(plain[1])
    with pytest.raises(NotEnoughBarsError) as caught:
        make_folds(settings(tmp_path, *words, "test_from=2024-04-15"), hourly(150))
    assert "evaluation=single_split or fewer folds" in str(caught.value)


def test_a_moment_that_leaves_no_test_rows_is_refused_with_what_helps(tmp_path):
    with pytest.raises(NotEnoughBarsError) as caught:
        make_folds(settings(tmp_path, "test_from=2024-06-01"), hourly(150))
    assert str(caught.value) == (
        "BTCUSDT 1h: test_from=2024-06-01 00:00 UTC leaves no test rows: the last of a test part "
        "opens at 2024-05-29 20:00; use bars that end later, or give an earlier moment"
    )
    assert make_folds(settings(tmp_path, "test_from=2024-06-01"), hourly(170))
    assert make_folds(settings(tmp_path, "test_from=2024-05-25"), hourly(150))


def test_the_moment_is_a_date_and_of_no_pool(tmp_path):
    with pytest.raises(ConfigError, match="test_from=2999-01-01 is in the future"):
        settings(tmp_path, "test_from=2999-01-01")
    with pytest.raises(ConfigError, match="test_from=2024-05-01 is not before end=2024-05-01, so"):
        settings(tmp_path, "end=2024-05-01", "test_from=2024-05-01")
    with pytest.raises(ConfigError, match="test_from=soon is not a day"):
        settings(tmp_path, "test_from=soon")
    for words in (["recipe=pooled", "symbol='BTCUSDT,ETHUSDT'"], ["init=pooled"]):
        with pytest.raises(ConfigError, match="test_from is for markets that train from scratch"):
            settings(tmp_path, "test_from=2024-04-26", *words)
