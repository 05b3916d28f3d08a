"""How a version was made: its settings, and the command line that would ask for them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from percoin.cli import compose_config
from percoin.config import CONF_DIR, TrainConfig, typed
from percoin.errors import ConfigError
from percoin.overrides import quoted
from percoin.registry.manifest import Manifest
from percoin.report.cells import flat

# Where things lie, how a run is repeated, what is logged, and what is trained beside it: none of
# it is wanted of a model that is trained again.
_NOT_OF_THE_MODEL = frozenset(
    {
        "choices",
        "data_dir",
        "experiment",
        "fleet",
        "force",
        "logger",
        "models_dir",
        "outputs_dir",
        "resume",
        "reuse_bars_secs",
        "source",
        "sweep",
        "workers",
    }
)
# A value may follow from another one; two rounds settle what hangs on what.
_MOST_ROUNDS = 3


def settings_of(manifest: Manifest, **changes: object) -> TrainConfig:
    """The settings of the manifest, with this percoin's defaults where it says nothing.

    Args:
        manifest: Of the version.
        changes: What else they shall say.

    Raises:
        ConfigError: They are not settings of this percoin.
    """
    symbol, timeframe = manifest.symbol, manifest.timeframe.value
    values = {k: v for k, v in manifest.config.items() if k not in _NOT_OF_THE_MODEL}
    try:
        composed = compose_config("train", _choices(manifest))
        return typed(OmegaConf.merge(composed, values | changes), TrainConfig)  # type: ignore[arg-type]
    except (ConfigError, OmegaConfBaseException) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{symbol} {timeframe}: the settings of {manifest.version_id} are not those of this "
            f"percoin ({reason}); use the code that made it, {manifest.code_version}"
        ) from error


def overrides_of(manifest: Manifest, *others: str) -> tuple[str, ...]:
    """What ``train.py`` has to be told to use the settings of the manifest.

    Args:
        manifest: Of the version.
        others: What else it is told: where things lie, and the source.

    Raises:
        ConfigError: They are not settings of this percoin, or no command line says them.
    """
    said = {word.partition("=")[0] for word in others}
    wanted = {k: v for k, v in _leaves(settings_of(manifest)) if k not in said}
    told = [*_choices(manifest), *others]
    for _ in range(_MOST_ROUNDS):
        found = dict(_leaves(typed(compose_config("train", told), TrainConfig)))
        differing = [name for name, value in wanted.items() if found.get(name) != value]
        if not differing:
            return tuple(told)
        told = [word for word in told if word.partition("=")[0] not in differing]
        told += [f"{name}={literal(wanted[name])}" for name in differing]
    raise ConfigError(
        f"{manifest.symbol} {manifest.timeframe.value}: no command line says the settings of "
        f"{manifest.version_id} ({', '.join(differing)}); train it again by hand"
    )


def source_of(manifest: Manifest) -> tuple[str, ...]:
    """The overrides that name the source of the manifest's bars; empty if it does not say it."""
    choices, settings = (manifest.config.get(name) for name in ("choices", "source"))
    option = choices.get("source") if isinstance(choices, dict) else None
    if not isinstance(option, str) or not (CONF_DIR / "source" / f"{option}.yaml").is_file():
        return ()
    further = settings if isinstance(settings, dict) else {}
    return (f"source={option}", *as_overrides(further, "source."))


def as_overrides(settings: dict[str, object], prefix: str = "") -> Iterator[str]:
    """Settings as ``KEY=VALUE``."""
    for name, value in settings.items():
        yield f"{prefix}{name}={literal(value)}"


def literal(value: object) -> str:
    """A value in the grammar of the command line.

    Raises:
        TypeError: It is nothing that a setting can be.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Sequence):
        return f"[{','.join(map(literal, value))}]"
    raise TypeError(f"{value!r} is no value of a setting")


def _choices(manifest: Manifest) -> list[str]:
    kind, model = manifest.label_rule["kind"], manifest.model.kind
    timeframe = manifest.timeframe.value
    return [f"symbol={manifest.symbol}", f"tf={timeframe}", f"labels={kind}", f"model={model}"]


def _leaves(settings: TrainConfig) -> Iterator[tuple[str, object]]:
    """Every setting that a model follows from, by its dotted name."""
    plain = asdict(settings)
    yield from flat({k: v for k, v in plain.items() if k not in _NOT_OF_THE_MODEL})
