"""Runs jobs as tasks of a Ray cluster: a new one on this machine, or an existing one.

Ray finds a machine for each task and runs the task in its own process, which ends with it.
If a process dies, only its job is lost, and the sweep decides whether to try it again.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from percoin.config import RayConfig, TrainConfig
from percoin.errors import ConfigError, SweepError
from percoin.sweep.engine import Attempt, Ending
from percoin.sweep.engines.processes import usable_cores
from percoin.sweep.engines.remote_attempt import RemoteAttempt, gpus_of_a_job

log = logging.getLogger(__name__)

_TOKEN = "RAY_AUTH_TOKEN"
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
_AUTH_MODE = "RAY_AUTH_MODE"
_TOKEN_FILE = Path(".ray", "auth_token")
# Jobs exchange files, not objects, so this is the smallest size that Ray allows.
_OBJECT_STORE_BYTES = 75 * 1024**2
_CONNECT_TIMEOUT_SECS = 10.0
_CLUSTER_CHECK_SECS = 10.0
_GONE = "the Ray cluster has ended under the sweep; once there is one, the same command goes on"


def build_engine(launcher: RayConfig, settings: TrainConfig, n_jobs: int) -> RayEngine:
    """Connect to the cluster at ``launcher.address``, or start one on this machine.

    Raises:
        ConfigError: Ray is not installed, or no machine has the CPUs and GPUs that a job needs.
        SweepError: No cluster answers at the address, or Ray cannot start one.
    """
    n_cpus, n_gpus = launcher.cpus_per_job, gpus_of_a_job(launcher.gpus_per_job, settings)
    if launcher.address is None:
        ray, folder = _start_cluster(_cpus_to_offer(n_cpus, settings.workers, n_jobs))
    else:
        ray, folder = _connect(launcher.address), None
    n_fitting = fitting_jobs(ray.nodes(), n_cpus, n_gpus)
    if n_fitting == 0:
        _leave(ray, folder)
        raise ConfigError(
            f"no machine of the Ray cluster has {n_cpus} CPUs and {n_gpus:g} GPUs for a job: "
            "lower hydra.launcher.cpus_per_job or hydra.launcher.gpus_per_job"
        )
    # Jobs that do not fit now wait in Ray's queue for machines that get free or join later.
    n_slots = min(settings.workers or n_fitting, n_jobs)
    log.info("Ray runs %d jobs at a time", n_slots)
    return RayEngine(ray, settings, n_slots, (n_cpus, n_gpus), folder)


def _cpus_to_offer(n_cpus: int, workers: int | None, n_jobs: int) -> int:
    """CPUs of a cluster on this machine: enough for ``workers`` jobs, else all cores.

    Raises:
        ConfigError: The machine has too few cores for one job.
    """
    if workers is not None:
        return min(workers, n_jobs) * n_cpus
    n_cores = usable_cores()
    if n_cpus > n_cores:
        raise ConfigError(f"hydra.launcher.cpus_per_job={n_cpus}: this machine has {n_cores}")
    return min(n_cores, n_jobs * n_cpus)


class RayEngine:
    """Runs each attempt as a task of the cluster that this process is connected to.

    Args:
        ray: The library.
        settings: Settings of any of the sweep's jobs.
        n_slots: Number of tasks at a time.
        share: CPUs and GPUs of a task.
        folder: Folder of a cluster that this sweep started; None for an existing cluster,
            which stays when the sweep ends.
    """

    def __init__(
        self,
        ray: Any,
        settings: TrainConfig,
        n_slots: int,
        share: tuple[int, float],
        folder: Path | None = None,
    ) -> None:
        self.n_slots = n_slots
        self._ray = ray
        self._settings = settings
        self._n_threads, n_gpus = share
        self._folder = folder
        # One process per task; the sweep decides on second tries.
        options = {"max_calls": 1, "max_retries": 0, "num_cpus": share[0], "num_gpus": n_gpus}
        self._task = ray.remote(**options)(_run)
        self._running: dict[Any, Attempt] = {}
        self._checked_at = time.monotonic()

    def start(self, attempt: Attempt) -> None:
        """Submit the attempt to Ray."""
        remote = RemoteAttempt.prepare(attempt, self._settings, self._n_threads)
        self._running[self._task.options(name=attempt.job.name).remote(remote)] = remote.attempt

    def wait(self, timeout_secs: float) -> Sequence[Ending]:
        """Wait for attempts whose tasks end.

        Raises:
            SweepError: The cluster is gone.
        """
        if not self._running:
            return ()
        tasks = list(self._running)
        ended, _ = self._ray.wait(tasks, timeout=timeout_secs)
        if not ended:
            self._check_cluster()
            return ()
        ended, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return [Ending(self._running.pop(task), _death(self._ray, task)) for task in ended]

    def keeps(self, attempt: Attempt) -> bool:
        """Always False: Ray ends the tasks of a sweep that is gone."""
        return False

    def interrupt(self) -> None:
        """Let Ray interrupt all tasks by their SIGINT handler, else by a KeyboardInterrupt.

        Tasks that wait for a machine never start.
        """
        for task in self._running:
            self._ray.cancel(task, recursive=False)

    def close(self) -> None:
        """Leave the cluster, which ends all tasks; a cluster that this sweep started ends too."""
        self._running = {}
        _leave(self._ray, self._folder)

    def _check_cluster(self) -> None:
        """Raise an error if no machine is left; Ray itself would wait forever."""
        if time.monotonic() - self._checked_at < _CLUSTER_CHECK_SECS:
            return
        self._checked_at = time.monotonic()
        if not any(node["Alive"] for node in self._ray.nodes()):
            raise SweepError(_GONE)


def _run(remote: RemoteAttempt) -> str | None:
    """Main function of a task."""
    return remote()


def _death(ray: Any, task: Any) -> str | None:
    """Why a task was ended or never started; None if it ended by itself.

    Raises:
        SweepError: The cluster is gone, so no task can run any more.
    """
    errors = ray.exceptions
    try:
        words: str | None = ray.get(task)
    except errors.TaskCancelledError:
        return "told to stop before it began"
    except errors.OutOfMemoryError:
        return "ended by Ray, since its machine ran out of memory"
    except errors.WorkerCrashedError:
        return "its process was killed, as the system does when memory runs out, or crashed"
    except errors.NodeDiedError:
        return "its machine left the cluster or died"
    except errors.LocalRayletDiedError as error:
        raise SweepError(_GONE) from error
    except errors.RayTaskError as error:
        return _one_line(error.cause)
    except errors.RayError as error:
        return f"lost by Ray: {_one_line(error)}"
    return words


def _one_line(error: BaseException) -> str:
    """Type of an error and its last line, which is the message of a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[-1:]])


def _library() -> Any:
    """Import Ray with its output turned off.

    Raises:
        ConfigError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Hides Ray's long messages about dead processes; the sweep prints one line for each.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"hydra/launcher=ray needs the extra ray ({error}): pip install 'percoin[ray]'"
        ) from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _start_cluster(n_cpus: int) -> tuple[Any, Path]:
    """Start a private cluster; returns Ray and the cluster's folder."""
    # With 0 the cluster listens on loopback only, on Linux too.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Ray would leave its own token in the home folder, and later connections would fail.
    os.environ.setdefault(_AUTH_MODE, "token")
    if _TOKEN_PATH not in os.environ:
        os.environ.setdefault(_TOKEN, secrets.token_hex(32))
    ray = _library()
    started = {"num_cpus": n_cpus, "include_dashboard": False}
    with _sweeps_signals(), _errors_of_ray("Ray cannot be started here"):
        context = ray.init(
            "local", object_store_memory=_OBJECT_STORE_BYTES, **started, **_common_options()
        )
    return ray, Path(context.address_info["session_dir"])


def _connect(address: str) -> Any:
    """Connect to the cluster at the address; returns Ray."""
    has_token = _TOKEN in os.environ or _TOKEN_PATH in os.environ
    if has_token or (Path.home() / _TOKEN_FILE).is_file():
        # Ray reads a token by itself only with address=auto; a cluster without a token accepts any.
        os.environ.setdefault(_AUTH_MODE, "token")
    ray = _library()
    trouble = (
        f"no Ray cluster answers at hydra.launcher.address={address} (if it wants a token: "
        f"~/{_TOKEN_FILE} or ${_TOKEN})"
    )
    with _sweeps_signals(), _errors_of_ray(trouble):
        _knock(address)
        ray.init(address, **_common_options())
    return ray


def _knock(address: str) -> None:
    """Check that something listens at the address; Ray would try for minutes.

    Raises:
        OSError: Nothing listens there.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_SECS).close()


def _common_options() -> dict[str, Any]:
    # Each job writes its output to its own file.
    return {"log_to_driver": False, "configure_logging": False}


@contextmanager
def _sweeps_signals() -> Iterator[None]:
    """Keep the sweep's handler of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _errors_of_ray(trouble: str) -> Iterator[None]:
    """Turn errors of Ray into one line.

    Raises:
        SweepError: Ray raised an error.
    """
    try:
        yield
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise SweepError(f"{trouble}: {_one_line(error)}") from error


def fitting_jobs(nodes: Sequence[Mapping[str, Any]], n_cpus: int, n_gpus: float) -> int:
    """How many jobs the machines can run at once; a job must fit on one machine.

    Args:
        nodes: As returned by ``ray.nodes()``.
        n_cpus: CPUs of a job.
        n_gpus: GPUs of a job.
    """

    def fit(resources: Mapping[str, float]) -> int:
        shares = {"CPU": n_cpus, "GPU": n_gpus}
        # The small term lets a share of 0.1 fit ten times in spite of rounding.
        return min(
            math.floor(resources.get(name, 0) / share + 1e-9)
            for name, share in shares.items()
            if share
        )

    return sum(fit(node["Resources"]) for node in nodes if node["Alive"])


def _leave(ray: Any, folder: Path | None) -> None:
    """Disconnect; end a cluster that this sweep started and remove its folder."""
    ray.shutdown(wait_for_processes=True)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
