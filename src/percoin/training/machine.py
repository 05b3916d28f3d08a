"""Check before the training that this machine can do what the settings ask."""

from __future__ import annotations

from pathlib import Path

from percoin.config import TrainConfig, TrainerConfig
from percoin.config.trainer import MIXED_PRECISION
from percoin.errors import ConfigError
from percoin.registry.artifact import check_writable
from percoin.training.early import NO_GPU
from percoin.training.memory import keep_freed_memory


def check_machine(settings: TrainConfig) -> None:
    """Check the machine against the settings, and prepare the process.

    It sets the number of threads, and keeps memory freed by one batch for the next.

    Raises:
        ConfigError: The device, the precision or a package is not available.
        RegistryWriteError: A new version of a market cannot be written to the models folder.
    """
    for symbol in settings.pooled_symbols:
        check_writable(Path(settings.models_dir), symbol, settings.tf.timeframe)
    # torch takes seconds to import, so import it after the check of the models folder.
    import torch

    if settings.workers is not None:
        torch.set_num_threads(settings.workers)
    keep_freed_memory()
    if not settings.model.has_network:
        return
    if settings.trainer.accelerator == "gpu" and lacking(settings.trainer):
        raise ConfigError(NO_GPU)
    if lacks := lacking(settings.trainer):
        raise ConfigError(
            f"trainer.precision={settings.trainer.precision}: {lacks}; "
            "use trainer.precision=32-true"
        )
    if settings.targets:
        from percoin.training.own_parts import find_targets

        find_targets(settings)
    if settings.export.onnx:
        from percoin.training.onnx_export import check_packages

        check_packages()


def lacking(trainer: TrainerConfig) -> str:
    """What a training on these settings needs and this machine does not have; empty for nothing."""
    import torch

    if trainer.accelerator == "gpu":
        return "" if torch.cuda.is_available() else "there is no GPU that torch can use"
    is_bf16 = trainer.precision == MIXED_PRECISION
    if is_bf16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this CPU cannot compute in bf16"
    return ""
