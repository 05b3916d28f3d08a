"""What is trained: the group ``model``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from percoin.config.fields import Effect, When, number, require
from percoin.config.targets import check_target, target, target_arguments
from percoin.errors import ConfigError
from percoin.evaluation.baselines import BOOSTING, LOGISTIC, MOVES, VOLATILITY
from percoin.evaluation.blend import AVERAGE
from percoin.registry.bounds import check_network

_WIDEST = 8192
OWN = "own"


@dataclass
class ModelConfig:
    """What is trained; one subclass per kind of model."""

    # Of the group model.
    option: ClassVar[str]
    # Without one it is fitted in seconds.
    has_network: ClassVar[bool] = False
    # Whether it is averaged with the models that ``blend`` names.
    is_blended: ClassVar[bool] = False


@dataclass
class LogisticConfig(ModelConfig):
    """A logistic regression on the newest bar's features; it has nothing to set."""

    option: ClassVar[str] = LOGISTIC


@dataclass
class VolatilityConfig(ModelConfig):
    """A regression on how much the market moved over some spans; it has nothing to set."""

    option: ClassVar[str] = VOLATILITY


@dataclass
class BoostingConfig(ModelConfig):
    """Boosted trees on the newest bar's features; they have nothing to set."""

    option: ClassVar[str] = BOOSTING


@dataclass
class MovesConfig(ModelConfig):
    """How far the price will move first, then which class; it has nothing to set."""

    option: ClassVar[str] = MOVES


@dataclass
class AverageConfig(ModelConfig):
    """The average of the models that ``blend`` names, without a network."""

    option: ClassVar[str] = AVERAGE
    is_blended: ClassVar[bool] = True


@dataclass
class CnnLstmConfig(ModelConfig):
    """Widths of the network; see ``percoin.network.CnnLstm``."""

    option: ClassVar[str] = "cnn_lstm"
    has_network: ClassVar[bool] = True
    is_blended: ClassVar[bool] = True

    channels: list[int] = number(
        "widths of the three convolutions", 1, _WIDEST, affects=Effect.MODEL
    )
    hidden_size: int = number(
        "width of the LSTM in each direction", 1, _WIDEST, affects=Effect.MODEL
    )
    n_layers: int = number("layers of the LSTM", 1, 64, affects=Effect.MODEL)
    n_heads: int = number("heads of the attention", 1, 2 * _WIDEST, affects=Effect.MODEL)
    head_sizes: list[int] = number(
        "widths of the two hidden layers at the end", 1, _WIDEST, affects=Effect.MODEL
    )
    dropout: float = number("share of values set to 0", 0, below=1, affects=Effect.MODEL)

    def __post_init__(self) -> None:
        require(len(self.channels) == 3, f"model.channels={self.channels} must have three widths")
        require(
            len(self.head_sizes) == 2, f"model.head_sizes={self.head_sizes} must have two widths"
        )
        require(
            (2 * self.hidden_size) % self.n_heads == 0,
            f"model.n_heads={self.n_heads} must divide 2 * model.hidden_size"
            f"={2 * self.hidden_size}",
        )

    def check_size(self, n_features: int) -> None:
        """Refuse a network that is larger than the registry reads.

        Raises:
            ConfigError: It is.
        """
        try:
            check_network(asdict(self), n_features)
        except ValueError as error:
            raise ConfigError(f"model: {error}") from None


@dataclass
class OwnNetworkConfig(ModelConfig):
    """A network of the user's own."""

    option: ClassVar[str] = OWN
    has_network: ClassVar[bool] = True
    is_blended: ClassVar[bool] = True

    _target_: str = target("its class, as MODULE:NAME or FILE.py:NAME; plugins allows the code")
    arguments: dict[str, Any] = target_arguments()

    def __post_init__(self) -> None:
        check_target("model", self._target_, self.arguments)


# Other models take none of the settings of a network.
OF_A_NETWORK = When(
    unless=tuple(
        f"model={kind.option}" for kind in ModelConfig.__subclasses__() if not kind.has_network
    )
)
# A pool, what begins with one, and a fleet have recipes of their own.
OF_A_MARKET = When(
    unless=(*OF_A_NETWORK.unless, "recipe=pooled", "init=pooled", "fleet=true"),
)
