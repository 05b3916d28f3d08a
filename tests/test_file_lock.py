import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest

from percoin.errors import InUseError
from percoin.file_lock import LOCK_FILE, claimed, is_claimed, new_folder

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


def test_a_folder_that_another_process_has_made_is_not_shared(tmp_path):
    wanted = tmp_path / "runs" / "20250101-000000"
    made = [new_folder(wanted) for _ in range(3)]
    assert [folder.name for folder in made] == [
        "20250101-000000",
        "20250101-000000-2",
        "20250101-000000-3",
    ]
    assert all(folder.is_dir() for folder in made)


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
