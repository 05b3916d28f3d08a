"""One answer to Ctrl-C and SIGTERM."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from percoin.cli import run_command
from percoin.interruption import STOPPING, Interrupted, StopSignals, interruptible

WAITING = """
import signal, time
from percoin.interruption import StopSignals, interruptible
with {how}:
    said = "ready"
    while True:
        try:
            print(said, flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            said = "caught"
        else:
            said = "noted"
"""

IGNORING = """
import os, signal
from percoin.interruption import StopSignals, interruptible
signal.signal(signal.SIGINT, signal.SIG_IGN)
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    print("ignored", flush=True)
with {how}:
    try:
        interrupt()
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        pass
    print("caught", flush=True)
    interrupt()
print("left" if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else "taken away")
"""


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in STOPPING]


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_raised_where_the_program_is_and_told_by_its_name(number):
    usual = handlers()
    with pytest.raises(Interrupted) as caught, interruptible():
        os.kill(os.getpid(), number)
    assert caught.value.number == number
    assert handlers() == usual


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_noted_until_somebody_asks(number):
    usual, signals = handlers(), StopSignals()
    with signals.noted():
        assert signals.first is None
        os.kill(os.getpid(), number)
        assert (signals.first, signals.is_urgent) == (number, False)
    assert handlers() == usual


def test_whoever_has_processes_to_end_hears_the_second_signal_too():
    usual, signals = handlers(), StopSignals(second_ends_process=False)
    with signals.noted():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert (signals.first, signals.is_urgent) == (signal.SIGTERM, True)
    assert handlers() == usual


def test_one_answer_within_another_gives_it_back():
    signals = StopSignals()
    with interruptible():
        outer = handlers()
        with signals.noted():
            os.kill(os.getpid(), signal.SIGTERM)
        assert handlers() == outer
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("how", ["interruptible()", "StopSignals().noted()"])
@pytest.mark.parametrize("number", STOPPING)
def test_the_second_signal_ends_the_process_at_once(how, number):
    with subprocess.Popen(
        [sys.executable, "-c", WAITING.format(how=how)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        if how == "interruptible()":
            assert process.stdout.readline() == "caught\n"
        else:
            # Nothing tells when a noted signal has been noted.
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
        process.send_signal(number)
        assert process.wait(30) == -number


@pytest.mark.parametrize("how", ["interruptible()", "StopSignals().noted()"])
def test_what_the_process_was_started_to_ignore_is_ignored_throughout(how):
    with subprocess.Popen(
        [sys.executable, "-c", IGNORING.format(how=how)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read().split()
    assert (said, process.returncode) == (["ignored", "caught", "ignored", "left"], 0)


def test_in_another_thread_signals_stay_what_they_were():
    usual, during = handlers(), []

    def look() -> None:
        with interruptible(), StopSignals().noted():
            during.append(handlers())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert during == [usual]


@pytest.mark.parametrize("number", STOPPING)
def test_every_command_ends_at_a_signal_with_one_line_and_128_more(number, capsys):
    usual = handlers()
    code = run_command(lambda: os.kill(os.getpid(), number), "fetch")
    assert (code, capsys.readouterr().err) == (128 + number, "error: interrupted\n")
    assert handlers() == usual
