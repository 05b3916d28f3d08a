"""What a training runs on, how it learns and what it writes beside its usual files."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from percoin.config.fields import MOST_EPOCHS, number, require


@dataclass
class TrainerConfig:
    """What the training runs on, in Lightning's words."""

    accelerator: str = MISSING
    precision: str = MISSING
    record_steps: bool = MISSING

    def __post_init__(self) -> None:
        for name, known in (
            ("accelerator", ("cpu", "gpu")),
            ("precision", ("32-true", "bf16-mixed")),
        ):
            value = getattr(self, name)
            require(value in known, f"trainer.{name}={value} must be one of {', '.join(known)}")
        require(
            self.accelerator == "gpu" or not self.record_steps,
            "trainer.record_steps=true is for trainer=gpu alone",
        )


@dataclass
class OptimizerConfig:
    """AdamW, the learning rate's decay, and when to stop."""

    weight_decay: float = number(0, 100)
    plateau_factor: float = number(above=0, below=1)
    plateau_patience: int = number(0, MOST_EPOCHS)
    gradient_clip_norm: float = number(above=0, most=1_000_000)
    early_stopping_patience: int = number(0, MOST_EPOCHS)


@dataclass
class ExportConfig:
    """What a trained model is written as, beside its usual files."""

    onnx: bool = MISSING
