"""Where the jobs of a sweep run: the group ``hydra/launcher``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from percoin.config.fields import MOST_CORES, number, require


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

    address: str | None = None
    cpus_per_job: int = number(1, MOST_CORES)
    gpus_per_job: float | None = number(0, MOST_CORES, default=None)

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

    cluster: str = MISSING
    partition: str | None = None
    time_limit_min: int = number(1, 525_600)
    timeouts: int = number(0, 1000)
    cpus_per_job: int = number(1, MOST_CORES)
    gpus_per_job: int | None = number(0, MOST_CORES, default=None)
    memory_gb: float | None = number(above=0, most=100_000, default=None)
    sbatch: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            self.cluster in ("slurm", "local"),
            f"hydra.launcher.cluster={self.cluster} must be slurm or local",
        )
