"""What really happens between here and an exchange; nothing wrong is ever stored."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bars.archive_server import (
    HEADER,
    Answer,
    ArchiveServer,
    Fault,
    as_json,
    checksum,
    refusing,
    serving,
    without_proxies,
    zipped,
)
from builders import make_bars

from percoin.bars.schema import Bars
from percoin.bars.sources.binance import klines as klines_module
from percoin.bars.sources.binance import transfer as transfer_module
from percoin.bars.sources.binance.source import ExchangeSource
from percoin.bars.sources.binance.transfer import Patience
from percoin.bars.store import BarStore
from percoin.errors import DataError, FetchError, InvalidBarsError
from percoin.types import Timeframe

H1 = Timeframe.H1
NOW = pd.Timestamp("2024-04-02 10:07", tz="UTC")
TRUTH = make_bars(24 * 100, timeframe=H1, start=pd.Timestamp("2024-01-01", tz="UTC"))
CLOSED = TRUTH.slice(0, int(TRUTH.frame.index.searchsorted(pd.Timestamp("2024-04-02 10:00Z"))))
MONTH = "BTCUSDT-1h-2024-02.zip"
N_BARS = 24 * 75

Loading = Callable[..., Bars]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    without_proxies(monkeypatch)
    with serving() as server:
        server.add(TRUTH, NOW)
        yield server


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return BarStore(tmp_path / "bars")


@pytest.fixture
def waits() -> list[float]:
    """Every wait, in seconds; none is really waited."""
    return []


@pytest.fixture
def load(server: ArchiveServer, store: BarStore, waits: list[float]) -> Loading:
    def load(n_bars: int = N_BARS, timeout_secs: float = 5, **changes: object) -> Bars:
        patience = Patience(timeout_secs=timeout_secs, sleep=waits.append)
        urls = {"archive_url": server.url, "api_url": server.url}
        source = ExchangeSource(store, n_bars, patience=patience, **(urls | changes))
        return source.load("BTCUSDT", H1)

    return load


def assert_all_there(bars: Bars) -> None:
    pd.testing.assert_frame_equal(bars.frame, CLOSED.frame, check_freq=False, check_exact=True)


def serve(server: ArchiveServer, body: bytes) -> None:
    """Put a file with a checksum of its own in the place of a month."""
    server.plan(f"{MONTH}.CHECKSUM", lambda usual: Answer(checksum(body, MONTH)), times=99)
    server.plan(MONTH, lambda usual: Answer(body), times=99)


def assert_refused_and_nothing_changed(
    load: Loading, server: ArchiveServer, store: BarStore, error: type[DataError], words: str
) -> DataError:
    """A market without bars stays so, and one with bars keeps them."""
    with pytest.raises(error, match=words) as caught:
        load()
    assert store.markets() == []

    server.add(TRUTH, pd.Timestamp("2024-01-31 12:00", tz="UTC"))
    stored = load(24 * 10)
    server.add(TRUTH, NOW)
    with pytest.raises(error, match=words):
        load()
    kept = store.read("BTCUSDT", H1)
    assert kept.sha256() == stored.sha256()
    message = str(caught.value)
    assert message.startswith("BTCUSDT 1h: ")
    assert "\n" not in message
    assert len(message) < 400
    return caught.value


@pytest.mark.parametrize(
    ("status", "place"),
    [
        *((status, MONTH) for status in (500, 502, 503, 504)),
        *((503, place) for place in (f"{MONTH}.CHECKSUM", "/time", "/klines?", "exchangeInfo")),
    ],
)
def test_a_server_that_is_down_for_a_moment_is_asked_again(status, place, server, load, waits):
    server.plan(place, refusing(status), times=2)

    assert_all_there(load())
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize("place", [MONTH, "/klines?"])
def test_429_waits_as_long_as_the_server_asks_for(place, server, load, waits):
    server.plan(place, refusing(429, Retry_After="7"), times=1)

    assert_all_there(load())
    assert waits == [7.0]


def test_a_date_to_come_back_at_is_understood(server, load, waits):
    server.plan(MONTH, refusing(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), times=1)

    assert_all_there(load())
    assert waits == [0.0]


@pytest.mark.parametrize(
    "words",
    [
        *("soon", "-5", "", "\xb2", "1\xb2", "9" * 400, "1e3", "\xff\xfe"),
        *("Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 99 Oct 2015 07:28:00 GMT", "1 Jan 1 0:0 +9999"),
    ],
)
def test_a_senseless_retry_after_is_passed_over(words, server, load, waits):
    server.plan(MONTH, refusing(503, Retry_After=words), times=1)

    assert_all_there(load())
    assert waits == [1.0]


def test_a_server_that_asks_for_an_hour_ends_the_command(server, load, store):
    server.plan(MONTH, refusing(429, Retry_After="3600"), times=99)

    assert_refused_and_nothing_changed(
        load, server, store, FetchError, "asks to be left alone for 3600 s"
    )


def test_a_server_that_stays_down_ends_the_command(server, load, store, waits):
    server.plan(MONTH, refusing(503), times=99)

    error = assert_refused_and_nothing_changed(
        load, server, store, FetchError, r"failed 5 times \(status 503\)"
    )
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert "run the same command again later" in error.action


@pytest.mark.parametrize("status", [403, 418, 451])
def test_an_archive_that_refuses_is_not_asked_twice(status, server, load, store, waits):
    server.plan(MONTH, refusing(status), times=99)

    assert_refused_and_nothing_changed(load, server, store, FetchError, str(status))
    assert waits == []


def test_451_of_the_api_leaves_what_the_archive_has(server, load, waits, caplog, monkeypatch):
    monkeypatch.setattr("time.time", NOW.timestamp)
    server.plan("/api/v3/", refusing(451), times=99)
    bars = load()

    assert bars.close_time() == pd.Timestamp("2024-04-02 00:00Z")
    assert "451" in caplog.text
    assert "going on with the bars stored until 2024-04-02 00:00 UTC" in caplog.text
    assert waits == []


def test_451_names_the_host_that_answers_everywhere(load, server, monkeypatch):
    monkeypatch.setattr(
        "ccxt.binance.fetch_time", lambda self: self.fetch(f"{server.url}/api/v3/time")
    )
    server.plan("/api/v3/", refusing(451), times=99)

    with pytest.raises(FetchError, match=r"source\.api_url=https://data-api\.binance\.vision"):
        load(api_url=None, archive_url=None)


def test_a_month_that_is_not_published_yet_comes_by_days(server, load):
    server.plan("BTCUSDT-1h-2024-03.zip", refusing(404), times=99)

    assert_all_there(load())
    assert len([name for name in server.downloads() if "2024-03-" in name]) == 31


def test_a_day_that_is_not_published_yet_comes_from_the_api(server, load):
    server.plan("BTCUSDT-1h-2024-04-01.zip", refusing(404), times=99)

    assert_all_there(load())


def test_a_checksum_without_its_file_is_said_and_the_bars_come_by_days(server, load, caplog):
    server.plan(f"{MONTH}.CHECKSUM", lambda usual: usual, times=99)
    server.plan(MONTH, refusing(404), times=99)

    assert_all_there(load())
    assert f"{MONTH} has a checksum, but is not there itself" in caplog.text
    assert len([name for name in server.downloads() if "2024-02-" in name]) == 29


def truncated(body: bytes) -> bytes:
    return body[: len(body) // 2]


@functools.cache
def bomb(body: bytes) -> bytes:
    return zipped(MONTH.removesuffix(".zip"), "1" * 70 * 1024**2)


def lying_bomb(body: bytes) -> bytes:
    """A zip that gives itself a size of 100 bytes."""
    content = bytearray(bomb(body))
    size = (70 * 1024**2).to_bytes(4, "little")
    while (place := content.find(size)) >= 0:
        content[place : place + 4] = (100).to_bytes(4, "little")
    return bytes(content)


def two_files(body: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("BTCUSDT-1h-2024-02.csv", "")
        archive.writestr("../../BTCUSDT-1h-2024-02.csv", "")
    return buffer.getvalue()


def of_another_month(body: bytes) -> bytes:
    return zipped("BTCUSDT-1h-2024-02", "1704067200000,1,1,1,1,1,1704081599999,1,1,1,1,0\n")


def in_seconds(body: bytes) -> bytes:
    return zipped("BTCUSDT-1h-2024-02", "1706745600,1,1,1,1,1,1706759999,1,1,1,1,0\n")


def five_columns(body: bytes) -> bytes:
    return zipped("BTCUSDT-1h-2024-02", "1706745600000,1,1,1,1\n")


def words_for_numbers(body: bytes) -> bytes:
    return zipped("BTCUSDT-1h-2024-02", "1706745600000,one,1,1,1,1,1706759999999,1,1,1,1,0\n")


def low_above_high(body: bytes) -> bytes:
    return zipped("BTCUSDT-1h-2024-02", "1706745600000,5,1,9,5,1,1706759999999,1,1,1,1,0\n")


def contradiction(body: bytes) -> bytes:
    rows = "1706745600000,5,9,1,5,1,1706759999999,1,1,1,1,0\n"
    return zipped("BTCUSDT-1h-2024-02", rows + rows.replace(",5,1,17", ",6,1,17"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncated, "not a zip that can be read"),
        (bomb, "unpacks to more than 64 MB"),
        (lying_bomb, r"unpacks to more than 64 MB|not a zip that can be read|cannot be read"),
        (two_files, "does not hold BTCUSDT-1h-2024-02.csv alone"),
        (of_another_month, "holds a bar of 2024-01-01 00:00, outside of its month or day"),
        (in_seconds, "neither in milliseconds nor microseconds"),
        (five_columns, "cannot be read as klines"),
        (words_for_numbers, "cannot be read as klines"),
        (low_above_high, "high below open or close"),
        (contradiction, "duplicate open_time"),
        (lambda body: b"<html>busy</html>", "not a zip that can be read"),
        (lambda body: b"", "not a zip that can be read"),
    ],
)
def test_a_file_that_is_wrong_inside_is_refused(spoil, words, server, load, store):
    usual = server.answer(f"/data/spot/monthly/klines/BTCUSDT/1h/{MONTH}").body
    serve(server, spoil(usual))

    error = assert_refused_and_nothing_changed(load, server, store, InvalidBarsError, words)
    assert "nothing of it was stored" in error.action
    assert MONTH in error.found


@pytest.mark.parametrize(
    "text",
    [b"", b"not a hash", b"0" * 64 + b"  BTCUSDT-1h-2024-01.zip\n", b"0" * 64],
)
def test_a_checksum_file_that_is_none_sends_the_bars_by_days(text, server, load, caplog):
    server.plan(f"{MONTH}.CHECKSUM", lambda usual: Answer(text), times=99)

    assert_all_there(load())
    assert "CHECKSUM is not a sha256 with that name" in caplog.text
    assert len([name for name in server.downloads() if "2024-02-" in name]) == 29


def test_a_month_that_never_matches_its_checksum_comes_by_days(server, load, caplog, tmp_path):
    server.plan(f"{MONTH}.CHECKSUM", lambda usual: Answer(checksum(b"other", MONTH)), times=99)

    assert_all_there(load())
    assert f"{MONTH} does not match its published sha256" in caplog.text
    assert len([name for name in server.downloads() if "2024-02-" in name]) == 29
    assert list((tmp_path / "archive").rglob(MONTH)) == []


def test_a_day_that_never_matches_its_checksum_comes_from_the_api(server, load, caplog):
    for place in (MONTH, "BTCUSDT-1h-2024-02-11.zip"):
        wrong = checksum(b"other", place)
        server.plan(f"{place}.CHECKSUM", lambda usual, wrong=wrong: Answer(wrong), times=99)

    assert_all_there(load())
    assert "BTCUSDT-1h-2024-02-11.zip does not match its published sha256" in caplog.text


def test_a_file_that_is_replaced_at_that_moment_is_fetched_again(server, load):
    server.plan(f"{MONTH}.CHECKSUM", lambda usual: Answer(checksum(b"the last", MONTH)), times=1)

    assert_all_there(load())


def test_a_file_without_rows_is_no_month_without_bars(server, load):
    serve(server, zipped(MONTH.removesuffix(".zip"), HEADER))

    assert_all_there(load())


def shuffled(lines: list[str]) -> list[str]:
    return lines[1::2] + lines[::2]


def twice(lines: list[str]) -> list[str]:
    return sorted(lines + lines[:50])


@pytest.mark.parametrize("rewrite", [shuffled, twice, lambda lines: shuffled(twice(lines))])
def test_rows_out_of_order_or_twice_lose_nothing_and_are_reported(rewrite, server, load, caplog):
    server.rewrite = rewrite

    assert_all_there(load())
    assert f"{MONTH} has rows out of order or twice" in caplog.text


def cutting(n_bytes: int) -> Fault:
    return lambda usual: replace(usual, cut_after=n_bytes)


@pytest.mark.parametrize("n_bytes", [0, 1, 2000])
def test_a_connection_that_breaks_off_is_gone_on_with(n_bytes, server, load):
    for place in (f"{MONTH}.CHECKSUM", "/time", "/klines?", "exchangeInfo"):
        server.plan(place, cutting(min(n_bytes, 30)), times=1)
    server.plan(MONTH, cutting(n_bytes), times=2)

    assert_all_there(load())


def test_a_download_goes_on_where_it_broke_off(server, load, monkeypatch):
    asked_for: list[str] = []
    read = transfer_module.Transfer._answer

    def noting(self, url, n_before=0):
        asked_for.append(f"{url.rsplit('/', 1)[1]} from {n_before}")
        return read(self, url, n_before)

    monkeypatch.setattr(transfer_module.Transfer, "_answer", noting)
    server.plan(f"{MONTH}.CHECKSUM", lambda usual: usual, times=1)
    server.plan(MONTH, cutting(10_000), times=1)

    assert_all_there(load())
    assert f"{MONTH} from 8192" in asked_for


def test_a_server_that_cannot_resume_sends_the_file_again(server, load):
    server.can_resume = False
    server.plan(f"{MONTH}.CHECKSUM", lambda usual: usual, times=1)
    server.plan(MONTH, cutting(10_000), times=1)

    assert_all_there(load())


def test_a_part_of_another_version_is_thrown_away(server, load, tmp_path):
    part = tmp_path / "archive" / "spot-BTCUSDT-1h" / f"{MONTH}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"of a file that was replaced since")

    assert_all_there(load())


def test_a_part_that_is_the_whole_file_is_enough(server, load, tmp_path):
    part = tmp_path / "archive" / "spot-BTCUSDT-1h" / f"{MONTH}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.answer(f"/data/spot/monthly/klines/BTCUSDT/1h/{MONTH}").body)

    assert_all_there(load())


def test_what_was_downloaded_before_a_failure_is_not_downloaded_again(server, load):
    server.plan(f"{MONTH}.CHECKSUM", refusing(451), times=1)
    with pytest.raises(FetchError):
        load(n_parallel=1)
    before = set(server.downloads())
    server.requests.clear()

    assert_all_there(load())
    assert before
    assert not before & set(server.downloads())


@pytest.mark.parametrize("place", [f"{MONTH}.CHECKSUM", "/klines?"])
def test_a_server_that_is_slow_is_asked_again(place, server, load, waits):
    server.plan(place, lambda usual: replace(usual, delay_secs=1.5), times=1)

    assert_all_there(load(timeout_secs=0.7))
    assert waits


def test_a_server_that_stays_slow_is_given_up(server, load):
    server.plan("/time", lambda usual: replace(usual, delay_secs=0.6), times=99)

    with pytest.raises(FetchError, match=r"failed 5 times \(no answer within 0\.2 s\)"):
        load(timeout_secs=0.2, archive_url=None)


def test_a_file_larger_than_any_is_broken_off(server, load, store, monkeypatch):
    monkeypatch.setattr(transfer_module, "_LARGEST_FILE_BYTES", 1000)

    with pytest.raises(FetchError, match="is larger than any file of the archive"):
        load()
    assert store.markets() == []


def test_a_limit_on_unpacking_is_kept_while_unpacking(server, load, store, monkeypatch):
    monkeypatch.setattr(klines_module, "_LARGEST_CSV_BYTES", 1000)

    with pytest.raises(InvalidBarsError, match="unpacks to more than"):
        load()
    assert store.markets() == []


@pytest.mark.parametrize(
    "answer",
    [
        as_json({"code": 0, "msg": "busy"}),
        as_json([[1]]),
        as_json([["a", "b", "c", "d", "e", "f"]]),
        Answer(b"<html>moved</html>", 200, {"Content-Type": "text/html"}),
        Answer(b"[[17119", 200, {"Content-Type": "application/json"}),
        as_json([[1712044800, "1", "1", "1", "1", "1"]]),
        as_json([[1712001600000, "1", "1", "9", "1", "1"]]),
        as_json([[1712001600000, None, "1", "1", "1", "1"]]),
    ],
    ids=["error", "short", "letters", "html", "half", "seconds", "impossible", "null"],
)
def test_an_answer_of_the_api_that_makes_no_sense_is_not_stored(answer, server, load, store):
    server.plan("/klines?", lambda usual: answer, times=99)
    with pytest.raises(DataError) as caught:
        load(6, archive_url=None)
    assert "\n" not in str(caught.value)
    assert store.markets() == []


def test_pages_out_of_order_and_twice_lose_nothing(server, load, caplog):
    def mixed(usual: Answer) -> Answer:
        import json

        rows = json.loads(usual.body)
        return as_json(rows[::-1] + rows[:3])

    server.plan("/klines?", mixed, times=99)

    assert_all_there(load())


def test_an_open_bar_of_the_api_is_never_stored(server, load):
    import json

    def only_the_open_bar(usual: Answer) -> Answer:
        return as_json(json.loads(usual.body)[-1:])

    load()
    server.add(TRUTH, NOW + pd.Timedelta(hours=3))
    server.plan("/klines?", only_the_open_bar, times=99)

    assert load().close_time() == NOW.floor("h")


@pytest.mark.parametrize(
    "where",
    [
        *("http://[", "http://[::1", "http://", "http://a..b/x", "gopher://x/"),
        *("http://127.0.0.1:99999/", "http://\xff\xfe/", "\xff\xfe\xfd", "//["),
    ],
)
@pytest.mark.parametrize("place", [f"{MONTH}.CHECKSUM", "/klines?"])
def test_a_redirect_to_what_is_no_address_is_one_line(where, place, server, load):
    server.plan(place, refusing(302, Location=where), times=99)

    with pytest.raises(FetchError) as caught:
        load(**({"archive_url": None} if place == "/klines?" else {}))
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_redirect_to_itself_ends(server, load):
    url = f"{server.url}/data/spot/monthly/klines/BTCUSDT/1h/{MONTH}.CHECKSUM"
    server.plan(f"{MONTH}.CHECKSUM", refusing(302, Location=url), times=999)

    with pytest.raises(FetchError, match=r"cannot be asked \(Exceeded 30 redirects"):
        load()


@pytest.mark.parametrize("place", [f"{MONTH}.CHECKSUM", MONTH, "/klines?", "/time"])
def test_headers_that_are_no_text_change_nothing(place, server, load, monkeypatch):
    def with_bytes(usual: Answer) -> Answer:
        headers = {"X-Note": "\xff\xfe\xfd", "Content-Range": "\xff", "Retry-After": "\xff"}
        return replace(usual, headers=usual.headers | headers)

    server.plan(place, with_bytes, times=99)
    assert_all_there(load())


@pytest.mark.parametrize("status", [206, 416])
@pytest.mark.parametrize("place", [f"{MONTH}.CHECKSUM", MONTH, "/klines?"])
def test_a_part_that_nobody_asked_for_is_refused(status, place, server, load):
    server.plan(f"{MONTH}.CHECKSUM", lambda usual: usual, times=1 if place == MONTH else 0)
    server.plan(place, refusing(status), times=99)

    with pytest.raises(FetchError) as caught:
        load(**({"archive_url": None} if place == "/klines?" else {}))
    assert "\n" not in str(caught.value)


def test_missing_authorities_are_named(monkeypatch, load):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/certificates.pem")
    for urls in (
        {"api_url": "https://127.0.0.1:9", "archive_url": None},
        {"archive_url": "https://127.0.0.1:9"},
    ):
        with pytest.raises(FetchError) as caught:
            load(**urls)
        assert "invalid path: /nowhere/certificates.pem" in caught.value.found
        assert "REQUESTS_CA_BUNDLE" in caught.value.action


@pytest.mark.parametrize(
    "url",
    [
        *("http://[", "http://", "https://:80/", "http://x:99999", "http://x:port", "http://x:0"),
        *("http://a..b", "ftp://x/", "x", ""),
    ],
)
def test_what_is_no_address_is_told_from_one(url):
    assert not transfer_module.is_address(url)
    for right in ("http://127.0.0.1:80/x", "https://data.binance.vision", "http://[::1]:8000"):
        assert transfer_module.is_address(right)


def transfer_of(server: ArchiveServer) -> transfer_module.Transfer:
    patience = Patience(timeout_secs=5, sleep=lambda secs: None)
    return transfer_module.Transfer(transfer_module.Persistence("BTCUSDT", H1, patience))


FILE = f"/data/spot/monthly/klines/BTCUSDT/1h/{MONTH}"


@pytest.mark.parametrize("status", [200, 206])
def test_a_server_that_begins_anew_makes_no_longer_file(status, server, tmp_path):
    whole = server.answer(FILE).body
    part = tmp_path / "file.part"
    part.write_bytes(whole[:5000])
    server.can_resume = False
    headers = {"Content-Range": f"bytes 0-{len(whole) - 1}/{len(whole)}"} if status == 206 else {}
    server.plan(MONTH, lambda usual: replace(usual, status=status, headers=headers), times=1)

    assert transfer_of(server).file(server.url + FILE, part)
    assert part.read_bytes() == whole


def test_a_part_is_gone_on_with_by_its_last_byte(server, tmp_path):
    whole = server.answer(FILE).body
    part = tmp_path / "file.part"
    part.write_bytes(whole[:5000])

    assert transfer_of(server).file(server.url + FILE, part)
    assert part.read_bytes() == whole


def test_the_day_that_has_not_ended_is_not_asked_of_the_archive(server, load):
    load()

    asked = " ".join(server.requests)
    assert "BTCUSDT-1h-2024-04-01.zip" in asked
    assert "2024-04-02" not in asked
    assert "BTCUSDT-1h-2024-04.zip" not in asked


def test_a_folder_that_cannot_be_written_is_one_error_of_the_market(load, tmp_path):
    (tmp_path / "archive").write_text("no folder")

    with pytest.raises(DataError, match=r"BTCUSDT 1h: .*archive.* cannot be written"):
        load()
