import errno
import io
import os
import signal
import sys
from pathlib import Path

import pytest

from percoin.cli import run_command
from percoin.cli.console import Outlet
from percoin.errors import ConfigError
from percoin.memory import is_out_of_memory


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])


def prints(text: str):
    return lambda: print(text)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_letter_that_the_terminal_does_not_know_is_replaced(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert run_command(prints("0.10 … 0.20 ≥ 币"), "train") == 0
    assert written.getvalue() == b"0.10 ? 0.20 ? ?\n"


def test_a_process_without_an_output_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert run_command(prints("done"), "train") == 0
    assert run_command(prints("done"), "predict") == 0


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        ("train", 0, "warning: standard output is incomplete: No space left on device; the "),
        ("predict", 1, "error: standard output is incomplete: No space left on device\n"),
    ],
)
def test_a_full_disk_behind_the_output_stops_no_work(monkeypatch, capsys, name, code, line):
    done = []
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)

        def command() -> None:
            print("epoch 1", flush=True)
            print("epoch 2", flush=True)
            done.append("saved")

        assert run_command(command, name) == code
    assert done == ["saved"]
    assert capsys.readouterr().err.startswith(line)


def test_a_reader_that_has_ended_stops_no_work_and_leaves_no_line(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        done = []

        def command() -> None:
            print("epoch 1", flush=True)
            done.append("saved")

        assert run_command(command, "train") == 128 + signal.SIGPIPE
    assert done == ["saved"]
    assert capsys.readouterr().err == ""


def test_an_error_that_cannot_be_printed_keeps_its_exit_code(monkeypatch):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)

        def command() -> None:
            raise ConfigError("epochs=0 must be at least 1")

        assert run_command(command, "train") == 2


def test_an_outlet_is_the_stream_in_all_else():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    outlet = Outlet(stream)
    assert outlet.write("three") == 5
    assert outlet.encoding == "utf-8"
    assert outlet.isatty() is False
    assert outlet.failure is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 3.00 GiB for an array"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not execute a primitive"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=repr,
)
def test_a_lack_of_memory_is_one_line_that_says_so(capsys, error):
    def command() -> None:
        raise error

    assert is_out_of_memory(error)
    assert run_command(command, "train") == 1
    line = capsys.readouterr().err
    assert line.startswith("error: not enough memory: ")
    assert line.count("\n") == 1


def test_a_limit_below_the_size_of_the_libraries_is_named_before_they_are_loaded(
    monkeypatch, capsys
):
    monkeypatch.setattr("resource.getrlimit", lambda kind: (300_000 * 1024, 300_000 * 1024))
    assert run_command(lambda: pytest.fail("ran"), "predict") == 1
    assert capsys.readouterr().err.startswith("error: not enough memory: ")


def test_memory_that_arrow_does_not_get_is_known_as_such():
    import pyarrow

    with pytest.raises(pyarrow.ArrowMemoryError) as caught:
        pyarrow.allocate_buffer(1 << 60)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ImportError("no module named x")])
def test_other_errors_of_the_same_classes_keep_their_traceback(error):
    def command() -> None:
        raise error

    assert not is_out_of_memory(error)
    with pytest.raises(type(error)):
        run_command(command, "train")


def test_a_clock_far_in_the_future_is_named_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr("time.time", lambda: 253_339_228_800.0)
    assert run_command(lambda: pytest.fail("ran"), "predict") == 2
    assert "the clock of this machine shows the year 9998" in capsys.readouterr().err
