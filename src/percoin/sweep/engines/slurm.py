"""Runs jobs as jobs of a Slurm cluster, submitted by submitit.

Slurm jobs outlive a sweep that is killed. If the same command is started again, it waits
for these jobs and does not submit them twice. A job that is preempted or reaches its time
limit is queued again and resumes from its checkpoint.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from percoin.config import SlurmConfig, TrainConfig
from percoin.errors import ConfigError, SweepError
from percoin.sweep.engine import Attempt, Ending
from percoin.sweep.engines.processes import usable_cores
from percoin.sweep.engines.remote_attempt import RemoteAttempt, gpus_of_a_job
from percoin.sweep.jobs import JobState, read_record

# Below a job's folder: submitit's files and the output of the job.
FOLDER = "slurm"

_LOOK_SECS = 0.5
_COMMANDS = ("sbatch", "squeue", "scancel", "srun")
_COMMAND_TIMEOUT_SECS = 60.0
_UNFIT_FOR_A_NAME = re.compile(r"[^\w.=-]")


def build_engine(launcher: SlurmConfig, settings: TrainConfig, n_jobs: int) -> SlurmEngine:
    """Submit ``settings.workers`` jobs at a time, else all of them.

    Raises:
        ConfigError: submitit or Slurm's commands are not installed here.
    """
    n_gpus = int(gpus_of_a_job(launcher.gpus_per_job, settings))
    _check_installed(launcher.cluster)
    if launcher.cluster == "local":
        # submitit would start all jobs at once.
        n_slots = min(n_jobs, settings.workers or max(1, usable_cores() // launcher.cpus_per_job))
        return SlurmEngine(launcher, settings, n_slots, n_gpus, _ThisMachine())
    n_slots = min(n_jobs, settings.workers or n_jobs)
    return SlurmEngine(launcher, settings, n_slots, n_gpus, _Slurm())


def _check_installed(cluster: str) -> None:
    try:
        import submitit  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"hydra/launcher=slurm needs the extra slurm ({error}): pip install 'percoin[slurm]'"
        ) from None
    missing = [name for name in _COMMANDS if shutil.which(name) is None]
    if cluster == "slurm" and missing:
        raise ConfigError(
            f"hydra/launcher=slurm finds no {missing[0]} here: start the sweep on a machine of the "
            "cluster, or try it with hydra.launcher.cluster=local"
        )


@dataclass
class _RunningJob:
    attempt: Attempt
    job: Any
    gone_at: float | None = None
    """``time.monotonic()`` when it was first missed, without a result."""


class SlurmEngine:
    """Runs each attempt as a separate Slurm job, in the folder ``slurm`` of the sweep's job.

    Args:
        launcher: The resources to request from the cluster.
        settings: Settings of any of the sweep's jobs.
        n_slots: Number of jobs that wait in the queue or run at a time.
        n_gpus: GPUs of a job.
        cluster: Where the jobs run.
    """

    def __init__(
        self,
        launcher: SlurmConfig,
        settings: TrainConfig,
        n_slots: int,
        n_gpus: int,
        cluster: _Slurm | _ThisMachine,
    ) -> None:
        self.n_slots = n_slots
        self._launcher = launcher
        self._settings = settings
        self._n_gpus = n_gpus
        self._cluster = cluster
        self._running: list[_RunningJob] = []
        self._has_submitted = False
        self._stopping = False

    def start(self, attempt: Attempt) -> None:
        """Submit the attempt, unless it still runs from an earlier sweep that was killed.

        Raises:
            OSError: Its folder cannot be written, or the cluster refuses it.
            SweepError: The cluster refuses the first job, and so would refuse all others.
        """
        remote = RemoteAttempt.prepare(attempt, self._settings, self._launcher.cpus_per_job)
        job = self._still_alive(remote.attempt) or self._submit(remote)
        self._has_submitted = True
        self._running.append(_RunningJob(remote.attempt, job))

    def wait(self, timeout_secs: float) -> Sequence[Ending]:
        """The attempts whose jobs wrote a result, or are gone without one."""
        until = time.monotonic() + timeout_secs
        while not (endings := self._endings()) and time.monotonic() < until and self._running:
            time.sleep(min(_LOOK_SECS, max(0.0, until - time.monotonic())))
        return endings

    def keeps(self, attempt: Attempt) -> bool:
        """Whether Slurm still has this job from an earlier sweep."""
        return self._still_alive(attempt) is not None

    def interrupt(self) -> None:
        """Send SIGTERM to running jobs; cancel jobs that wait in the queue."""
        self._stopping = True
        self._cluster.interrupt([each.job for each in self._running])

    def close(self) -> None:
        """End all jobs."""
        self._cluster.kill([each.job for each in self._running])
        self._running = []

    def _submit(self, remote: RemoteAttempt) -> Any:
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        launcher = self._launcher
        executor = AutoExecutor(
            remote.attempt.job.folder / FOLDER,
            cluster=launcher.cluster,
            slurm_max_num_timeout=launcher.timeouts,
            local_max_num_timeout=launcher.timeouts,
        )
        executor.update_parameters(
            name=_UNFIT_FOR_A_NAME.sub("_", f"percoin-{remote.attempt.job.name}"),
            timeout_min=launcher.time_limit_min,
            cpus_per_task=launcher.cpus_per_job,
            gpus_per_node=self._n_gpus or None,
            mem_gb=launcher.memory_gb,
            slurm_partition=launcher.partition,
            # In newer Slurm versions srun does not inherit this from the job.
            slurm_srun_args=[f"--cpus-per-task={launcher.cpus_per_job}"],
            slurm_additional_parameters=dict(launcher.sbatch),
        )
        try:
            with _interrupt_key_held_back():
                return executor.submit(_Submission(remote))
        except (FailedJobError, FailedSubmissionError) as error:
            said = f"Slurm refuses the job: {_last_line(str(error))}"
            if self._has_submitted:
                raise OSError(said) from error
            raise SweepError(f"{remote.attempt.job.name}: {said}") from error

    def _still_alive(self, attempt: Attempt) -> Any:
        """The active Slurm job of the same attempt from an earlier sweep; None if there is none."""
        from submitit import SlurmJob

        if self._launcher.cluster != "slurm":
            return None
        folder = attempt.job.folder / FOLDER
        for path in folder.glob("*_submitted.pkl"):
            job: Any = SlurmJob(folder, path.name.removesuffix("_submitted.pkl"))
            try:
                earlier = job.submission().function.remote.attempt
            except (ImportError, AttributeError):
                continue  # written by another version of percoin
            same = (earlier.job, earlier.force) == (attempt.job, attempt.force)
            if same and not job.paths.result_pickle.exists() and not self._cluster.gone([job]):
                return job
        return None

    def _endings(self) -> list[Ending]:
        gone = self._cluster.gone([each.job for each in self._running])
        ended: dict[int, str | None] = {}
        for number, each in enumerate(self._running):
            if each.job.paths.result_pickle.exists():
                ended[number] = _words(each.job)
            elif each.job.job_id not in gone:
                each.gone_at = None
            elif self._has_settled(each):
                ended[number] = gone[each.job.job_id]
        endings = [Ending(self._running[number].attempt, words) for number, words in ended.items()]
        self._running = [each for number, each in enumerate(self._running) if number not in ended]
        return endings

    def _has_settled(self, running: _RunningJob) -> bool:
        """Whether a job that is gone will not write a result any more."""
        if self._stopping:
            return True
        if running.gone_at is None:
            running.gone_at = time.monotonic()
        if time.monotonic() - running.gone_at < self._cluster.settle_secs:
            return False
        # This makes a network file system read the folder again instead of using its cache.
        folder = running.job.paths.folder
        folder.chmod(folder.stat().st_mode)
        return not running.job.paths.result_pickle.exists()


@dataclass(frozen=True)
class _Submission:
    """The callable that submitit pickles and calls in a process of the cluster."""

    remote: RemoteAttempt

    def __call__(self) -> str | None:
        """Run the attempt; at a preemption or time-out, stop cleanly and queue it again.

        submitit alone would stop the training at any point, not between two batches.
        """
        queue_again: Any = signal.getsignal(signal.SIGUSR2)
        told: set[int] = set()

        def note(number: int, _frame: object) -> None:
            told.add(number)

        def note_and_stop(number: int, _frame: object) -> None:
            told.add(number)
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGTERM, note)
        signal.signal(signal.SIGUSR2, note)
        # The import takes seconds; after it the attempt handles signals itself.
        import percoin.sweep.worker  # noqa: F401

        signal.signal(signal.SIGUSR2, note_and_stop)
        words: str | None
        if told:
            words, is_stopped = "told to stop before it began", True
        else:
            words = self.remote()
            record = read_record(self.remote.attempt.job.folder)
            is_stopped = record is not None and record.state == JobState.INTERRUPTED
        signal.signal(signal.SIGUSR2, queue_again)
        if is_stopped and signal.SIGUSR2 in told:
            # Ends this process, or raises if the job was queued too often.
            queue_again(signal.SIGUSR2, None)
        return words

    def checkpoint(self) -> Any:
        """Called by submitit to queue the job again; the attempt resumes from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Slurm:
    """A Slurm cluster, used through Slurm's commands.

    submitit needs Slurm's accounting, which not every cluster has.
    """

    # How long a result may take to appear after the job is gone.
    settle_secs = 15.0

    # In any other state the job has ended.
    _ALIVE = (
        *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING"),
        *("SIGNALING", "STAGE_OUT", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
        *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"),
    )
    _ASK_SECS = 10.0

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._asked_at = -self._ASK_SECS

    def gone(self, jobs: Sequence[Any]) -> dict[str, str]:
        """Jobs that have ended or that Slurm no longer knows; asks Slurm every ten seconds."""
        ids = {job.job_id for job in jobs}
        if not ids:
            return {}
        if not ids <= self._states.keys() or time.monotonic() - self._asked_at >= self._ASK_SECS:
            self._ask(ids)
        return {
            job.job_id: f"its Slurm job ended as {state}{_log_of(job)}"
            for job in jobs
            if (state := self._states[job.job_id]) not in self._ALIVE
        }

    def interrupt(self, jobs: Sequence[Any]) -> None:
        """Cancel waiting jobs, and send SIGTERM to running jobs.

        Without a signal ``scancel`` would end the batch script and the training at once.
        """
        ids = [job.job_id for job in jobs]
        if ids:
            _command("scancel", "--state=PENDING", *ids)
            _command("scancel", "--signal=TERM", *ids)

    def kill(self, jobs: Sequence[Any]) -> None:
        """End jobs at once by ``scancel``."""
        if jobs:
            _command("scancel", *(job.job_id for job in jobs))

    def _ask(self, ids: set[str]) -> None:
        answer = _command(
            "squeue", "--noheader", "--states=all", "--format=%i %T", f"--jobs={','.join(ids)}"
        )
        self._asked_at = time.monotonic()
        # Slurm forgets a job some minutes after it ends.
        unknown = "unknown"
        if answer is None or (answer.returncode and "Invalid job id" not in answer.stderr):
            # Slurm does not answer now; its jobs may still run.
            unknown = "PENDING"
        told = dict(line.split() for line in (answer.stdout if answer else "").splitlines())
        self._states = {each: told.get(each, unknown) for each in ids}


class _ThisMachine:
    """Processes of this machine; each job has a second process that watches it."""

    settle_secs = 0.0

    _KILL_SECS = 10.0

    def gone(self, jobs: Sequence[Any]) -> dict[str, str]:
        """Jobs whose watching process has ended."""
        return {
            job.job_id: f"its process was killed or crashed{_log_of(job)}"
            for job in jobs
            if job.done()
        }

    def interrupt(self, jobs: Sequence[Any]) -> None:
        """Send SIGTERM to the watching processes, which pass it on."""
        for job in jobs:
            with suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)

    def kill(self, jobs: Sequence[Any]) -> None:
        """Send SIGTERM repeatedly: the second one ends a training at once."""
        until = time.monotonic() + self._KILL_SECS
        while time.monotonic() < until and not all(job.done() for job in jobs):
            self.interrupt([job for job in jobs if not job.done()])
            time.sleep(_LOOK_SECS)


def _command(*words: str) -> subprocess.CompletedProcess[str] | None:
    """Run one of Slurm's commands; None if it does not end in time."""
    try:
        return subprocess.run(
            words, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_SECS, check=False
        )
    except subprocess.TimeoutExpired:
        return None


@contextmanager
def _interrupt_key_held_back() -> Iterator[None]:
    """Start processes with Ctrl-C blocked: only the sweep reacts to it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _words(job: Any) -> str | None:
    """The last words of a job that wrote a result; None if its record says everything."""
    error = job.exception()
    if error is None:
        words: str | None = job.result()
        return words
    if refused := re.search(r"Job not requeued because: (.*)\.", str(error)):
        return f"not queued again: {refused[1]}"
    return f"{_last_line(str(error))}{_log_of(job)}"


def _log_of(job: Any) -> str:
    path: Path = job.paths.stderr
    return f"; see {path}" if path.exists() else f"; it wrote no {path}: can its machine see that?"


def _last_line(text: str) -> str:
    return [line.strip() for line in text.splitlines() if line.strip()][-1]
