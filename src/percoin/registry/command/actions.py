"""The command ``python -m percoin.registry``: its arguments, its actions and its output."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from percoin.cli import compose_config, refuse_bar_length_settings, run_command
from percoin.cli.folders import is_search_path
from percoin.cli.options import is_option, joined
from percoin.config import OutputFormat, RegistryAction, RegistryConfig, typed
from percoin.errors import ConfigError
from percoin.json_codec import one_line
from percoin.printable import printable
from percoin.registry.catalogue import check_market, find_version, markets_in, version_ids
from percoin.registry.changes import Pruning, promote, prunable, prune, rollback
from percoin.registry.command.details import (
    events_as_json,
    read_details,
    show_as_json,
    show_as_text,
)
from percoin.registry.command.overview import list_as_json, list_as_text, read_line
from percoin.registry.history import Event
from percoin.registry.layout import MarketFolder

EXIT_FOUND = 3
"""Verify found something broken, or reproduce something different."""

_COMMON_KEYS = frozenset({"action", "symbol", "tf", "output", "models_dir"})


@dataclass(frozen=True)
class CommandResult:
    """What an action prints.

    Attributes:
        text: For people.
        content: For programs, as JSON can say it.
        exit_code: Of the command.
    """

    text: str
    content: object
    exit_code: int = 0


@dataclass(frozen=True)
class _ActionSpec:
    """An action and the settings that it reads.

    Attributes:
        run: Does it.
        keys: The settings that it reads, beside the common ones.
    """

    run: Callable[[RegistryConfig], CommandResult]
    keys: frozenset[str] = frozenset()


def main(arguments: Sequence[str]) -> int:
    """Run one action, print its result, and return the exit code.

    Returns:
        0; ``EXIT_FOUND`` if verify finds something broken or reproduce something
        different; the code of the error if it could not be done.
    """
    code = 0

    def command() -> None:
        nonlocal code
        overrides = _with_action(joined(arguments))
        refuse_bar_length_settings(overrides)
        settings = typed(compose_config("registry", overrides), RegistryConfig)
        action = _ACTIONS[RegistryAction(settings.action)]
        _check_keys(settings, action, overrides)
        answer = action.run(settings)
        is_json = settings.output == OutputFormat.JSON
        print(one_line(answer.content) if is_json else answer.text)
        code = answer.exit_code

    return run_command(command, "registry") or code


def _with_action(arguments: Sequence[str]) -> list[str]:
    """``list`` is short for ``action=list``."""
    if not arguments or "=" in arguments[0] or arguments[0].startswith("-"):
        return list(arguments)
    return [f"action={arguments[0]}", *arguments[1:]]


def _check_keys(settings: RegistryConfig, action: _ActionSpec, overrides: Sequence[str]) -> None:
    """Refuse keys that would change nothing."""
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        if key.partition(".")[0] not in action.keys | _COMMON_KEYS and not (
            is_option(override) or is_search_path(override)
        ):
            raise ConfigError(f"{key} is no setting of {settings.action}; leave it out")


def _incomplete(settings: RegistryConfig, *needed: str) -> ConfigError:
    """Names those of the ``needed`` keys that have no value."""
    examples = {"symbol": "BTCUSDT", "tf": "15m", "version": "ID, as show lists them"}
    missing = [key for key in needed if getattr(settings, key) is None]
    listed = " ".join(f"{key}={examples[key]}" for key in missing)
    return ConfigError(f"{settings.action} needs {listed}")


def _markets(settings: RegistryConfig) -> list[MarketFolder]:
    """The markets that were asked for; at least one if any was named.

    Raises:
        ConfigError: A market was named and there is none of that name.
    """
    timeframe = None if settings.tf is None else settings.tf.timeframe
    found = [
        market
        for market in markets_in(Path(settings.models_dir))
        if settings.symbol in (None, market.symbol) and timeframe in (None, market.timeframe)
    ]
    wanted = " ".join(filter(None, (settings.symbol, timeframe and timeframe.value)))
    if wanted and not found:
        raise ConfigError(
            f"models_dir={settings.models_dir} holds no model of {wanted}; list shows what it holds"
        )
    return found


def _market(settings: RegistryConfig) -> MarketFolder:
    """The one market that was named."""
    if settings.symbol is None or settings.tf is None:
        raise _incomplete(settings, "symbol", "tf")
    return MarketFolder(Path(settings.models_dir), settings.symbol, settings.tf.timeframe)


def _list(settings: RegistryConfig) -> CommandResult:
    lines = [read_line(market) for market in _markets(settings)]
    return CommandResult(list_as_text(lines), list_as_json(lines))


def _show(settings: RegistryConfig) -> CommandResult:
    details = read_details(_market(settings), settings.version)
    return CommandResult(show_as_text(details), show_as_json(details))


def _verify(settings: RegistryConfig) -> CommandResult:
    checks = [check for market in _markets(settings) for check in check_market(market)]
    if not checks:
        raise ConfigError(
            f"models_dir={settings.models_dir} holds no model, so nothing was verified; name the "
            "folder that does"
        )
    broken = [check for check in checks if check.problem]
    lines = [
        printable(f"BROKEN {c.symbol} {c.timeframe.value} {c.subject}: {c.problem}") for c in broken
    ]
    # A copy with its links followed holds only what is served.
    n_versions = sum(check.subject[0].isdigit() for check in checks) or len(checks) // 2
    versions = "1 version" if n_versions == 1 else f"{n_versions} versions"
    problems = "1 problem" if len(broken) == 1 else f"{len(broken) or 'no'} problems"
    summary = f"{versions} looked at, {problems}"
    return CommandResult(
        "\n".join([*lines, summary]),
        {"n_versions": n_versions, "problems": [asdict(check) for check in broken]},
        EXIT_FOUND if broken else 0,
    )


def _promote(settings: RegistryConfig) -> CommandResult:
    if settings.version is None:
        raise _incomplete(settings, "symbol", "tf", "version")
    market = _market(settings)
    version_id = find_version(market, settings.version)
    return _changed(market, promote(market, version_id, settings.why, settings.force))


def _rollback(settings: RegistryConfig) -> CommandResult:
    market = _market(settings)
    return _changed(market, rollback(market, settings.why, settings.force))


def _changed(market: MarketFolder, event: Event) -> CommandResult:
    text = f"{market.symbol} {market.timeframe.value}: serves {event.after}, before {event.before}"
    return CommandResult(text, events_as_json([event])[0])


def _prune(settings: RegistryConfig) -> CommandResult:
    rule = Pruning(settings.keep, settings.older_than_days)
    lines, content = [], []
    for market in _markets(settings):
        if not version_ids(market):
            continue  # a copy with its links followed holds only what is served
        sizes = {name: _n_bytes(market.version(name)) for name in version_ids(market)}
        gone = prunable(market, rule) if settings.dry_run else prune(market, rule, settings.why)
        # A version that came after the sizes were read has none here.
        n_bytes = sum(sizes.get(name, 0) for name in gone)
        verb = "would remove" if settings.dry_run else "removed"
        lines.append(
            f"{market.symbol} {market.timeframe.value}: {verb} {len(gone)} of {len(sizes)} "
            f"versions, {n_bytes / 1e6:.1f} MB"
        )
        lines += [f"  {name}" for name in gone]
        content.append(
            {
                "symbol": market.symbol,
                "tf": market.timeframe.value,
                "versions": gone,
                "n_bytes": n_bytes,
                "dry_run": settings.dry_run,
            }
        )
    return CommandResult("\n".join(lines) or "no versions", content)


def _n_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.glob("*"))


def _reproduce(settings: RegistryConfig) -> CommandResult:
    # Lightning takes seconds to import: only this action needs it.
    from percoin.registry.command.reproduction import reproduce

    # It takes minutes: progress goes to stderr, only the answer to stdout.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    found = reproduce(settings, _market(settings))
    return CommandResult(found.as_text(), found.as_json(), 0 if found.is_same else EXIT_FOUND)


_ACTIONS: Mapping[RegistryAction, _ActionSpec] = {
    RegistryAction.LIST: _ActionSpec(_list),
    RegistryAction.SHOW: _ActionSpec(_show, frozenset({"version"})),
    RegistryAction.VERIFY: _ActionSpec(_verify),
    RegistryAction.PROMOTE: _ActionSpec(_promote, frozenset({"version", "why", "force"})),
    RegistryAction.ROLLBACK: _ActionSpec(_rollback, frozenset({"why", "force"})),
    RegistryAction.PRUNE: _ActionSpec(
        _prune, frozenset({"keep", "older_than_days", "dry_run", "why"})
    ),
    RegistryAction.REPRODUCE: _ActionSpec(
        _reproduce, frozenset({"version", "source", "data_dir", "plugins"})
    ),
}
