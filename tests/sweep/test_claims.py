import subprocess
import sys

import pytest

from percoin.errors import SweepError
from percoin.sweep.claims import claimed, is_claimed

HOLDER = """
import sys, time
from pathlib import Path
from percoin.sweep.claims import claimed
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
            pytest.raises(SweepError, match=f"is in use by process {holder.pid} on .*; end it"),
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
