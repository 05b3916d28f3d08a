"""How a version was made: its settings, and the command line that would ask for them again.

A manifest is a file that somebody may have planted. So nothing in it becomes a word of a command
line as it stands: kinds are looked up in a table of the options they stand for, numbers and names
go through the types and ranges of the settings, and text is quoted.
"""

from __future__ import annotations

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from percoin.cli import compose_config
from percoin.cli.overrides import literal
from percoin.config import OPTIONS, CnnLstmConfig, LogisticConfig, RecipeName, TrainConfig, typed
from percoin.config.effects import effects_of, settings_with
from percoin.config.fields import OF_THE_MODEL
from percoin.errors import ConfigError
from percoin.registry.manifest import LOGISTIC_KIND, MODEL_KIND, Manifest
from percoin.types import check_symbol, is_symbol

# The options of conf/labels and conf/model that kinds in a manifest stand for.
_LABELS = frozenset(option.option for option in OPTIONS["labels"])
_MODELS = {MODEL_KIND: CnnLstmConfig.option, LOGISTIC_KIND: LogisticConfig.option}
# A value may follow from another one; two rounds settle what hangs on what.
_MOST_ROUNDS = 3
# Settings are three levels deep at most, and none is longer than the list of a pool's markets.
_MOST_LEVELS = 8
_MOST_ENTRIES = 10_000
_MISSING = "???"


def settings_of(manifest: Manifest, **changes: object) -> TrainConfig:
    """The settings of the manifest, with this percoin's defaults where it says nothing.

    The market and the bar length are those of the place where the version lies, which a manifest
    was compared with when it was read; what its settings say of them does not count.

    Args:
        manifest: Of the version.
        changes: What else they shall say.

    Raises:
        ConfigError: They are not settings of this percoin, or not of this market.
    """
    try:
        values = _plain_settings(manifest)
        composed = compose_config("train", _choices(manifest))
        return typed(OmegaConf.merge(composed, values | changes), TrainConfig)  # type: ignore[arg-type]
    except (
        *(ConfigError, HydraException, OmegaConfBaseException),
        # What OmegaConf and the checks of the settings make of numbers and types that are none.
        *(ValueError, TypeError, ArithmeticError),
    ) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{manifest.symbol} {manifest.timeframe.value}: the settings of {manifest.version_id} "
            f"are not those of this percoin ({reason}); use the code that made it, "
            f"{manifest.code_version}"
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
    wanted = settings_with(settings_of(manifest), OF_THE_MODEL)
    wanted = {name: value for name, value in wanted.items() if name not in said}
    told = [*_choices(manifest), *others]
    for _ in range(_MOST_ROUNDS):
        found = settings_with(typed(compose_config("train", told), TrainConfig), OF_THE_MODEL)
        differing = [name for name, value in wanted.items() if found.get(name) != value]
        if not differing:
            return tuple(told)
        told = [word for word in told if word.partition("=")[0] not in differing]
        told += [f"{name}={literal(wanted[name])}" for name in differing]
    raise ConfigError(
        f"{manifest.symbol} {manifest.timeframe.value}: no command line says the settings of "
        f"{manifest.version_id} ({', '.join(differing)}); train it again by hand"
    )


def pool_of(manifest: Manifest) -> tuple[str, ...]:
    """The markets that a pool's training was told; empty of a model that shares its network.

    Raises:
        ConfigError: The settings name a pool that the model is not of.
    """
    config, pool = manifest.config, manifest.pool
    if config.get("recipe") != RecipeName.POOLED:
        return ()
    name = f"{manifest.symbol} {manifest.timeframe.value}: the settings of {manifest.version_id}"
    if pool is None or pool.started_from is not None:
        raise ConfigError(f"{name} name a pool, and it was not trained in one; train it by hand")
    told = config.get("symbol")
    markets = tuple(word.strip() for word in told.split(",")) if isinstance(told, str) else ()
    strange = {manifest.symbol, *pool.markets} - set(markets)
    if strange or len(set(markets)) != len(markets):
        raise ConfigError(
            f"{name} name other markets than those that it was trained on "
            f"({', '.join(sorted(strange)) or 'some twice'}); train the pool by hand"
        )
    return tuple(check_symbol(symbol) for symbol in markets)


def _choices(manifest: Manifest) -> list[str]:
    """The market, and the options that give the settings their types."""
    kind = manifest.label_rule["kind"]
    if not isinstance(kind, str) or kind not in _LABELS:
        known = ", ".join(sorted(_LABELS))
        raise ConfigError(f"label rule {kind!r} is not known; known are {known}")
    return [
        f"symbol={manifest.symbol}",
        f"tf={manifest.timeframe.value}",
        f"labels={kind}",
        f"model={_MODELS[manifest.model.kind]}",
    ]


def _plain_settings(manifest: Manifest) -> dict[str, object]:
    """What the manifest says of the model: plain values, and its own market and bar length."""
    values = {k: v for k, v in manifest.config.items() if _is_wanted(k)}
    _check_plain(values, "config", _MOST_LEVELS)
    tf, pooled = values.get("tf", {}), values.get("pooled", {})
    if isinstance(tf, dict):
        values["tf"] = {**tf, "name": manifest.timeframe.value}
    start = pooled.get("init_model") if isinstance(pooled, dict) else None
    # A market is one of this registry's own models; a folder could hold anything.
    if start is not None and not is_symbol(start):
        raise ConfigError(f"pooled.init_model={start!r} is no market, and folders are not followed")
    return {**values, "symbol": ",".join(pool_of(manifest) or (manifest.symbol,))}


def _check_plain(value: object, place: str, n_levels: int) -> None:
    """Refuse what OmegaConf would read as more than a value."""
    if isinstance(value, str):
        if "${" in value or value == _MISSING:
            raise ConfigError(f"{place} is {value[:40]!r}, which is no value of a setting")
        return
    if not isinstance(value, dict | list):
        return
    if n_levels == 0 or len(value) > _MOST_ENTRIES:
        raise ConfigError(f"{place} is nested too deeply or too long")
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for name, entry in entries:
        if isinstance(name, str):
            _check_plain(name, f"a key of {place}", 0)
        _check_plain(entry, f"{place}.{name}", n_levels - 1)


def _is_wanted(key: str) -> bool:
    """Whether a model that is trained again needs it; a name that is no setting is refused later.

    Of the bars a manifest says which they were, and where they come from now is not its affair.
    """
    effects = effects_of(TrainConfig, key)
    return key != "choices" and (not effects or bool(effects & OF_THE_MODEL))
