"""Runs jobs as processes of this machine, each with its share of the cores.

Each job gets a new process, so jobs share no state. The process is forked from a server
that has imported everything, so a start takes some hundredths of a second. If a process
dies, only its own job is lost. No process outlives the sweep.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tqdm import tqdm

from percoin.config import LauncherConfig, TrainConfig
from percoin.errors import PercoinError
from percoin.interruption import STOPPING
from percoin.sweep.engine import Attempt, Ending

_PRELOAD = "percoin.sweep.engines.preload"
# The libraries read these once, when the server imports them.
_THREADS_OF = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# Without these settings the imports start threads, and the server must have none.
_NO_THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # of pyarrow
}
# Time from SIGTERM to the forced end of the process after the sweep is gone.
_GRACE_SECS = 20.0
# Exit code that multiprocessing reports when its server is gone.
_LOST = 255
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def build_engine(launcher: LauncherConfig, settings: TrainConfig, n_jobs: int) -> ProcessEngine:
    """Run ``settings.workers`` processes at a time, else one per core."""
    n_cores = usable_cores()
    n_slots = min(settings.workers or n_cores, n_jobs)
    return ProcessEngine(n_slots, n_threads=max(1, n_cores // n_slots))


def usable_cores() -> int:
    """Number of cores that this process may use, limited by the quota of its container."""
    n_cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        n_cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return n_cores
    return n_cores if quota == "max" else min(n_cores, max(1, int(quota) // int(period)))


@dataclass(frozen=True)
class _RunningProcess:
    attempt: Attempt
    process: ForkServerProcess
    last_words: Connection


class ProcessEngine:
    """Runs each attempt in its own process.

    Args:
        n_slots: Number of processes at a time.
        n_threads: Number of threads of each process.
    """

    def __init__(self, n_slots: int, n_threads: int) -> None:
        self.n_slots = n_slots
        self._n_threads = n_threads
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([_PRELOAD])
        self._running: list[_RunningProcess] = []

    def start(self, attempt: Attempt) -> None:
        """Fork a process for the attempt; the first one waits for the server's imports.

        Raises:
            OSError: The server was just killed; the next attempt gets a new server.
        """
        attempt = replace(attempt, n_threads=self._n_threads)
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_work, args=(attempt, theirs), name=attempt.job.name, daemon=True
        )
        try:
            with _signals_held_back(), _threads_limited(self._n_threads):
                process.start()
        except (OSError, EOFError) as error:
            ours.close()
            raise OSError(f"could not be started ({error})") from error
        finally:
            theirs.close()
        self._running.append(_RunningProcess(attempt, process, ours))

    def wait(self, timeout_secs: float) -> Sequence[Ending]:
        """Wait for attempts whose processes end."""
        connection.wait([each.process.sentinel for each in self._running], timeout_secs)
        ended = [each for each in self._running if each.process.exitcode is not None]
        self._running = [each for each in self._running if each not in ended]
        return [_ending(each) for each in ended]

    def keeps(self, attempt: Attempt) -> bool:
        """Always False: no process outlives its sweep."""
        return False

    def interrupt(self) -> None:
        """Send SIGTERM to all processes."""
        for running in self._running:
            running.process.terminate()

    def close(self) -> None:
        """Kill the running processes."""
        for running in self._running:
            running.process.kill()
        for running in self._running:
            running.process.join()
            _ending(running)
        self._running = []


def _ending(running: _RunningProcess) -> Ending:
    """Describe how an ended process ended."""
    code = running.process.exitcode
    words = _last_words(running.last_words)
    pid = running.process.pid
    if code == _LOST and pid is not None:
        # Without the server the end of the job cannot be seen, so the job is killed.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.process.close()
    return Ending(running.attempt, _death(code, words))


def _death(code: int | None, words: str | None) -> str | None:
    if code == 0:
        return None
    if code == _LOST:
        return "lost: the process that starts the jobs was killed"
    if code is not None and code < 0:
        hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{hint}"
    return words or f"its process ended with exit code {code}"


def _last_words(receiver: Connection) -> str | None:
    try:
        return str(receiver.recv()) if receiver.poll() else None
    except EOFError:
        return None
    finally:
        receiver.close()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM in new processes until they can handle them.

    The server, which lives as long as the sweep, and its jobs inherit the block. Ctrl-C on
    a terminal reaches all processes, but only the sweep must react to it.
    """
    # It starts first, because multiprocessing unblocks both signals when it starts it.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _threads_limited(n_threads: int) -> Iterator[None]:
    """Set the number of threads that libraries use in new processes."""
    limits = {**dict.fromkeys(_THREADS_OF, str(n_threads)), **_NO_THREADS}
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(attempt: Attempt, last_words: Connection) -> None:
    """Main function of a job's process."""
    # The server has imported it already; the sweep itself needs no training library.
    from percoin.sweep.worker import run_attempt

    # tqdm's default lock is a system semaphore, which a killed job would leave behind.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    try:
        run_attempt(attempt)
    except PercoinError as error:
        last_words.send(str(error))
        sys.exit(1)
    except OSError as error:
        last_words.send(f"it could not record its result: {error.filename}: {error.strerror}")
        sys.exit(1)


def _end_with_the_sweep() -> None:
    """Stop this process once the process of the sweep has ended."""
    if sweep := multiprocessing.parent_process():
        connection.wait([sweep.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECS)
    os._exit(1)
