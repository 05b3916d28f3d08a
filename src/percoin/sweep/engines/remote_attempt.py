"""An attempt for another machine, with the folders that it must share with this one."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from percoin.config import TrainConfig
from percoin.errors import ConfigError, PercoinError
from percoin.sweep.engine import Attempt


@dataclass(frozen=True)
class RemoteAttempt:
    """An attempt as a callable, which a process on any machine runs by calling it.

    Attributes:
        attempt: The attempt, its number of threads set.
        home: The folder that the sweep was started in; relative paths start there.
        shared: Existing folders that the other machine must see too.
    """

    attempt: Attempt
    home: Path
    shared: tuple[Path, ...]

    @classmethod
    def prepare(cls, attempt: Attempt, settings: TrainConfig, n_threads: int) -> RemoteAttempt:
        """Make the job's folder; a machine that does not see it uses other storage.

        Args:
            attempt: The attempt, as the sweep made it.
            settings: Settings of any of the sweep's jobs.
            n_threads: CPU threads of the job.

        Raises:
            OSError: The folder cannot be made.
        """
        attempt.job.folder.mkdir(parents=True, exist_ok=True)
        home = Path.cwd()
        kept = (home / settings.data_dir, home / settings.models_dir)
        shared = (home, attempt.job.folder, *(folder for folder in kept if folder.is_dir()))
        return cls(replace(attempt, n_threads=n_threads), home, shared)

    def __call__(self) -> str | None:
        """Run the attempt in this process.

        Returns:
            None if the job's record says how the attempt ended; else one line that says why
            it does not.
        """
        for folder in self.shared:
            if not folder.is_dir():
                return (
                    f"{socket.gethostname()} does not see {folder}: the folders of code, data, "
                    "models and outputs must lie on storage that all machines share"
                )
        # Imports the training libraries, which the sweep itself does not need.
        from percoin.sweep.worker import run_attempt

        try:
            os.chdir(self.home)
            run_attempt(self.attempt)
        except (PercoinError, OSError) as error:
            return str(error)
        return None


def gpus_of_a_job(asked: float | None, settings: TrainConfig) -> float:
    """GPUs of one job.

    Args:
        asked: ``gpus_per_job``; None means 1 if the training runs on a GPU, else 0.
        settings: Settings of any of the sweep's jobs.

    Raises:
        ConfigError: The training needs a GPU, but ``gpus_per_job`` is 0.
    """
    wants_gpu = settings.trainer.accelerator == "gpu"
    if asked is None:
        return 1 if wants_gpu else 0
    if wants_gpu and asked == 0:
        raise ConfigError("trainer=gpu needs hydra.launcher.gpus_per_job above 0, or null")
    return asked
