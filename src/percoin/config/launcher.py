"""Where the jobs of a sweep run: the group ``hydra/launcher``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from percoin.config.fields import MOST_CORES, choice, number, require, setting


@dataclass
class LauncherConfig:
    """Where the jobs of a sweep run; one subclass per engine."""

    # Of the group hydra/launcher.
    option: ClassVar[str]
    # Module of percoin.sweep.engines.
    engine: ClassVar[str]


@dataclass
class ProcessesConfig(LauncherConfig):
    """Processes of this machine."""

    option: ClassVar[str] = "processes"
    engine: ClassVar[str] = "processes"


@dataclass
class RayConfig(LauncherConfig):
    """Tasks of a Ray cluster."""

    option: ClassVar[str] = "ray"
    engine: ClassVar[str] = "ray_cluster"

    address: str | None = setting(
        "auto, HOST:PORT or ray://HOST:PORT; null starts a cluster of this machine alone",
        default=None,
    )
    cpus_per_job: int = number("CPUs of a job; it uses as many threads", 1, MOST_CORES)
    gpus_per_job: float | None = number(
        "0.25 lets four jobs share one; null is 1 with trainer=gpu, else 0",
        0,
        MOST_CORES,
        default=None,
    )

    def __post_init__(self) -> None:
        require(
            self.address is None
            or re.fullmatch(r"auto|(ray://)?[^\s/:]+:\d+", self.address) is not None,
            f"hydra.launcher.address={self.address} must be auto, HOST:PORT, ray://HOST:PORT or "
            "null",
        )
        gpus = self.gpus_per_job or 0
        require(
            gpus <= 1 or gpus == int(gpus),
            f"hydra.launcher.gpus_per_job={gpus:g} must be a share of one GPU or a whole number",
        )


@dataclass
class SlurmConfig(LauncherConfig):
    """Jobs of a Slurm cluster."""

    option: ClassVar[str] = "slurm"
    engine: ClassVar[str] = "slurm"

    cluster: str = choice(
        "or local: submitit's jobs as processes of this machine, to try it out", ("slurm", "local")
    )
    partition: str | None = setting("null is the default of the cluster", default=None)
    time_limit_min: int = number("time limit of a job, in minutes", 1, 525_600)
    timeouts: int = number(
        "how often a job that reaches the limit goes on from its checkpoint", 0, 1000
    )
    cpus_per_job: int = number("CPUs of a job; it uses as many threads", 1, MOST_CORES)
    gpus_per_job: int | None = number(
        "whole GPUs; null is 1 with trainer=gpu, else 0", 0, MOST_CORES, default=None
    )
    memory_gb: float | None = number("of a job", above=0, most=100_000, default=None)
    sbatch: dict[str, Any] = setting(
        "more options of sbatch, such as {account: NAME, qos: NAME}", default_factory=dict
    )
