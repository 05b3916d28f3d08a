"""The training settings of a stored version, and the command line that repeats them.

A manifest may come from an attacker. So none of its text goes to a command line unchecked: kinds
are looked up in a table of options, numbers and names pass the type and range checks of the
settings, and text is quoted.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from percoin.cli import compose_config
from percoin.cli.overrides import literal
from percoin.config import OPTIONS, CnnLstmConfig, OwnNetworkConfig, RecipeName, TrainConfig, typed
from percoin.config.dates import moment_ms
from percoin.config.effects import effects_of, settings_with
from percoin.config.fields import OF_THE_MODEL
from percoin.errors import ConfigError
from percoin.evaluation.baselines import ALONE
from percoin.evaluation.blend import AVERAGE
from percoin.labels import OwnRule, label_rule_from_json
from percoin.plugins import allowed_plugins
from percoin.registry.manifest import MODEL_KIND, OWN_KIND, Manifest
from percoin.types import DAY_MILLISECONDS, check_symbol, is_symbol

# Options in conf/labels and conf/model for the kinds in a manifest.
_LABELS = frozenset(option.option for option in OPTIONS["labels"])
_MODELS = {
    MODEL_KIND: CnnLstmConfig.option,
    OWN_KIND: OwnNetworkConfig.option,
    **{name: name for name in (*ALONE, AVERAGE)},
}
# A value may depend on another one; two rounds settle such dependencies.
_MOST_ROUNDS = 3
# Real settings have at most three levels, and the longest is the list of a pool's markets.
_MOST_LEVELS = 8
_MOST_ENTRIES = 10_000
_MISSING = "???"


def settings_of(manifest: Manifest, **changes: object) -> TrainConfig:
    """The settings of the manifest; missing ones get the defaults of this percoin version.

    Market and bar length come from the version's folder, which was compared with the manifest
    when it was read. Their values in the manifest's settings are ignored.

    Args:
        manifest: Manifest of the version.
        changes: Settings to change.

    Raises:
        ConfigError: The settings are invalid in this percoin version, or of another market.
    """
    try:
        values = _plain_settings(manifest) | {"plugins": list(allowed_plugins())}
        composed = compose_config("train", _choices(manifest))
        # Arguments of the user's own objects have names that no schema knows.
        OmegaConf.set_struct(composed, value=False)
        return typed(OmegaConf.merge(composed, values | changes), TrainConfig)  # type: ignore[arg-type]
    except (
        *(ConfigError, HydraException, OmegaConfBaseException),
        # Raised by OmegaConf and by the checks of the settings for invalid numbers and types.
        *(ValueError, TypeError, ArithmeticError),
    ) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{manifest.symbol} {manifest.timeframe.value}: the settings of {manifest.version_id} "
            f"cannot be read by this percoin: {reason}; or use the code that made it, "
            f"{manifest.code_version}"
        ) from error


def overrides_of(manifest: Manifest, *others: str) -> tuple[str, ...]:
    """The overrides for ``train.py`` that train the model of a manifest again, on today's bars.

    A history that began on a date still does, and is longer now. One that ended on a date moves on
    to the newest bars and keeps its length in days: with the same dates, the same model would be
    made again.

    Args:
        manifest: Manifest of the version.
        others: Extra overrides: the folders and the source.

    Raises:
        ConfigError: The settings are invalid in this percoin version, or no command line can
            express them.
    """
    said = {word.partition("=")[0] for word in others}
    settings = settings_of(manifest)
    if settings.end is not None:
        settings = replace(settings, history_days=_days_of(settings), start=None, end=None)
    wanted = settings_with(settings, OF_THE_MODEL)
    wanted = {name: value for name, value in wanted.items() if name not in said}
    told = [*_choices(manifest), *others]
    if allowed_plugins() and "plugins" not in said:
        told.append(f"plugins={literal(allowed_plugins())}")
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


def _days_of(settings: TrainConfig) -> int:
    """Length of the history in days, rounded up."""
    start, end = moment_ms("start", settings.start), moment_ms("end", settings.end)
    if start is None or end is None:
        return settings.history_days
    return math.ceil((end - start) / DAY_MILLISECONDS)


def pool_of(manifest: Manifest) -> tuple[str, ...]:
    """The markets of a pooled model's training; empty for other models.

    Raises:
        ConfigError: The settings name a pool that the model does not belong to.
    """
    config, pool = manifest.config, manifest.pool
    if config.get("recipe") != RecipeName.POOLED:
        return ()
    name = f"{manifest.symbol} {manifest.timeframe.value}: the settings of {manifest.version_id}"
    if pool is None or pool.started_from is not None:
        raise ConfigError(f"{name} name a pool, but it was not trained in one; train it by hand")
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
    """Overrides for market, bar length, labels and model; they fix the types of the settings."""
    kind = manifest.label_rule["kind"]
    if not isinstance(kind, str) or kind not in _LABELS:
        known = ", ".join(sorted(_LABELS))
        raise ConfigError(f"label rule {kind!r} is not known; known are {known}")
    pool, source = pool_of(manifest), manifest.model.source
    rule = label_rule_from_json(manifest.label_rule)
    target = rule.source.name if isinstance(rule, OwnRule) else None
    return [
        *([] if target is None else [f"labels._target_={literal(target)}"]),
        *([] if source is None else [f"model._target_={literal(source.name)}"]),
        f"symbol={literal(','.join(pool or (manifest.symbol,)))}",
        # Labels that compare the markets of a pool go with no other recipe.
        *([f"recipe={RecipeName.POOLED.value}"] if pool else []),
        f"tf={manifest.timeframe.value}",
        f"labels={kind}",
        f"model={_MODELS[manifest.model.kind]}",
    ]


def _plain_settings(manifest: Manifest) -> dict[str, object]:
    """The manifest's settings of the model as plain values, with its own market and bar length."""
    values = {k: v for k, v in manifest.config.items() if _is_wanted(k)}
    _check_plain(values, "config", _MOST_LEVELS)
    tf, pooled = values.get("tf", {}), values.get("pooled", {})
    if isinstance(optimizer := values.get("optimizer", {}), dict):
        # Versions from before this setting were trained without.
        values["optimizer"] = {"averaging": 0.0, **optimizer}
    if isinstance(tf, dict):
        values["tf"] = {**tf, "name": manifest.timeframe.value}
    start = pooled.get("init_model") if isinstance(pooled, dict) else None
    # A market names a model of this registry; a folder could hold anything.
    if start is not None and not is_symbol(start):
        raise ConfigError(f"pooled.init_model={start!r} is no market, and folders are not followed")
    return {**values, "symbol": ",".join(pool_of(manifest) or (manifest.symbol,))}


def _check_plain(value: object, place: str, n_levels: int) -> None:
    """Refuse values with a special meaning for OmegaConf, such as ``${...}``."""
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
    """Whether a new training of the model needs the setting.

    Unknown names are kept here and refused later. The source of the bars is dropped: it may be
    another one now, and the manifest already records which bars were used.
    """
    effects = effects_of(TrainConfig, key)
    return key != "choices" and (not effects or bool(effects & OF_THE_MODEL))
