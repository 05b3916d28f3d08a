import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import artifact_builders as builders
import pytest
from artifact_builders import SYMBOL, TIMEFRAME, check_whole, export, load

from percoin.errors import InvalidArtifactError, RegistryWriteError, UnreadableArtifactError
from percoin.file_lock import folder_lock
from percoin.registry import artifact, publish
from percoin.registry.artifact import check_writable
from percoin.registry.layout import (
    HASHED_FILES,
    MANIFEST_FILE,
    METRICS_FILE,
    TEMPORARY_PREFIX,
    MarketFolder,
)
from percoin.registry.manifest import Gate, StoredVerdict

KILLER = Path(__file__).with_name("killed_exports.py")


def market(root) -> MarketFolder:
    return MarketFolder(root, SYMBOL, TIMEFRAME)


def versions(root) -> list[Path]:
    return sorted(market(root).versions.glob("2*"))


def leftovers(root) -> list[Path]:
    return list(root.rglob(f"{TEMPORARY_PREFIX}*"))


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("killed")
    result = subprocess.run(
        [sys.executable, KILLER, folder], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "before"), [("first", "none"), ("replace", "old")])
def test_a_process_killed_at_any_step_of_an_export_leaves_the_old_version_or_the_new(
    reports, mode, before
):
    outcomes = reports[mode]["outcomes"]
    assert len(outcomes) > 30
    n_before = outcomes.count(before)
    assert outcomes == [before] * n_before + ["new"] * (len(outcomes) - n_before)
    assert "new" in outcomes
    # The kills did hit exports under way.
    assert reports[mode]["leftovers"] > 5


@pytest.mark.slow
def test_exports_killed_at_random_moments_always_leave_a_whole_version(reports):
    report = reports["random"]
    assert len(report["values"]) == 40
    assert len(set(report["values"])) > 1


@pytest.mark.slow
def test_processes_exporting_at_once_leave_whole_versions(reports):
    report = reports["at_once"]
    assert report["statuses"] == [0, 0, 0]
    assert report["versions"] == 30
    assert report["leftovers"] == 0
    assert report["value"] in {9.0, 109.0, 209.0}


def test_everything_is_on_the_disk_before_the_link_moves(tmp_path, monkeypatch):
    steps = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace

    def recording_fsync(descriptor):
        steps.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def recording_rename(path, target):
        steps.append(("rename", Path(target).name))
        return rename(path, target)

    def recording_replace(path, target):
        steps.append(("swap", Path(target).name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "rename", recording_rename)
    monkeypatch.setattr(Path, "replace", recording_replace)
    folder = export(tmp_path)
    aside = f"{TEMPORARY_PREFIX}{folder.name}"
    files = ["cnn_lstm_best.pth", "cnn_lstm_v1.pth", "scaler.pkl", "metrics.json", "meta.json"]
    assert steps == [
        *[("sync", name) for name in files],
        ("sync", aside),
        ("sync", "history.jsonl"),
        ("sync", "15m"),
        ("rename", folder.name),
        ("sync", "15m"),
        ("sync", ".versions"),
        ("sync", SYMBOL),
        ("swap", "15m"),
        ("sync", SYMBOL),
        ("sync", "per_coin"),
        ("sync", tmp_path.name),
    ]


def test_earlier_versions_stay(tmp_path):
    folders = [export(tmp_path, value) for value in (1.0, 2.0, 3.0)]
    assert versions(tmp_path) == folders
    assert check_whole(load(tmp_path)) == 3.0


def test_the_models_folder_can_move(tmp_path):
    export(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert check_whole(load(tmp_path / "there")) == 0.5


def test_what_a_killed_export_left_is_cleared_by_the_next_one(tmp_path):
    export(tmp_path, 1.0)
    half = market(tmp_path).temporary("20250101T000000000000Z-0123456789ab")
    half.mkdir()
    (half / "cnn_lstm_v1.pth").write_bytes(b"half")
    market(tmp_path).temporary("link").symlink_to("nowhere")
    assert check_whole(load(tmp_path)) == 1.0
    export(tmp_path, 2.0)
    assert leftovers(tmp_path) == []
    assert check_whole(load(tmp_path)) == 2.0


def test_a_reader_never_fails_while_versions_are_exported(tmp_path):
    export(tmp_path, 0.0)

    def export_many() -> None:
        for value in range(1, 60):
            export(tmp_path, float(value), n_values=2_000)

    seen = []
    with ThreadPoolExecutor(1) as pool:
        exports = pool.submit(export_many)
        while not exports.done():
            seen.append(check_whole(load(tmp_path)))
    exports.result()
    assert seen == sorted(seen)
    assert len(set(seen)) > 5


def test_a_reader_that_resolved_the_link_before_a_swap_reads_one_version(tmp_path, monkeypatch):
    export(tmp_path, 1.0)
    read_file = publish.read_file

    def swap_after_the_manifest(where, folder, name):
        content = read_file(where, folder, name)
        if name == MANIFEST_FILE:
            monkeypatch.setattr(publish, "read_file", read_file)
            export(tmp_path, 2.0)
        return content

    monkeypatch.setattr(publish, "read_file", swap_after_the_manifest)
    assert check_whole(load(tmp_path)) == 1.0
    assert check_whole(load(tmp_path)) == 2.0


def test_an_export_waits_for_the_one_under_way(tmp_path):
    export(tmp_path, 1.0)
    waiting = threading.Thread(target=export, args=(tmp_path, 2.0))
    with publish._locked(market(tmp_path)):
        waiting.start()
        time.sleep(0.2)
        assert check_whole(load(tmp_path)) == 1.0
        assert leftovers(tmp_path) == []
    waiting.join()
    assert check_whole(load(tmp_path)) == 2.0


def test_an_export_gives_up_on_a_lock_that_is_never_released(tmp_path, monkeypatch):
    export(tmp_path, 1.0)
    monkeypatch.setattr(publish, "_LOCK_TIMEOUT_SECS", 0.05)
    with publish._locked(market(tmp_path)), pytest.raises(RegistryWriteError) as raised:
        export(tmp_path, 2.0)
    # Not only exports wait for it.
    assert f"process {os.getpid()} on " in str(raised.value)
    assert "has held" in str(raised.value)
    assert "try again when it is done" in str(raised.value)
    assert check_whole(load(tmp_path)) == 1.0


def failing_fsync(call: int, code: int):
    fsync, calls = os.fsync, iter(range(1, 100))

    def fail(descriptor):
        if next(calls) == call:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    return fail


@pytest.mark.parametrize("call", range(1, 12))
def test_a_disk_that_fills_up_during_an_export_leaves_the_old_version(tmp_path, monkeypatch, call):
    export(tmp_path, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_fsync(call, errno.ENOSPC))
        with pytest.raises(RegistryWriteError, match="No space left on device; free some space"):
            export(tmp_path, 2.0)
    assert check_whole(load(tmp_path)) == 1.0
    assert len(versions(tmp_path)) == 1
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("call", range(12, 15))
def test_a_failure_after_the_swap_is_told_and_the_new_version_kept(tmp_path, monkeypatch, call):
    export(tmp_path, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_fsync(call, errno.EIO))
        with pytest.raises(RegistryWriteError, match="Input/output error"):
            export(tmp_path, 2.0)
    assert check_whole(load(tmp_path)) == 2.0
    assert leftovers(tmp_path) == []


def test_an_interrupted_export_leaves_the_old_version_and_nothing_else(tmp_path, monkeypatch):
    export(tmp_path, 1.0)

    def interrupt(path, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(tmp_path, 2.0)
    assert check_whole(load(tmp_path)) == 1.0
    assert len(versions(tmp_path)) == 1
    assert leftovers(tmp_path) == []


def test_a_real_write_that_is_cut_short_leaves_the_old_version(tmp_path):
    export(tmp_path, 1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(RegistryWriteError, match="File too large"):
            export(tmp_path, 2.0, n_values=20_000)
        with pytest.raises(RegistryWriteError, match="File too large"):
            check_writable(tmp_path, SYMBOL, TIMEFRAME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert check_whole(load(tmp_path)) == 1.0
    assert len(versions(tmp_path)) == 1
    assert leftovers(tmp_path) == []


def file_as_root(root):
    root.write_text("a file")


def file_as_market(root):
    (root / "per_coin").mkdir(parents=True)
    (root / "per_coin" / SYMBOL).write_text("a file")


def file_as_versions(root):
    (root / "per_coin" / SYMBOL).mkdir(parents=True)
    (root / "per_coin" / SYMBOL / ".versions").write_text("a file")


def folder_as_link(root):
    (root / "per_coin" / SYMBOL / TIMEFRAME.value).mkdir(parents=True)


def market_elsewhere(root):
    (root.parent / "elsewhere").mkdir()
    (root / "per_coin").mkdir(parents=True)
    (root / "per_coin" / SYMBOL).symlink_to(root.parent / "elsewhere")


def market_in_a_loop(root):
    (root / "per_coin").mkdir(parents=True)
    (root / "per_coin" / SYMBOL).symlink_to(SYMBOL)


def versions_elsewhere(root):
    elsewhere = root.parent / "elsewhere" / TIMEFRAME.value
    elsewhere.mkdir(parents=True)
    (root / "per_coin" / SYMBOL).mkdir(parents=True)
    (root / "per_coin" / SYMBOL / ".versions").symlink_to(elsewhere.parent)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (file_as_root, "Not a directory"),
        (file_as_market, "Not a directory|File exists"),
        (file_as_versions, "Not a directory|File exists"),
        (folder_as_link, "is not a link to a version"),
        (market_elsewhere, "leads out of the models folder"),
        (market_in_a_loop, "leads out of the models folder"),
        (versions_elsewhere, "leads out of the models folder"),
    ],
)
def test_a_models_folder_that_cannot_be_written_is_refused_before_and_after_training(
    tmp_path, spoil, found
):
    root = tmp_path / "models"
    spoil(root)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RegistryWriteError, match=rf"BTCUSDT 15m: .*({found})"):
        check_writable(root, SYMBOL, TIMEFRAME)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(RegistryWriteError, match=rf"BTCUSDT 15m: .*({found})"):
        export(root)
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("root", ["/proc/models", "/dev/null", f"/tmp/{'m' * 300}"])
def test_a_place_that_takes_no_files_is_refused_before_and_after_training(root):
    with pytest.raises(RegistryWriteError, match="cannot write to"):
        check_writable(Path(root), SYMBOL, TIMEFRAME)
    with pytest.raises(RegistryWriteError, match="cannot write to"):
        export(Path(root))


def test_a_path_too_long_for_a_versions_files_is_refused_before_training(tmp_path):
    root = tmp_path
    while len(str(root)) < 3_900:
        root = root / ("m" * 200)
    root = root / ("m" * (4_000 - len(str(root))))
    with pytest.raises(RegistryWriteError, match="File name too long"):
        check_writable(root, SYMBOL, TIMEFRAME)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused_before_training(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RegistryWriteError, match="Permission denied"):
        check_writable(tmp_path, SYMBOL, TIMEFRAME)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("exported", [False, True])
def test_the_check_before_a_training_leaves_no_trace(tmp_path, exported):
    root = tmp_path / "not" / "yet" / "there"
    if exported:
        export(root)
    before = sorted(tmp_path.rglob("*"))
    check_writable(root, SYMBOL, TIMEFRAME)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_relative_models_folder_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_writable(Path("models"), SYMBOL, TIMEFRAME)
    export(Path("models"))
    assert check_whole(builders.load(Path("models"))) == 0.5
    assert str(Path(f"models/per_coin/{SYMBOL}/15m").readlink()).startswith(".versions/15m/")


def probe_left_in(folder: Path) -> Path:
    """What a process killed while it tried a folder leaves there."""
    probe = folder / ".probe-k1ll3d__"
    probe.mkdir(parents=True)
    (probe / "link").symlink_to("nowhere")
    return probe


@pytest.mark.parametrize("write", [export, lambda root: check_writable(root, SYMBOL, TIMEFRAME)])
def test_probes_of_killed_processes_are_cleared_away_by_the_next_writer(tmp_path, write):
    export(tmp_path)
    folders = [market(tmp_path).folder, market(tmp_path).versions]
    if write is export:
        folders += [tmp_path, tmp_path / "per_coin"]
    probes = [probe_left_in(folder) for folder in folders]
    write(tmp_path)
    assert [probe for probe in probes if probe.exists()] == []


def test_a_probe_under_way_is_left_alone_and_its_writer_finds_it(tmp_path):
    export(tmp_path)
    probe = probe_left_in(market(tmp_path).folder)
    with folder_lock(market(tmp_path).folder, is_shared=True) as is_locked:
        assert is_locked
        export(tmp_path)
        assert (probe / "link").is_symlink()
    export(tmp_path)
    assert not probe.exists()


def test_a_probe_holds_the_folder_while_it_lives(tmp_path, monkeypatch):
    export(tmp_path)
    replace, seen = Path.replace, []

    def look(path, target):
        if target.name == "served":
            publish._remove_stale_probes(path.parents[1])
            seen.append(path.is_symlink())
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", look)
    check_writable(tmp_path, SYMBOL, TIMEFRAME)
    assert seen == [True, True]


def test_a_folder_that_only_looks_like_a_probe_stays(tmp_path):
    export(tmp_path)
    mine = market(tmp_path).folder / ".probe-mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("kept")
    export(tmp_path)
    assert (mine / "notes.txt").read_text() == "kept"


def test_a_reader_whose_version_is_pruned_under_it_takes_the_next(tmp_path, monkeypatch):
    first, second = export(tmp_path, 1.0), export(tmp_path, 2.0)
    read_files = artifact.read_files

    def prune_before(where, folder, manifest):
        if folder == second.resolve():
            where.link.unlink()
            where.link.symlink_to(where.link_target(first.name))
            shutil.rmtree(folder)
        return read_files(where, folder, manifest)

    monkeypatch.setattr(artifact, "read_files", prune_before)
    assert check_whole(load(tmp_path)) == 1.0


def test_a_reader_whose_version_is_pruned_before_it_is_found_takes_the_next(tmp_path, monkeypatch):
    first, second = export(tmp_path, 1.0), export(tmp_path, 2.0)
    checked_folder = publish._checked_folder

    def prune_before(where, target):
        if target == where.link_target(second.name):
            where.link.unlink()
            where.link.symlink_to(where.link_target(first.name))
            shutil.rmtree(second)
        return checked_folder(where, target)

    monkeypatch.setattr(publish, "_checked_folder", prune_before)
    assert check_whole(load(tmp_path)) == 1.0


def test_a_version_that_stays_broken_is_told_and_not_looked_at_for_ever(tmp_path):
    (export(tmp_path) / METRICS_FILE).unlink()
    with pytest.raises(UnreadableArtifactError, match=r"metrics\.json is missing"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "ulimit -n"),
        (errno.EACCES, "make it readable for the user"),
        (errno.EIO, "check the disk"),
    ],
)
@pytest.mark.parametrize("name", [MANIFEST_FILE, *HASHED_FILES])
def test_what_fails_for_a_passing_reason_is_told_from_what_is_wrong(
    tmp_path, monkeypatch, name, number, advice
):
    export(tmp_path)
    opened = os.open

    def refuse(path, *args, **kwargs):
        if Path(path).name == name:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(UnreadableArtifactError, match=f"{name} cannot be read: .*{advice}"):
            load(tmp_path)
    assert check_whole(load(tmp_path)) == 0.5


def test_a_changed_file_is_no_passing_reason(tmp_path):
    (export(tmp_path) / METRICS_FILE).write_bytes(b"{}")
    with pytest.raises(InvalidArtifactError) as caught:
        load(tmp_path)
    assert not isinstance(caught.value, UnreadableArtifactError)


def test_an_accepted_version_that_cannot_be_read_now_gives_way_to_no_rejected_one(
    tmp_path, monkeypatch
):
    accepted = export(tmp_path, gate=Gate(StoredVerdict.ACCEPTED, ("skill",)))
    opened = os.open

    def refuse(path, *args, **kwargs):
        if Path(path) == accepted / MANIFEST_FILE:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    export(tmp_path, 1.0, gate=Gate(StoredVerdict.REJECTED, ("no skill",)))
    assert publish.served_id(market(tmp_path)) == accepted.name
    newest = export(tmp_path, 2.0, gate=Gate(StoredVerdict.ACCEPTED, ("skill",)))
    assert publish.served_id(market(tmp_path)) == newest.name
