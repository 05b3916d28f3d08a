import errno
import fcntl
import math
import os
import subprocess
import sys
import threading
import time

import pytest

from percoin.errors import InUseError
from percoin.file_lock import LOCK_FILE, claimed, file_lock, folder_lock, is_claimed

HOLDER = """
import sys, time
from pathlib import Path
from percoin.file_lock import claimed
with claimed(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


def test_a_folder_belongs_to_one_process_until_that_dies(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "mine\n"
        assert is_claimed(tmp_path)
        with (
            pytest.raises(InUseError, match=f"is in use by process {holder.pid} on .*; end it"),
            claimed(tmp_path, advice="end it"),
        ):
            pytest.fail("it was somebody else's")
        holder.kill()
    assert not is_claimed(tmp_path)
    with claimed(tmp_path):
        assert is_claimed(tmp_path)
    assert not is_claimed(tmp_path)


def test_another_file_is_another_claim(tmp_path):
    with claimed(tmp_path), claimed(tmp_path, "other.lock"):
        assert is_claimed(tmp_path)


def test_a_folder_that_is_not_there_is_nobodys(tmp_path):
    assert not is_claimed(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_to_look_whether_a_folder_is_claimed_leaves_no_file_in_it(tmp_path):
    assert not is_claimed(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_locks_is_named(tmp_path, monkeypatch):
    def flock(descriptor, operation) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="not supported") as caught, claimed(tmp_path):
        pytest.fail("it was claimed")
    assert caught.value.filename == str(tmp_path / LOCK_FILE)
    assert not is_claimed(tmp_path)


def test_whoever_only_looks_does_not_keep_the_folder_from_its_process(tmp_path):
    with claimed(tmp_path):
        pass
    descriptor = os.open(tmp_path / LOCK_FILE, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    look = threading.Timer(0.05, os.close, [descriptor])
    look.start()
    with claimed(tmp_path):
        assert is_claimed(tmp_path)
    look.join()


def test_whoever_waits_is_told_so_once_and_gets_the_lock(tmp_path):
    path, told = tmp_path / "it.lock", []
    with file_lock(path):
        waiting = threading.Thread(target=_hold, args=(path, told))
        waiting.start()
        while not told:
            time.sleep(0.01)
    waiting.join(10)
    assert told == ["waiting", "mine"]


def _hold(path, told):
    with file_lock(path, math.inf, lambda: told.append("waiting")):
        told.append("mine")


def test_whoever_gives_up_learns_who_holds_the_lock(tmp_path):
    path = tmp_path / "it.lock"
    with (
        file_lock(path),
        pytest.raises(InUseError, match=f"it.lock is in use by process {os.getpid()} on "),
        file_lock(path, 0.05),
    ):
        pytest.fail("it was held twice")


def test_a_link_in_the_place_of_a_lock_is_refused(tmp_path):
    (tmp_path / "it.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"it\.lock"), file_lock(tmp_path / "it.lock"):
        pytest.fail("it was locked")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_is_shared_by_all_who_want_to_share_it_or_is_one_process_s(tmp_path):
    with (
        folder_lock(tmp_path, is_shared=True) as ours,
        folder_lock(tmp_path, is_shared=True) as too,
        folder_lock(tmp_path) as alone,
    ):
        assert (ours, too, alone) == (True, True, False)
    with folder_lock(tmp_path) as alone:
        assert alone
    assert list(tmp_path.iterdir()) == []
