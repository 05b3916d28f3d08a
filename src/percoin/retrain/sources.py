"""Source of a training's bars: the command line names it, else the model's manifest.

From a manifest, only the kind of source and these harmless settings are used:

=========  ====================================================================
binance    spot or perp; another exchange than Binance if the store has its bars
simulated  seed, number of bars, edge
sample     nothing
store      nothing
=========  ====================================================================

A folder of files, or another host for the archive or the API, must be named on the command
line. Somebody who can write to the models folder must not choose which files or hosts are used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import cast

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from percoin.assembly import bar_source
from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.cli import compose_config, explain
from percoin.cli.overrides import as_overrides
from percoin.config import OPTIONS, BinanceConfig, RetrainConfig, SourceConfig, typed
from percoin.config.effects import names_with
from percoin.config.fields import Effect, PathBounds
from percoin.config.structure import leaves_of
from percoin.errors import ConfigError, DataError, InvalidBarsError, PercoinError
from percoin.printable import printable
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest

log = logging.getLogger(__name__)

# The source of a market that never had a model.
DEFAULT_SOURCE = ("source=binance",)
# The options of conf/source that a manifest may name, each with the settings it may give: those
# that select the bars. Options with a path setting are excluded.
_FROM_MANIFESTS = {
    option.option: names_with(option, {Effect.BARS})
    for option in OPTIONS["source"]
    if not any(isinstance(leaf.setting.bounds, PathBounds) for leaf in leaves_of(option))
}
_HOSTS = ("archive_url", "api_url")


def source_of(manifest: Manifest, store: BarStore) -> tuple[str, ...]:
    """Return the overrides that name the source of the manifest's bars.

    Args:
        manifest: Manifest of the model.
        store: Knows which exchange the bars of the market came from.

    Raises:
        ConfigError: The manifest does not name the source, or names one that only the command
            line may name.
    """
    choices, named = (manifest.config.get(name) for name in ("choices", "source"))
    option = choices.get("source") if isinstance(choices, dict) else None
    settings = named if isinstance(named, dict) else {}
    if option == "files":
        raise ConfigError("its bars came from files; name them: source=files source.path=FOLDER")
    if not isinstance(option, str) or option not in _FROM_MANIFESTS:
        raise ConfigError("its manifest does not say where its bars came from; name a source")
    overrides = (f"source={option}", *_harmless(settings, _FROM_MANIFESTS[option]))
    config = source_config(overrides)
    if isinstance(config, BinanceConfig):
        _check_hosts(manifest, config, settings, store)
    return overrides


@lru_cache(maxsize=256)
def source_config(overrides: tuple[str, ...]) -> SourceConfig:
    """Return the checked settings of a source.

    Raises:
        ConfigError: This version of percoin does not accept the settings.
    """
    try:
        source = typed(compose_config("retrain", overrides), RetrainConfig).source
    except (
        *(ConfigError, HydraException, OmegaConfBaseException),
        *(ValueError, ArithmeticError),
    ) as error:
        problem = explain(error, "retrain", overrides)
        raise ConfigError(
            f"this percoin does not know its source ({problem}); name another"
        ) from error
    if source is None:
        raise ConfigError("its manifest does not say where its bars came from; name a source")
    return source


def bars_at_hand(config: SourceConfig, market: MarketFolder, store: BarStore) -> Bars:
    """Load a market's bars from a source that asks no exchange.

    Raises:
        DataError: There are no usable bars, for any reason.
    """
    try:
        return bar_source(config, store).load(market.symbol, market.timeframe)
    except DataError:
        raise
    except PercoinError as error:
        found = str(error)
    except Exception as error:  # noqa: BLE001 - the other markets of a round go on
        found = f"unexpected {type(error).__name__}: {printable(str(error))}"
        log.error("%s %s: its bars cannot be read: %s", market.symbol, market.timeframe, found)
    raise InvalidBarsError(market.symbol, market.timeframe, found, "repair them, or name a source")


def _harmless(settings: Mapping[str, object], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the allowed settings as overrides."""
    found = {name: settings[name] for name in names if name in settings}
    for name, value in found.items():
        if not isinstance(value, str | int | float):
            raise ConfigError(f"its manifest has source.{name}={value!r}; name a source")
    return tuple(as_overrides(found, "source."))


def _check_hosts(
    manifest: Manifest, config: BinanceConfig, settings: Mapping[str, object], store: BarStore
) -> None:
    """Refuse hosts that only the manifest names."""
    for name in _HOSTS:
        url = settings.get(name)
        if url is not None and url != getattr(config, name):
            raise ConfigError(
                f"its manifest names a host, source.{name}={url!r}; if you trust it, name it: "
                f"source=binance source.{name}=URL"
            )
    known = cast(BinanceConfig, source_config(DEFAULT_SOURCE))
    stored = store.origin(manifest.symbol, manifest.timeframe) or ""
    if config.exchange != known.exchange and not stored.startswith(f"{config.exchange} "):
        raise ConfigError(
            f"its manifest names {config.exchange}, and the store has no bars of it from there; "
            f"name it: source=binance source.exchange={config.exchange}"
        )
