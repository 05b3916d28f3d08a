import errno
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from artifact_builders import GOLDEN, SYMBOL, TIMEFRAME, draft, export

from percoin.errors import ConfigError, ModelNotFoundError, UnreadableArtifactError
from percoin.registry import catalogue
from percoin.registry.catalogue import (
    check_market,
    find_version,
    markets_in,
    read_versions,
    version_ids,
)
from percoin.registry.layout import HASHED_FILES, MANIFEST_FILE, MarketFolder
from percoin.registry.manifest import Gate, StoredVerdict
from percoin.types import Timeframe

ALL_FILES = (*HASHED_FILES, MANIFEST_FILE)


def market(root) -> MarketFolder:
    return MarketFolder(root, SYMBOL, TIMEFRAME)


def problems(root) -> dict[str, str]:
    return {check.subject: check.problem for check in check_market(market(root)) if check.problem}


def test_markets_come_by_symbol_and_bar_length_and_nothing_else_does(tmp_path):
    for symbol, timeframe in [("ETHUSDT", "15m"), ("BTCUSDT", "1h"), ("BTCUSDT", "15m")]:
        export(tmp_path, symbol=symbol, timeframe=Timeframe(timeframe))
    for name in ["notes", "btcusdt", ".hidden", "A-B"]:
        (tmp_path / "per_coin" / name / "15m").mkdir(parents=True)
    (tmp_path / "per_coin" / "README").write_text("a file")
    (tmp_path / "per_coin" / "XRPUSDT").mkdir()

    found = [(entry.symbol, entry.timeframe.value) for entry in markets_in(tmp_path)]
    assert found == [("BTCUSDT", "15m"), ("BTCUSDT", "1h"), ("ETHUSDT", "15m")]
    assert list(markets_in(tmp_path / "nowhere")) == []


def test_a_market_of_which_nothing_is_served_is_still_there(tmp_path):
    name = export(tmp_path).name
    market(tmp_path).link.unlink()
    assert len(list(markets_in(tmp_path))) == 1
    assert version_ids(market(tmp_path)) == [name]
    assert problems(tmp_path) == {"served": f"no model exported in {tmp_path}"}


def test_versions_come_oldest_first_with_what_speaks_against_them(tmp_path):
    accepted = export(tmp_path, 0.0, gate=Gate(StoredVerdict.ACCEPTED)).name
    rejected = export(tmp_path, 1.0, gate=Gate(StoredVerdict.REJECTED, ("no skill",))).name
    broken = export(tmp_path, 2.0).name
    (market(tmp_path).version(broken) / MANIFEST_FILE).write_text("{}")
    (market(tmp_path).versions / "notes").mkdir()
    # Of the right length, but no moment.
    (market(tmp_path).versions / "20259999T000000000000Z-0123456789ab").mkdir()
    found = read_versions(market(tmp_path))

    assert [version.version_id for version in found] == [accepted, rejected, broken]
    assert [version.objection for version in found] == [
        "",
        "the gate says rejected: no skill",
        "meta.json: Object missing required field `symbol`",
    ]
    assert abs((found[0].created_at - datetime.now(UTC)).total_seconds()) < 600


def test_a_version_is_found_by_how_its_name_begins(tmp_path):
    first, second = (export(tmp_path, value).name for value in (0.0, 1.0))
    assert find_version(market(tmp_path), first) == first
    assert find_version(market(tmp_path), second[:-3]) == second
    for start, found in [(first[:4], "2 versions"), ("1999", "0 versions"), ("", "0 versions")]:
        with pytest.raises(ModelNotFoundError, match=f"{found} begin .*{first}, {second}"):
            find_version(market(tmp_path), start)


def test_a_sound_market_has_no_problem(tmp_path):
    names = [export(tmp_path, float(value)).name for value in range(3)]
    subjects = [check.subject for check in check_market(market(tmp_path))]
    assert subjects == [*names, "served", "history"]
    assert problems(tmp_path) == {}


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize("damage", ["flipped bit", "missing", "link"])
def test_every_file_of_every_version_is_checked(tmp_path, name, damage):
    path = export(tmp_path, 0.0) / name
    export(tmp_path, 1.0)
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flipped bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    found = problems(tmp_path)
    assert list(found) == [path.parent.name]
    assert name in found[path.parent.name]


def test_a_link_to_a_version_that_is_gone_is_a_problem(tmp_path):
    export(tmp_path, 0.0)
    folder = export(tmp_path, 1.0)
    shutil.rmtree(folder)
    assert problems(tmp_path) == {"served": f"the served version {folder.name} is gone"}


def test_a_version_that_was_renamed_is_a_problem(tmp_path):
    folder = export(tmp_path, 0.0)
    newer = export(tmp_path, 1.0)
    other = folder.with_name(f"{folder.name[:-1]}{'0' if folder.name[-1] != '0' else '1'}")
    folder.rename(other)
    assert problems(tmp_path) == {other.name: f"{other.name} holds the files of {folder.name}"}
    assert newer.name not in problems(tmp_path)


def test_a_damaged_history_is_a_problem_with_its_line(tmp_path):
    export(tmp_path)
    path = market(tmp_path).history
    path.write_text(path.read_text() + "what?\n")
    assert problems(tmp_path) == {"history": "history.jsonl cannot be read in line 2"}
    path.unlink()
    path.mkdir()
    assert problems(tmp_path)["history"].startswith("history.jsonl cannot be read: ")


def test_a_market_copied_with_its_links_followed_is_checked_too(tmp_path):
    root = tmp_path / "models"
    shutil.copytree(GOLDEN / "format_1", root)
    assert problems(root) == {}
    (market(root).link / "metrics.json").write_text("{}")
    assert problems(root) == {"served": "metrics.json was changed after the export"}


def test_looking_at_versions_loads_no_torch(tmp_path):
    export(tmp_path, bars=draft().bars)
    code = (
        "import sys, pathlib; from percoin.registry.catalogue import *\n"
        "[check_market(m) for m in markets_in(pathlib.Path(sys.argv[1]))]\n"
        "sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def refuse_to_list(monkeypatch, refused: Path, number: int = errno.EACCES) -> None:
    """Root may list everything, so the refusal is made up."""
    listdir = os.listdir

    def list_or_refuse(path):
        if Path(path) == refused:
            raise OSError(number, os.strerror(number), str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", list_or_refuse)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_a_models_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path, monkeypatch, number):
    export(tmp_path)
    refuse_to_list(monkeypatch, tmp_path / "per_coin", number)
    with pytest.raises(ConfigError, match=f"models_dir={tmp_path} cannot be read"):
        list(markets_in(tmp_path))


def test_versions_that_cannot_be_listed_are_a_problem_of_their_market_alone(tmp_path, monkeypatch):
    export(tmp_path)
    export(tmp_path, symbol="ETHUSDT")
    refuse_to_list(monkeypatch, market(tmp_path).versions)
    assert [found.symbol for found in markets_in(tmp_path)] == [SYMBOL, "ETHUSDT"]
    with pytest.raises(UnreadableArtifactError, match=r"BTCUSDT 15m: .* cannot be read"):
        version_ids(market(tmp_path))
    assert set(problems(tmp_path)) == {"versions"}
    other = MarketFolder(tmp_path, "ETHUSDT", TIMEFRAME)
    assert not any(check.problem for check in check_market(other))


def test_a_version_pruned_while_it_is_checked_is_no_problem(tmp_path, monkeypatch):
    first, second = export(tmp_path, 1.0), export(tmp_path, 2.0)
    read_manifest = catalogue.read_manifest

    def prune_first(where, folder):
        if folder == first.resolve():
            shutil.rmtree(folder)
        return read_manifest(where, folder)

    monkeypatch.setattr(catalogue, "read_manifest", prune_first)
    assert [check.subject for check in check_market(market(tmp_path))] == [
        second.name,
        "served",
        "history",
    ]
    assert problems(tmp_path) == {}
