from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from builders import make_bars, write_parquet

from percoin.bars import store as store_module
from percoin.bars.sources.base import BarSource
from percoin.bars.store import BarStore
from percoin.bars.update import Segment
from percoin.errors import BarsNotFoundError, ConfigError, DataError, InvalidBarsError
from percoin.types import Timeframe


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return BarStore(tmp_path / "bars")


def _rewrite_metadata(path: Path, **changes: object) -> None:
    """Write the same rows with other metadata, as an editor by hand would."""
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[b"percoin"]) | changes
    pq.write_table(table.replace_schema_metadata({"percoin": json.dumps(metadata)}), path)


def test_bars_come_back_as_they_were_written(store: BarStore) -> None:
    bars = make_bars(500)
    assert store.write(bars)
    stored = store.read("BTCUSDT", Timeframe.M15)
    pd.testing.assert_frame_equal(stored.frame, bars.frame)
    assert replace(stored, frame=bars.frame) == replace(bars, frame=bars.frame)
    assert store.path("BTCUSDT", Timeframe.M15) == store.root / "BTCUSDT" / "15m.parquet"


def test_the_store_is_a_source(store: BarStore) -> None:
    source: BarSource = store
    store.write(make_bars(10))
    assert source.load("BTCUSDT", Timeframe.M15).sha256() == make_bars(10).sha256()


def test_the_file_says_what_it_holds(store: BarStore) -> None:
    bars = make_bars(10)
    store.write(bars)
    schema = pq.read_schema(store.path("BTCUSDT", Timeframe.M15))
    assert str(schema.field("open_time").type) == "timestamp[ms, tz=UTC]"
    metadata = json.loads(schema.metadata[b"percoin"])
    written_at = pd.Timestamp(metadata.pop("written_at"))
    assert written_at.tz is not None
    assert metadata == {
        "format_version": 1,
        "symbol": "BTCUSDT",
        "timeframe": "15m",
        "origin": "test: builders",
        "sha256": bars.sha256(),
    }


def test_writing_the_same_again_leaves_the_file_alone(store: BarStore) -> None:
    bars = make_bars(10)
    assert store.write(bars)
    path = store.path("BTCUSDT", Timeframe.M15)
    os.utime(path, (0, 0))
    assert not store.write(bars)
    assert path.stat().st_mtime == 0
    assert store.write(make_bars(11))
    assert store.write(replace(make_bars(11), origin="test: elsewhere"))


def test_bars_of_another_source_replace_the_stored_ones_and_it_is_logged(
    store: BarStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(make_bars(50))
    store.write(make_bars(60))
    assert caplog.messages == []
    other = replace(make_bars(20, seed=1), origin="binance: spot")
    store.write(other)
    assert caplog.messages == [
        "BTCUSDT 15m: stored bars (test: builders) are replaced by bars of another source "
        "(binance: spot)"
    ]
    assert store.read("BTCUSDT", Timeframe.M15).sha256() == other.sha256()


def test_markets_are_listed_in_order_under_todays_names(store: BarStore) -> None:
    assert store.markets() == []
    for timeframe in (Timeframe.D1, Timeframe.M15, Timeframe.H4):
        store.write(make_bars(5, "ETHUSDT", timeframe))
    store.write(make_bars(5, "BTCUSDT"))
    write_parquet(make_bars(5), store.root / "MATICUSDT" / "1h.parquet")
    (store.root / "ETHUSDT" / "notes.parquet").write_text("mine")
    assert store.markets() == [
        ("BTCUSDT", Timeframe.M15),
        ("ETHUSDT", Timeframe.M15),
        ("ETHUSDT", Timeframe.H4),
        ("ETHUSDT", Timeframe.D1),
        ("POLUSDT", Timeframe.H1),
    ]


def test_nothing_stored_names_the_sources(store: BarStore) -> None:
    with pytest.raises(BarsNotFoundError) as caught:
        store.read("BTCUSDT", Timeframe.H1)
    for source in ("source=files", "source=sample", "source=simulated"):
        assert source in caught.value.action
    assert not store.root.exists()


def test_nothing_stored_names_what_is_close(store: BarStore) -> None:
    store.write(make_bars(5, "BTCUSDT"))
    store.write(make_bars(5, "XRPUSDT"))
    with pytest.raises(BarsNotFoundError, match=r"\(close names stored: BTCUSDT"):
        store.read("BTCUSD", Timeframe.M15)
    with pytest.raises(BarsNotFoundError, match=r"\(stored for BTCUSDT: 15m\)"):
        store.read("BTCUSDT", Timeframe.H1)


@pytest.mark.parametrize("symbol", ["../../etc", "btcusdt", ""])
def test_what_is_no_market_makes_no_path(store: BarStore, symbol: str) -> None:
    with pytest.raises(ConfigError):
        store.read(symbol, Timeframe.M15)
    with pytest.raises(ConfigError):
        store.write(make_bars(5, symbol))


def test_a_file_put_there_under_the_old_name_is_found_and_checked(
    store: BarStore, caplog: pytest.LogCaptureFixture
) -> None:
    write_parquet(make_bars(30), store.root / "MATICUSDT" / "15m.parquet")
    with caplog.at_level(logging.INFO):
        bars = store.read("POLUSDT", Timeframe.M15)
    assert bars.symbol == "POLUSDT"
    assert bars.sha256() == make_bars(30).sha256()
    assert bars.origin == (
        "files: MATICUSDT/15m.parquet in the store under their old name MATICUSDT"
    )
    assert "POLUSDT: bars found under their old name MATICUSDT" in caplog.messages
    with pytest.raises(ConfigError, match="use symbol=POLUSDT"):
        store.read("MATICUSDT", Timeframe.M15)


def test_an_edited_file_gets_the_full_check(store: BarStore) -> None:
    store.write(make_bars(30))
    path = store.path("BTCUSDT", Timeframe.M15)
    table = pq.read_table(path)
    frame = table.to_pandas()
    frame.loc[7, "close"] = np.nan
    edited = table.from_pandas(frame, schema=table.schema)
    pq.write_table(edited, path)
    with pytest.raises(InvalidBarsError, match=r"close NaN or infinite in 1 bar"):
        store.read("BTCUSDT", Timeframe.M15)


def test_an_edited_file_that_is_still_valid_is_read(
    store: BarStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.write(make_bars(30))
    _rewrite_metadata(store.path("BTCUSDT", Timeframe.M15), sha256="0" * 64)
    with caplog.at_level(logging.INFO):
        assert store.read("BTCUSDT", Timeframe.M15).sha256() == make_bars(30).sha256()
    assert "was not written by this store, checking it" in caplog.messages[0]


def test_shuffled_and_repeated_rows_are_refused(store: BarStore) -> None:
    path = write_parquet(make_bars(30), store.root / "BTCUSDT" / "15m.parquet")
    frame = pd.read_parquet(path)
    frame.sample(frac=1, random_state=0).to_parquet(path)
    with pytest.raises(InvalidBarsError, match="open_time before that of the row above"):
        store.read("BTCUSDT", Timeframe.M15)
    pd.concat([frame, frame.tail(1)]).to_parquet(path)
    with pytest.raises(InvalidBarsError, match="duplicate open_time in 1 bar"):
        store.read("BTCUSDT", Timeframe.M15)


@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.98])
def test_a_truncated_file_says_what_to_do(store: BarStore, keep: float) -> None:
    store.write(make_bars(300))
    path = store.path("BTCUSDT", Timeframe.M15)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(InvalidBarsError) as caught:
        store.read("BTCUSDT", Timeframe.M15)
    assert "cannot be read as Parquet" in caught.value.found
    assert "move the file away" in caught.value.action
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_an_error_or_changes_nothing(store: BarStore) -> None:
    bars = make_bars(300)
    store.write(bars)
    path = store.path("BTCUSDT", Timeframe.M15)
    whole = path.read_bytes()
    n_noticed = 0
    for position in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            assert store.read("BTCUSDT", Timeframe.M15).sha256() == bars.sha256()
        except InvalidBarsError:
            n_noticed += 1
    assert n_noticed > len(whole) / 97 / 2


def test_a_damaged_file_can_be_written_over(store: BarStore) -> None:
    store.write(make_bars(10))
    store.path("BTCUSDT", Timeframe.M15).write_bytes(b"PAR1 and nothing more")
    assert store.write(make_bars(10))
    assert len(store.read("BTCUSDT", Timeframe.M15)) == 10


def test_a_file_of_another_market_is_refused(store: BarStore) -> None:
    store.write(make_bars(10))
    there = store.path("ETHUSDT", Timeframe.M15)
    there.parent.mkdir()
    there.write_bytes(store.path("BTCUSDT", Timeframe.M15).read_bytes())
    with pytest.raises(InvalidBarsError, match="holds bars of BTCUSDT 15m; move the file"):
        store.read("ETHUSDT", Timeframe.M15)


def test_a_failed_write_leaves_the_old_bars_and_no_rest(
    store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(make_bars(10))

    def full_disk(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.pq, "write_table", full_disk)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
        store.write(make_bars(20))
    monkeypatch.undo()
    assert len(store.read("BTCUSDT", Timeframe.M15)) == 10
    assert [path.name for path in (store.root / "BTCUSDT").iterdir()] == ["15m.parquet"]


def test_a_store_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "bars").write_text("not a folder")
    with pytest.raises(DataError, match=r"BTCUSDT 15m: .* cannot be written"):
        BarStore(tmp_path / "bars").write(make_bars(5))


def test_a_reader_that_has_begun_gets_the_old_bars_to_their_end(store: BarStore) -> None:
    store.write(make_bars(30))
    path = store.path("BTCUSDT", Timeframe.M15)
    before = path.read_bytes()
    with path.open("rb") as reader:
        beginning = reader.read(100)
        store.write(make_bars(3000, seed=1))
        assert beginning + reader.read() == before


_KEEP_WRITING = """
import sys
from builders import make_bars
from percoin.bars.store import BarStore

store, turn = BarStore(sys.argv[1]), 0
while True:
    turn += 1
    store.write(make_bars(2000 + turn % 2, seed=turn % 2))
    print(turn, flush=True)
"""


def test_a_killed_writer_leaves_whole_bars(store: BarStore) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    for n_writes in (1, 2, 3):
        command = [sys.executable, "-c", _KEEP_WRITING, str(store.root)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(n_writes):
                assert writer.stdout.readline()
            writer.kill()
        bars = store.read("BTCUSDT", Timeframe.M15)
        assert bars.sha256() == make_bars(len(bars), seed=len(bars) - 2000).sha256()


def test_reading_what_was_written_does_without_pandera(store: BarStore) -> None:
    store.write(make_bars(100))
    code = (
        "import sys; from percoin.bars.store import BarStore; from percoin.types import Timeframe;"
        "BarStore(sys.argv[1]).read('BTCUSDT', Timeframe.M15); sys.exit('pandera' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(store.root)]
    assert subprocess.run(command, check=False).returncode == 0


def test_simulated_bars_never_take_the_place_of_real_ones(tmp_path: Path) -> None:
    store = BarStore(tmp_path)
    real = replace(make_bars(50), origin="files: BTCUSDT/15m.parquet")
    store.write(real)
    with pytest.raises(DataError, match=r"simulated ones would replace.*data_dir="):
        store.write(replace(make_bars(50, seed=1), origin="simulated: seed 1"))
    assert store.read("BTCUSDT", Timeframe.M15).sha256() == real.sha256()


def test_simulated_bars_never_take_the_place_of_a_file_of_another_program(store: BarStore) -> None:
    path = write_parquet(make_bars(50), store.path("BTCUSDT", Timeframe.M15))
    before = path.read_bytes()
    with pytest.raises(
        DataError, match=r"holds real bars \(files: BTCUSDT/15m\.parquet in the store"
    ):
        store.write(replace(make_bars(50, seed=1), origin="simulated: seed 1"))
    assert path.read_bytes() == before


def test_the_bars_of_a_file_of_another_program_have_one_origin_everywhere(
    store: BarStore, caplog: pytest.LogCaptureFixture
) -> None:
    write_parquet(make_bars(50), store.path("BTCUSDT", Timeframe.M15))
    origin = "files: BTCUSDT/15m.parquet in the store"
    assert store.origin("BTCUSDT", Timeframe.M15) == origin
    assert store.read("BTCUSDT", Timeframe.M15).origin == origin
    store.write(replace(make_bars(50), origin="binance spot: BTCUSDT"))
    assert caplog.messages == [
        f"BTCUSDT 15m: stored bars ({origin}) are replaced by bars of another source "
        "(binance spot: BTCUSDT)"
    ]


def test_a_file_that_is_no_parquet_has_no_origin(store: BarStore) -> None:
    path = store.path("BTCUSDT", Timeframe.M15)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1")
    assert store.origin("BTCUSDT", Timeframe.M15) is None


def test_real_bars_take_the_place_of_simulated_ones(tmp_path: Path) -> None:
    store = BarStore(tmp_path)
    store.write(replace(make_bars(50, seed=1), origin="simulated: seed 1"))
    real = replace(make_bars(50), origin="files: BTCUSDT/15m.parquet")
    store.write(real)
    assert store.read("BTCUSDT", Timeframe.M15).origin == real.origin


def test_who_answered_for_which_stretch_is_kept(store: BarStore) -> None:
    bars = make_bars(20)
    segments = (Segment(0, 900_000, "archive BTCUSDT"), Segment(900_000, 1_800_000, "API BTCUSDT"))
    with store.locked("BTCUSDT", Timeframe.M15):
        assert store.write_locked(bars, segments)
        assert not store.write_locked(bars, segments)
    assert store.read_segments("BTCUSDT", Timeframe.M15)[1] == segments

    assert not store.write(bars)
    assert store.read_segments("BTCUSDT", Timeframe.M15)[1] == segments
    store.write(make_bars(21))
    assert store.read_segments("BTCUSDT", Timeframe.M15)[1] == ()


def test_stretches_of_a_file_that_was_edited_are_not_relied_on(store: BarStore) -> None:
    with store.locked("BTCUSDT", Timeframe.M15):
        store.write_locked(make_bars(20), [Segment(0, 900_000, "archive BTCUSDT")])
    path = store.path("BTCUSDT", Timeframe.M15)
    pq.write_table(pq.read_table(path).slice(0, 10), path)

    bars, segments = store.read_segments("BTCUSDT", Timeframe.M15)
    assert (len(bars), segments) == (10, ())


def test_a_writer_waits_for_the_one_before_and_readers_do_not(
    store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LOCK_TIMEOUT_SECS", 0.2)
    store.write(make_bars(10))
    with store.locked("BTCUSDT", Timeframe.M15):
        assert len(store.read("BTCUSDT", Timeframe.M15)) == 10
        with pytest.raises(DataError, match=f"{os.getpid()} on .* has been writing the bars"):
            BarStore(store.root).write(make_bars(11))
        store.write(make_bars(12, "ETHUSDT"))
    assert BarStore(store.root).write(make_bars(11))


@pytest.mark.parametrize("changes", [{"symbol": 5}, {"origin": 7}, {"timeframe": None}])
def test_metadata_that_says_nothing_sensible_counts_as_none(
    store: BarStore, changes: dict[str, object]
) -> None:
    bars = make_bars(50)
    store.write(bars)
    _rewrite_metadata(store.path("BTCUSDT", Timeframe.M15), **changes)
    assert store.read("BTCUSDT", Timeframe.M15).sha256() == bars.sha256()


def test_an_origin_with_half_a_surrogate_pair_is_an_error_of_that_market(store: BarStore) -> None:
    store.write(make_bars(50))
    store.write(make_bars(50, "ETHUSDT"))
    path = store.path("BTCUSDT", Timeframe.M15)
    _rewrite_metadata(path, origin="files: \ud800.csv")
    with pytest.raises(
        InvalidBarsError, match=r"BTCUSDT 15m: the origin of .* is no text"
    ) as caught:
        store.read("BTCUSDT", Timeframe.M15)
    assert str(caught.value).isprintable()
    assert len(store.read("ETHUSDT", Timeframe.M15)) == 50
    # Whoever fetches the bars again is not stopped by it.
    assert store.write(make_bars(50))
    assert store.read("BTCUSDT", Timeframe.M15).origin == "test: builders"


def test_bars_of_a_file_whose_name_is_no_text_are_not_written(store: BarStore) -> None:
    with pytest.raises(DataError, match="valid UTF-8") as caught:
        store.write(replace(make_bars(5), origin="files: \udcff.csv"))
    assert str(caught.value).isprintable()
    assert store.markets() == []


@pytest.mark.parametrize(
    "segments", [5, [1], [[0, 1]], [["a", 1, "x"]], [[0, 1, "\ud800"]], {"a": 1}, [[0, 1, "x", 2]]]
)
def test_stretches_that_are_none_are_not_relied_on(store: BarStore, segments: object) -> None:
    store.write(make_bars(50))
    _rewrite_metadata(store.path("BTCUSDT", Timeframe.M15), segments=segments)
    assert store.read_segments("BTCUSDT", Timeframe.M15)[1] == ()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_no_file_is_an_error_and_never_waited_for(store: BarStore, make) -> None:
    store.write(make_bars(5, "ETHUSDT"))
    path = store.path("BTCUSDT", Timeframe.M15)
    path.parent.mkdir()
    make(path)
    with pytest.raises(InvalidBarsError, match=r"15m\.parquet is no regular file"):
        store.read("BTCUSDT", Timeframe.M15)
    with pytest.raises(DataError, match=r"15m\.parquet is no regular file"):
        store.write(make_bars(5))
    assert store.origin("BTCUSDT", Timeframe.M15) is None
    assert path.exists()


def _flipped(whole: bytes, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    damaged = bytearray(whole)
    # Mostly where the file says what is in it.
    lowest = max(0, len(whole) - 3000) if seed % 3 else 0
    for position in random.integers(lowest, len(whole), size=1 + seed % 9):
        damaged[position] = random.integers(256)
    return bytes(damaged)


@pytest.mark.parametrize("index", ["column", "named", "unnamed"])
def test_a_damaged_file_of_somebody_else_is_bars_or_an_error(store: BarStore, index: str) -> None:
    path = store.path("BTCUSDT", Timeframe.M15)
    frame = make_bars(40).frame
    write_parquet(make_bars(40), path)
    if index != "column":
        frame.rename_axis("open_time" if index == "named" else None).to_parquet(path)
    assert store.read("BTCUSDT", Timeframe.M15).sha256() == make_bars(40).sha256()
    whole = path.read_bytes()
    said: list[str] = []
    for seed in range(60):
        path.write_bytes(_flipped(whole, seed))
        try:
            store.read("BTCUSDT", Timeframe.M15)
        except InvalidBarsError as error:
            said.append(str(error))
    assert len(said) > 20
    assert all(text.isprintable() for text in said)


@pytest.mark.parametrize(
    "metadata",
    [
        "no JSON",
        "[1]",
        '{"index_columns": ["nowhere"], "columns": [], "column_indexes": []}',
        '{"index_columns": [{"kind": "range", "start": 0, "stop": -5, "step": 0}], "columns": [5]}',
        '{"columns": [{"name": "close", "pandas_type": "datetimetz", "metadata": {}}]}',
    ],
)
def test_odd_words_of_pandas_about_a_file_change_nothing(store: BarStore, metadata: str) -> None:
    path = write_parquet(make_bars(30), store.path("BTCUSDT", Timeframe.M15))
    pq.write_table(pq.read_table(path).replace_schema_metadata({"pandas": metadata}), path)
    assert store.read("BTCUSDT", Timeframe.M15).sha256() == make_bars(30).sha256()


def test_a_column_twice_is_named(store: BarStore) -> None:
    path = write_parquet(make_bars(30), store.path("BTCUSDT", Timeframe.M15))
    table = pq.read_table(path)
    pq.write_table(table.append_column("close", table["open"]), path)
    with pytest.raises(InvalidBarsError, match="has the column close more than once"):
        store.read("BTCUSDT", Timeframe.M15)


@pytest.mark.parametrize(
    ("year", "found"),
    [
        ("1969-12-31", "30 open times are outside the years 1970 to 9999"),
        ("2200-01-01", "open_time not between 1970 and 2200 in 30 bars"),
    ],
)
def test_bars_of_another_age_are_refused(store: BarStore, year: str, found: str) -> None:
    bars = make_bars(30, start=pd.Timestamp(year, tz="UTC"))
    write_parquet(bars, store.path("BTCUSDT", Timeframe.M15))
    with pytest.raises(InvalidBarsError, match=found):
        store.read("BTCUSDT", Timeframe.M15)


def test_the_next_writer_removes_what_a_killed_one_left(store: BarStore) -> None:
    store.write(make_bars(10))
    folder = store.path("BTCUSDT", Timeframe.M15).parent
    left = folder / f".15m.parquet.{'a' * 32}.tmp"
    others = [
        folder / f".1h.parquet.{'a' * 32}.tmp",
        folder / ".15m.parquet.mine.tmp",
        folder / f"15m.parquet.{'a' * 32}.tmp",
    ]
    for path in (left, *others):
        path.write_text("half")
    assert store.write(make_bars(11))
    assert not left.exists()
    assert all(path.exists() for path in others)


def test_what_a_living_writer_is_writing_stays(
    store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LOCK_TIMEOUT_SECS", 0.1)
    written: list[bool] = []
    write_table = pq.write_table

    def interrupted(table, file, **options) -> None:
        write_table(table, file, **options)
        monkeypatch.setattr(store_module.pq, "write_table", write_table)
        # Another process comes while this one has not moved its file into place.
        with pytest.raises(DataError, match=f"{os.getpid()} on .* has been writing the bars"):
            BarStore(store.root).write(make_bars(11))
        written.append(Path(file.name).exists())

    monkeypatch.setattr(store_module.pq, "write_table", interrupted)
    assert store.write(make_bars(10))
    assert written == [True]
    assert len(store.read("BTCUSDT", Timeframe.M15)) == 10


def test_bars_are_synced_before_they_take_the_place_of_the_old_ones(
    store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(make_bars(10))
    done: list[str] = []
    sync, move = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        # A sync of what is still in Python's own buffer would sync nothing.
        done.append(f"sync {name.suffix or name.name} of {os.fstat(descriptor).st_size > 1000}")
        sync(descriptor)

    def note_move(path: Path, target: Path) -> Path:
        done.append(f"move {path.suffix}")
        return move(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_move)
    store.write(make_bars(20))
    assert [step.split(" of ")[0] for step in done] == ["sync .tmp", "move .tmp", "sync BTCUSDT"]
    assert done[0] == "sync .tmp of True"
