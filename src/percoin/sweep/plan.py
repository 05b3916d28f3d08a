"""From a command line to the jobs of a sweep and their folders."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from percoin.bars.renames import current_symbol
from percoin.cli import Composed, config_loader
from percoin.cli.folders import SEARCH_PATH
from percoin.cli.mistakes import SET_ALL
from percoin.cli.options import is_option
from percoin.cli.overrides import quote_texts, text_keys
from percoin.cli.targets import as_typed, with_targets
from percoin.commands import flat
from percoin.config import LauncherConfig, SourceConfig, TrainConfig, typed
from percoin.config.effects import is_of_the_run, names_with
from percoin.config.fields import Effect, check_all
from percoin.errors import ConfigError
from percoin.printable import printable
from percoin.sweep.jobs import Job

CONFIG_NAME = "train"

# Settings that only the sweep reads; its jobs do not get them.
_OF_THE_SWEEP = frozenset({*names_with(TrainConfig, {Effect.SWEEP}), "workers", "resume"})
# A sweep keeps its name when its markets change.
_MARKETS = frozenset({"symbol", "tf"})
_LAUNCHER = re.compile(r"hydra/launcher|hydra\.launcher\..+")
_LONGEST_NAME = 100

_Values = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class SweepPlan:
    """The jobs of a sweep, and where they run.

    Attributes:
        folder: Folder of the sweep; it holds all its files.
        jobs: In the order in which they start.
        settings: Settings of the first job; those of the sweep itself are the same in all jobs.
        launcher: Where the jobs run.
        has_one_source: Whether the bars of all jobs come from the same source.
    """

    folder: Path
    jobs: tuple[Job, ...]
    settings: TrainConfig
    launcher: LauncherConfig
    has_one_source: bool


@dataclass(frozen=True)
class JobBase:
    """What jobs have that nobody typed, but an experiment or the defaults say.

    Attributes:
        symbol: Market.
        tf: Bar length.
        tf_option: Option of the group ``tf``.
        has_usual_logger: Whether nobody chose a logger.
        source: Where the bars come from.
    """

    symbol: str
    tf: str
    tf_option: str
    has_usual_logger: bool
    source: SourceConfig


def plan_sweep(arguments: Sequence[str]) -> SweepPlan:
    """List the jobs of ``train.py -m``, and check the settings of each.

    Args:
        arguments: ``KEY=VALUE`` words; several values are separated by commas.

    Raises:
        ConfigError: A key or value is invalid in any of the jobs.
        HydraException: The same, found by Hydra; ``percoin.cli.explain`` makes it readable.
    """
    options = [word for word in arguments if is_option(word)]
    values = _parse([word for word in arguments if word not in options])
    launcher_values = {key: found for key, found in values.items() if _LAUNCHER.fullmatch(key)}
    values = {key: found for key, found in values.items() if key not in launcher_values}
    _check_keys(values, launcher_values)
    first = next(_combinations({**values, **launcher_values}))
    # With --cfg the config of the first job is shown, and no plan is made.
    composed = Composed.of(CONFIG_NAME, [*first, *options])
    launcher = cast(LauncherConfig, OmegaConf.to_object(composed.hydra.launcher))
    check_all(launcher, "hydra.launcher.")
    settings = _checked(composed)
    bases = _bases(values, composed, settings)
    _check_others(values)
    swept = [key for key, found in values.items() if len(found) > 1]
    name = settings.sweep or sweep_name(composed.config, swept)
    folder = Path(settings.outputs_dir).absolute() / name
    jobs = tuple(jobs_of(values, folder, bases))
    is_source_swept = any(key.startswith("source") for key in swept)
    is_same = all(base.source == settings.source for base in bases.values())
    has_one_source = is_same and not is_source_swept
    return SweepPlan(folder, jobs, settings, launcher, has_one_source)


def sweep_name(config: DictConfig, swept: Sequence[str]) -> str:
    """Name a sweep by a hash of its settings; the values of the swept keys do not count.

    Args:
        config: Config of any of the jobs; interpolations count as text.
        swept: The keys with several values.
    """
    settings = cast(dict[str, object], OmegaConf.to_container(config, resolve=False))
    keys = {key.lstrip("+") for key in swept} - _MARKETS
    left_out = (*_MARKETS, *keys)
    named = {
        name: value
        for name, value in flat(settings)
        if _is_in_the_name(name) and not any(f"{name}.".startswith(f"{k}.") for k in left_out)
    }
    text = json.dumps([named, sorted(keys)], sort_keys=True)
    return f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _is_in_the_name(key: str) -> bool:
    # A sweep that exports to another registry gets another name.
    return key == "models_dir" or not is_of_the_run(TrainConfig, key)


def _parse(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The values of each key by Hydra's grammar; the last one wins if a key is repeated."""
    with config_loader(arguments) as loader:
        told = with_targets(arguments, TrainConfig)
        words = quote_texts(told, TrainConfig, lists=text_keys(TrainConfig))
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(words)
        return {override.get_key_element(): _values_of(override) for override in overrides}


def _values_of(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: list the values, separated by commas")
    return list(override.sweep_string_iterator())


def _check_keys(values: _Values, launcher_values: _Values) -> None:
    if values.get("resume", ["false"]) != ["false"]:
        raise ConfigError(
            "resume=true is for one run; a sweep that is started again goes on by itself: "
            "leave it out"
        )
    if "pooled" in values.get("recipe", ()):
        raise ConfigError(
            "recipe=pooled trains one network on all markets, which is no sweep: leave out -m"
        )
    if values.get("fleet", ["false"]) != ["false"]:
        raise ConfigError(
            "fleet=true trains all markets at once in one process, which is no sweep: leave out -m"
        )
    for key, found in {**values, **launcher_values}.items():
        is_common = key in launcher_values or (
            key not in SET_ALL and is_of_the_run(TrainConfig, key.lstrip("+"))
        )
        if len(found) > 1 and is_common:
            raise ConfigError(f"{key} is the same for a whole sweep; give it one value")
        if twice := sorted({value for value in found if found.count(value) > 1}):
            raise ConfigError(f"{key} names {', '.join(twice)} twice")
        if key.startswith("hydra") and key not in {*launcher_values, SEARCH_PATH}:
            raise ConfigError(f"{key} does nothing in a sweep; sweep=NAME names its folder")


def _combinations(values: _Values) -> Iterator[list[str]]:
    """The overrides of each job: every combination of the values."""
    lists = [[f"{key}={value}" for value in found] for key, found in values.items()]
    yield from map(list, itertools.product(*lists))


def _checked(composed: Composed) -> TrainConfig:
    """The settings of a job; an experiment file may hold a search, which no sweep does."""
    settings = typed(composed.config, TrainConfig)
    if settings.experiment is not None:
        raise ConfigError("experiment=tune searches one market at a time: leave out -m")
    return settings


def _chosen(job: Mapping[str, str]) -> tuple[str, ...]:
    """The options of a job that may set anything."""
    return tuple(job.get(group, "") for group in SET_ALL)


def _bases(
    values: _Values, first: Composed, first_settings: TrainConfig
) -> dict[tuple[str, ...], JobBase]:
    """What jobs have by themselves, for each combination of experiment and debug.

    Args:
        values: The values of each key.
        first: The first job.
        first_settings: Its settings.

    Raises:
        ConfigError: The jobs of one are a search, or write into other folders than the first.
    """
    told = {key: found[0] for key, found in values.items()}
    groups = [group for group in SET_ALL if group in values]
    usual = first.choices.get("logger")
    if groups:
        folders = [f"{SEARCH_PATH}={told[SEARCH_PATH]}"] if SEARCH_PATH in told else []
        usual = Composed.of(CONFIG_NAME, folders).choices.get("logger")
    bases: dict[tuple[str, ...], JobBase] = {}
    for options in itertools.product(*(values[group] for group in groups)):
        job = {**told, **dict(zip(groups, options, strict=True))}
        composed = Composed.of(CONFIG_NAME, _words(job)) if bases else first
        settings = _checked(composed) if bases else first_settings
        _check_common(settings, first_settings, options)
        has_usual_logger = composed.choices.get("logger") == usual
        own = settings.symbol, settings.tf.name, composed.choices["tf"]
        bases[_chosen(job)] = JobBase(*own, has_usual_logger, settings.source)
    return bases


def _check_common(settings: TrainConfig, first: TrainConfig, options: Sequence[str]) -> None:
    """Refuse other folders in one experiment than in the first.

    Raises:
        ConfigError: The models would not be held against each other, or be lost.
    """
    for name in ("models_dir", "outputs_dir"):
        found, wanted = getattr(settings, name), getattr(first, name)
        if found != wanted:
            raise ConfigError(
                f"{name} is the same for a whole sweep: {', '.join(options)} says "
                f"{printable(found)}, the first job {printable(wanted)}; give {name}=FOLDER beside "
                "-m, or run one sweep for each"
            )


def _words(job: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in job.items()]


def _check_others(values: _Values) -> None:
    """Check every value that is not in the first job."""
    for symbol in values.get("symbol", ()):
        current_symbol(_plain(symbol))
    first = {key: found[0] for key, found in values.items()}
    for key, found in values.items():
        # Composing takes 0.2 s, so this checks each value once, and no markets or combinations.
        for value in found[1:] if key not in {"symbol", *SET_ALL} else ():
            _checked(Composed.of(CONFIG_NAME, _words({**first, key: value})))


def jobs_of(
    values: _Values, folder: Path, bases: Mapping[tuple[str, ...], JobBase]
) -> Iterator[Job]:
    """The jobs of a sweep, each with its own folder below the sweep's folder.

    Args:
        values: The values of each key.
        folder: Folder of the sweep.
        bases: What jobs have beside them, by the values of experiment and debug.
    """
    varied = {
        key: found
        for key, found in values.items()
        if len(found) > 1 and key not in {"symbol", "tf"}
    }
    told = {key: found for key, found in values.items() if key not in _OF_THE_SWEEP}
    is_logger_told = any(re.fullmatch(r"logger|logger\..*", key) for key in told)
    for overrides in _combinations(told):
        chosen = dict(override.split("=", 1) for override in overrides)
        base = bases[_chosen(chosen)]
        symbol, tf = _plain(chosen.get("symbol", base.symbol)), _plain(chosen.get("tf", base.tf))
        if "tf" not in chosen:
            # The default may be another one where the job runs.
            overrides.append(f"tf={base.tf_option}")
        if not is_logger_told and base.has_usual_logger:
            # A hundred runs are too many for TensorBoard; the sweep writes one run for all.
            overrides.append("logger=csv")
        variant = [f"{as_typed(key)}={chosen[key]}" for key in varied]
        below = [_folder_name(variant)] if variant else []
        place = folder.joinpath(symbol, tf, *below)
        yield Job(symbol, tf, place, tuple(overrides), " ".join(variant))


def _plain(value: str) -> str:
    """A value without the quotes of Hydra's grammar."""
    return value[1:-1] if value[:1] in {"'", '"'} and value[-1:] == value[:1] else value


def _folder_name(variant: Sequence[str]) -> str:
    """A unique, readable folder name for a variant."""
    text = ",".join(variant)
    name = re.sub(r"[^\w.=+,-]", "_", text)[:_LONGEST_NAME]
    if name == text:
        return name
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
