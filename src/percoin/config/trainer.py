"""What a training runs on, how it learns and what it writes beside its usual files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from percoin.config.fields import (
    MOST_EPOCHS,
    Effect,
    When,
    choice,
    number,
    require,
    setting,
)
from percoin.config.model import OF_A_MARKET, OF_A_NETWORK
from percoin.config.targets import check_target, target, target_arguments

AUTO_PRECISION, FULL_PRECISION, MIXED_PRECISION = "auto", "32-true", "bf16-mixed"

# A pool's learning rate falls by a cosine.
_OF_A_PLATEAU = When(unless=(*OF_A_NETWORK.unless, "recipe=pooled", "scheduler._target_=*"))


def _most_batches(line: str) -> Any:
    """A field: a number of batches, or null."""
    unless = When(unless=(*OF_A_NETWORK.unless, "fleet=true"))
    return number(line, 1, 1_000_000, default=None, affects=Effect.MODEL, used=unless)


@dataclass
class TrainerConfig:
    """What the training runs on, in Lightning's words."""

    accelerator: str = choice("cpu or gpu", ("cpu", "gpu"), affects=Effect.MODEL)
    precision: str = choice(
        "auto, 32-true or bf16-mixed; auto is bf16 where a step is timed to be faster in it; tests "
        "and judgement always compute in 32 bits",
        (AUTO_PRECISION, FULL_PRECISION, MIXED_PRECISION),
        affects=Effect.MODEL,
    )
    record_steps: bool = setting(
        "with fleet=true: replay steps as CUDA graphs; false launches their kernels one by one",
        affects=Effect.RUN,
        used=When(needs=("fleet=true",)),
    )

    limit_train_batches: int | None = _most_batches("train batches of an epoch; null is all")
    limit_val_batches: int | None = _most_batches("validation batches of an epoch; null is all")
    overfit_batches: int | None = _most_batches(
        "so many train batches are trained on and validated on, again and again: can it learn them "
        "by heart?"
    )

    def __post_init__(self) -> None:
        require(
            self.accelerator == "gpu" or not self.record_steps,
            "trainer.record_steps=true is for trainer=gpu alone",
        )

    @property
    def limited(self) -> str:
        """The first of the settings that leave out batches, as a word; empty without one."""
        told = {
            "limit_train_batches": self.limit_train_batches,
            "limit_val_batches": self.limit_val_batches,
            "overfit_batches": self.overfit_batches,
        }
        return next((f"trainer.{name}={n}" for name, n in told.items() if n is not None), "")


@dataclass
class OptimizerConfig:
    """The optimizer, the learning rate's decay, and when to stop."""

    _target_: str | None = target(
        "null is AdamW; else MODULE:NAME of your own, or a class of torch.optim; it is given lr",
        default=None,
    )
    weight_decay: float = number("weight decay of the optimizer", 0, 100, affects=Effect.MODEL)
    plateau_factor: float = number(
        "factor on the learning rate when the validation loss stalls",
        above=0,
        below=1,
        affects=Effect.MODEL,
        used=_OF_A_PLATEAU,
    )
    plateau_patience: int = number(
        "epochs without a better validation loss before that",
        0,
        MOST_EPOCHS,
        affects=Effect.MODEL,
        used=_OF_A_PLATEAU,
    )
    gradient_clip_norm: float = number(
        "largest gradient norm; a larger gradient is scaled down to it",
        above=0,
        most=1_000_000,
        affects=Effect.MODEL,
    )
    averaging: float = number(
        "share that a moving average of the weights, which is what is validated and kept, keeps of "
        "itself at each step; 0 averages nothing",
        0,
        below=1,
        affects=Effect.MODEL,
        used=OF_A_MARKET,
    )
    early_stopping_patience: int = number(
        "epochs without a better validation loss before the training ends",
        0,
        MOST_EPOCHS,
        affects=Effect.MODEL,
    )
    arguments: dict[str, Any] = target_arguments()

    def __post_init__(self) -> None:
        check_target("optimizer", self._target_, self.arguments)


@dataclass
class ExportConfig:
    """What a trained model is written as, beside its usual files."""

    onnx: bool = setting(
        "true also writes the network for ONNX Runtime, which answers sooner; needs percoin[onnx]",
        affects=Effect.JUDGEMENT,
    )
