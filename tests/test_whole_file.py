"""One way to write a file: whole or not at all, whatever happens meanwhile."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from percoin.whole_file import remove_leftovers, sync_folder, write_new, write_whole

OLD, NEW = "old\n", "new\n" * 1000

ENDLESS = """
import sys
from pathlib import Path
from percoin.whole_file import write_whole

def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.readline()

write_whole(Path(sys.argv[1]), write)
"""
MANY = """
import sys
from pathlib import Path
from percoin.whole_file import write_whole
for _ in range(200):
    write_whole(Path(sys.argv[1]), sys.argv[2] * 50_000, is_synced=False)
"""


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "it.txt"
    path.write_text(OLD)
    return path


def others(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir() if entry.name != path.name)


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("content", "written"),
    [
        ("ä\n", "ä\n".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (memoryview(b"seen"), b"seen"),
        (lambda file: file.write(b"streamed"), b"streamed"),
    ],
)
def test_text_bytes_and_what_a_function_writes_take_the_place_of_the_old(path, content, written):
    write_whole(path, content)
    assert path.read_bytes() == written
    assert others(path) == []


def test_a_new_file_has_the_permissions_of_a_plain_write(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "ours", OLD)
        (tmp_path / "plain").write_text(OLD)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o640}


def test_a_file_that_was_there_keeps_its_permissions(path):
    path.chmod(0o604)
    write_whole(path, NEW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_link_is_followed_and_stays(path, tmp_path):
    link = tmp_path / "folder" / "link.txt"
    link.parent.mkdir()
    link.symlink_to("../it.txt")
    write_whole(link, NEW)
    assert link.is_symlink()
    assert path.read_text() == NEW
    assert others(link) == []


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_whoever_is_killed_meanwhile_leaves_the_old_file_and_a_leftover_that_is_found(path, kind):
    with run(ENDLESS, path) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        writer.send_signal(kind)
        assert writer.wait(30) == -kind
    assert path.read_text() == OLD
    assert len(others(path)) == 1
    remove_leftovers(path)
    assert others(path) == []


def test_ctrl_c_meanwhile_leaves_the_old_file_and_nothing_else(path):
    with run(ENDLESS, path) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        writer.send_signal(signal.SIGINT)
        writer.wait(30)
    assert path.read_text() == OLD
    assert others(path) == []


def test_a_disk_that_is_full_is_told_with_the_file_s_name_and_leaves_the_old_one(path):
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, full)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text() == OLD
    assert others(path) == []


def full(file) -> None:
    file.write(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_grows_too_large_for_the_system_leaves_the_old_one(path):
    usual, limits = signal.getsignal(signal.SIGXFSZ), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write_whole(path, NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, usual)
    assert caught.value.filename == str(path)
    assert path.read_text() == OLD
    assert others(path) == []


def test_a_disk_that_fails_to_sync_leaves_the_old_file(path, monkeypatch):
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_whole(path, NEW)
    assert path.read_text() == OLD
    assert others(path) == []


def test_what_goes_wrong_while_it_is_written_leaves_the_old_file(path):
    def fail(file) -> None:
        file.write(b"half")
        raise ValueError("no such figure")

    with pytest.raises(ValueError, match="no such figure"):
        write_whole(path, fail)
    assert path.read_text() == OLD
    assert others(path) == []


def test_writers_at_once_leave_one_s_whole_file(path):
    writers = [run(MANY, path, letter) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen.add(path.read_text())
        time.sleep(0.001)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen <= {OLD, "a" * 50_000, "b" * 50_000}
    assert len(seen) > 1
    assert path.read_text() in seen - {OLD}
    assert others(path) == []
    for writer in writers:
        writer.communicate()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(path):
    path.parent.chmod(0o555)
    try:
        with pytest.raises(PermissionError) as caught:
            write_whole(path, NEW)
    finally:
        path.parent.chmod(0o755)
    assert caught.value.filename == str(path)
    assert path.read_text() == OLD


def test_a_folder_that_takes_no_file_is_named(path, monkeypatch):
    """The same for root, whom no permission stops."""

    def refuse(*_arguments, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", "another name")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError) as caught:
        write_whole(path, NEW)
    assert caught.value.filename == str(path)
    assert others(path) == []


def test_a_folder_in_the_file_s_place_is_named(tmp_path):
    (tmp_path / "it").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_whole(tmp_path / "it", NEW)
    assert caught.value.filename == str(tmp_path / "it")
    assert others(tmp_path / "it") == []


@pytest.mark.parametrize(
    ("write", "steps"),
    [
        (write_whole, ["sync .tmp", "move it.txt", "sync folder"]),
        (partial(write_whole, is_synced=False), ["move it.txt"]),
    ],
)
def test_content_is_on_the_disk_before_the_name_is_and_the_name_before_it_returns(
    tmp_path, monkeypatch, write, steps
):
    done = []
    sync, move = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        if name.is_file():
            assert name.read_text() == NEW
        done.append(f"sync {name.suffix or name.name}")
        sync(descriptor)

    def note_move(path: Path, target: Path) -> Path:
        done.append(f"move {target.name}")
        return move(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_move)
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "it.txt", NEW)
    assert done == steps


def fail_to_sync_folders(monkeypatch, number: int) -> list[int]:
    """The folders' descriptors that the system then refused to sync."""
    sync, refused = os.fsync, []

    def refuse(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return sync(descriptor)
        refused.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    return refused


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_syncs_no_folders_is_used_as_it_is(path, monkeypatch, number):
    refused = fail_to_sync_folders(monkeypatch, number)
    write_whole(path, NEW)
    assert len(refused) == 1
    assert path.read_text() == NEW
    assert others(path) == []


def test_a_folder_that_fails_to_sync_is_told_and_the_new_file_is_there(path, monkeypatch):
    refused = fail_to_sync_folders(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_whole(path, NEW)
    assert caught.value.filename == str(path)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(path.parent)
    assert len(refused) == 2
    assert path.read_text() == NEW
    assert others(path) == []


def test_leftovers_of_other_files_stay(path):
    left = path.with_name(f".it.txt.{'a' * 32}.tmp")
    kept = [f".it.tx.{'a' * 32}.tmp", f"it.txt.{'a' * 32}.tmp", ".it.txt.mine.tmp"]
    for name in (left.name, *kept):
        path.with_name(name).write_text("half")
    remove_leftovers(path)
    assert others(path) == sorted(kept)
    remove_leftovers(path.parent / "nowhere" / "it.txt")


def test_a_new_file_takes_no_other_one_s_place(path):
    with pytest.raises(FileExistsError):
        write_new(path, NEW)
    assert path.read_text() == OLD
