"""What every command shares: composing its config and ending with one clear line."""

from __future__ import annotations

import copy
import errno
import os
import re
import resource
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.errors import HydraException, OverrideParseException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from percoin.bounds import check_path
from percoin.config import (
    CONF_DIR,
    SCHEMAS,
    Config,
    TrainConfig,
    name_nearest,
    register_configs,
    typed,
)
from percoin.console import outlets
from percoin.errors import ConfigError, PercoinError
from percoin.memory import is_out_of_memory
from percoin.overrides import quote_texts, text_keys
from percoin.printable import printable
from percoin.run_folder import claimed_run, run_folder
from percoin.types import Timeframe

EXIT_USAGE = 2
_MULTIRUN = {"-m", "--multirun"}
_MARKET = re.compile(r"[A-Z0-9]{2,20}(,[A-Z0-9]{2,20})*")
_OF_SWEEPS = {"sweep", "force", "reuse_bars_secs"}

_GROUP_CHOICE = re.compile(r"(?P<group>hydra/launcher|\w+)=(?P<values>.*)", re.DOTALL)
_OF_HYDRA = re.compile(r"hydra\.(run\.dir|verbose|(job_logging|launcher)(\..+)?)|hydra/\w+")
_LOGGERS = re.compile(r"\[?[A-Za-z_][\w.]*(,[A-Za-z_][\w.]*)*\]?")
_MOST_SHOWN = 60
_LONGEST_LINE = 2000
# The only group without a default; Hydra would fail on a key of it by an assertion.
_OPTIONAL_GROUP = "experiment"
# What it raises where it meets what it does not expect.
_BUGS_OF_HYDRA = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError),
    *(TypeError, ValueError),
)
# Writing reports these without saying which file it was.
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# The year 2200; dates in nanoseconds end in 2262, and all dates before the year 10000.
_END_OF_TIME = 7_258_118_400
# Bytes that a prediction takes without PyTorch.
_LEAST_ADDRESS_SPACE = 600_000 * 1024
# Whose output tells of what they did, and is not what they are for.
_WORK_IS_IN_FILES = {"train", "retrain", "fetch", "report", "serve"}
_HELP_WIDTH = 36
# Read when torch is loaded. Its threads wait for each other some ten thousand times a step, and
# would burn a whole time slice each time that another program has one of their cores.
PATIENCE_OF_THREADS = {"GOMP_SPINCOUNT": "1000"}
_CHOSEN_PATIENCE = {"OMP_WAIT_POLICY", *PATIENCE_OF_THREADS}
_YAML_LINE = re.compile(
    r"(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#\s][^#]*?))?(?: +# (?P<note>.*))?"
)
_FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:(?P<variable>\w+),(?P<otherwise>[^}]*)\}")


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose ``conf/<name>.yaml`` with ``key=value`` overrides, without a run folder.

    Raises:
        ConfigError: A choice that is no option of its group, or a key taken away.
        HydraException: A key that the config does not have, or a value of the
            wrong type; ``explain`` says it in one line.
    """
    return Composed.of(name, overrides).config


@dataclass(frozen=True)
class Composed:
    """A config, and how it came about.

    Attributes:
        config: As the command line and the files under ``conf/`` say.
        choices: The option chosen of each group.
        hydra: Hydra's own settings.
    """

    config: DictConfig
    choices: Mapping[str, str]
    hydra: DictConfig

    @classmethod
    def of(cls, name: str, overrides: Sequence[str]) -> Composed:
        """As ``compose_config``, which says what it raises."""
        words = as_meant(name, overrides)
        register_configs()
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            config = _composed(name, words)
        own = config.hydra
        return cls(_without_hydra(config), dict(own.runtime.choices), own)


def as_meant(config_name: str, overrides: Sequence[str]) -> list[str]:
    """The words of a command line as Hydra has to read them, after what it would not explain.

    Raises:
        ConfigError: They cannot be meant.
    """
    schema = SCHEMAS[config_name]
    _check_overrides(overrides, schema)
    return quote_texts(overrides, schema)


def _composed(config_name: str, words: Sequence[str]) -> DictConfig:
    """Compose with Hydra's own settings, and name the word at which Hydra itself breaks.

    Raises:
        ConfigError: No config of percoin and no user of Hydra is expected to say this.
        HydraException: As ``compose_config``.
    """
    try:
        return compose(config_name, overrides=list(words), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        raise
    except _BUGS_OF_HYDRA as error:
        word = _culprit(config_name, words)
        raise ConfigError(f"{word} cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _culprit(config_name: str, words: Sequence[str]) -> str:
    """The first word that breaks Hydra alone."""
    for word in words:
        try:
            compose(config_name, overrides=[word], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException):
            continue  # wrong without the others, which is no bug
        except _BUGS_OF_HYDRA:
            return word
    return "this command line"


@contextmanager
def config_loader() -> Iterator[ConfigLoader]:
    """What knows the options in ``conf/``, for reading overrides without composing them."""
    register_configs()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def run_command(command: Callable[[], Any], config_name: str) -> int:
    """Call ``command`` and turn what goes wrong into one line and an exit code.

    With ``--help`` on the command line, print the help of the config instead.

    Args:
        command: The command itself.
        config_name: Its config, to name the nearest key to a misspelt one.

    Returns:
        0, or the code of the error: 2 for a mistake on the command line, the
        error's own where it has one (128 + signal for an interruption), else 1.
    """
    if not _CHOSEN_PATIENCE & os.environ.keys():
        os.environ.update(PATIENCE_OF_THREADS)
    with outlets() as out:
        code = _run_in_one_line(command, config_name)
        out.flush()
        return code if out.failure is None else _unread(out.failure, code, config_name)


def _unread(failure: OSError, code: int, config_name: str) -> int:
    """The exit code of a command whose output did not arrive."""
    if failure.errno == errno.EPIPE:
        # Its reader has ended, such as head.
        return code or 128 + signal.SIGPIPE
    found = f"standard output is incomplete: {failure.strerror}"
    if code == 0 and config_name in _WORK_IS_IN_FILES:
        print(f"warning: {found}; what the command was for is done", file=sys.stderr)
        return 0
    print(f"error: {found}", file=sys.stderr)
    return code or PercoinError.exit_code


def _run_in_one_line(command: Callable[[], Any], config_name: str) -> int:
    arguments = sys.argv[1:]
    try:
        _check_clock()
        _check_memory_limit()
        if {"-h", "--help"} & set(arguments):
            print(help_text(config_name))
        else:
            command()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(error, config_name, arguments)}", file=sys.stderr)
        return EXIT_USAGE
    except PercoinError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        print(f"error: {_explain_machine(error)}", file=sys.stderr)
        return PercoinError.exit_code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _explain_machine(error: Exception) -> str:
    """Say in one line what the machine refuses; what is no such error is raised again."""
    if is_out_of_memory(error):
        return (
            "not enough memory: give the process more of it (ulimit -v, a larger machine, fewer "
            "other programs), or less to hold: a shorter history_days, a smaller batch_size, "
            "fewer workers or markets at a time"
        )
    if not isinstance(error, OSError):
        raise error
    if error.filename is None and error.errno not in _FULL_DISK:
        raise error
    place = error.filename or "free some space"
    return f"{printable(str(place))}: {error.strerror}"


def _check_memory_limit() -> None:
    """Refuse a limit within which the libraries cannot even be loaded; some hang or crash then.

    Raises:
        MemoryError: The limit is that low.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise MemoryError


def _check_clock() -> None:
    """Refuse a clock that no date of a bar could be held against.

    Raises:
        ConfigError: It is beyond what dates here can count to.
    """
    now = time.time()
    if now > _END_OF_TIME:
        year = 1970 + int(now / (365.2425 * 86_400))
        raise ConfigError(
            f"the clock of this machine says that it is the year {year}; set it right, as bars and "
            "models carry the time"
        )


def run_jobs(
    task: Callable[[Config], Any],
    schema: type[Config],
    config_name: str,
    sweep: Callable[[Sequence[str]], Any],
) -> int:
    """Run ``task`` once under Hydra, or with ``-m`` a sweep of such runs.

    A run's settings are checked before Hydra makes its folder.

    Args:
        task: Receives the typed settings of the one run.
        schema: Their dataclass.
        config_name: The config under ``conf/``.
        sweep: Receives the overrides of a sweep, each with one value or several.

    Returns:
        The exit code, as ``run_command``.
    """
    register_configs()
    failures: list[Exception] = []

    def job(config: DictConfig) -> None:
        try:
            with claimed_run(Path(HydraConfig.get().runtime.output_dir)):
                task(typed(config, schema))
        except (PercoinError, MemoryError, RuntimeError, ImportError, OSError) as error:
            # Hydra would log it, with its traceback, before it is raised again.
            failures.append(error)

    def command() -> None:
        arguments = sys.argv[1:]
        overrides = _overrides_of_sweep(arguments)
        if overrides is not None:
            _check_overrides(overrides, schema)
            sweep(overrides)
            return
        _check_not_of_sweeps(arguments)
        arguments = as_meant(config_name, arguments)
        # Hydra reads them once more.
        sys.argv[1:] = arguments
        if _asks_hydra_itself(arguments):
            hydra.main(config_path=str(CONF_DIR), config_name=config_name, version_base="1.3")(
                job
            )()
        else:
            _run_job(job, schema, config_name, arguments)
        for error in failures:
            raise error

    # Hydra would print a traceback and end the process; with this it raises.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    return run_command(command, config_name)


def _run_job(
    job: Callable[[DictConfig], Any],
    schema: type[Config],
    config_name: str,
    overrides: Sequence[str],
) -> None:
    """What ``hydra.main`` does for one run, which would compose the config two more times."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name=config_name):
        config = _composed(config_name, overrides)
        settings = typed(_without_hydra(config), schema)
        names_its_folder = OmegaConf.is_interpolation(config.hydra.run, "dir")
        with open_dict(config):
            config.hydra.mode = RunMode.RUN
            if names_its_folder and isinstance(settings, TrainConfig):
                config.hydra.run.dir = str(run_folder(settings, Path(config.hydra.run.dir)))
        loader = GlobalHydra.instance().config_loader()
        try:
            # What the job itself raises comes out of its return value.
            done = run_job(
                task_function=job,
                config=config,
                job_dir_key="hydra.run.dir",
                job_subdir_key=None,
                hydra_context=HydraContext(config_loader=loader, callbacks=Callbacks(config)),
            )
        except _BUGS_OF_HYDRA as error:
            raise ConfigError(f"Hydra cannot begin the run: {_first_line(error)}") from error
    # Asked for, it raises what the job has raised.
    _ = done.return_value


def _without_hydra(config: DictConfig) -> DictConfig:
    own = copy.copy(config)
    with open_dict(own):
        del own["hydra"]
    return own


def _overrides_of_sweep(arguments: Sequence[str]) -> list[str] | None:
    """The overrides of a command line with ``-m``; None without it."""
    overrides = [argument for argument in arguments if argument not in _MULTIRUN]
    if len(overrides) == len(arguments):
        return None
    for argument in overrides:
        if argument.startswith("-"):
            raise ConfigError(f"{argument} does not go with -m, which takes KEY=VALUE only")
    return overrides


def _check_not_of_sweeps(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if argument.partition("=")[0] in _OF_SWEEPS:
            raise ConfigError(f"{argument} is for sweeps: add -m, or leave it out")


def _check_markets(overrides: Sequence[str], schema: type) -> None:
    """Refuse what becomes of a file of markets that is not one line of them.

    Hydra would speak of its grammar.
    """
    alone = [word.strip() for word in overrides if _MARKET.fullmatch(word.strip(", \r\n"))]
    for value in [word.removeprefix("symbol=") for word in overrides if word.startswith("symbol=")]:
        if not value.strip(" ,\r\n"):
            raise ConfigError("symbol= names no market; is the file of markets empty or missing?")
        if re.search(r"""[\[\]"]""", value) and "symbol" in text_keys(schema):
            raise ConfigError(
                f"symbol={shown_value(value)} has brackets or quotes: name the markets with commas "
                "alone, as in symbol=BTCUSDT,ETHUSDT"
            )
        if "\r" in value:
            raise ConfigError(
                "symbol= holds a carriage return: the file of markets has the line ends of "
                "Windows; tr -d '\\r' takes them away"
            )
        if alone:
            raise ConfigError(
                f"{alone[0]!r} stands alone: name all markets in one word, separated by commas "
                "without spaces or line breaks; of a file with one market a line that is "
                "symbol=$(paste -sd, FILE)"
            )
        if "\n" in value.strip():
            raise ConfigError(
                "symbol= holds several lines; name all markets in one, separated by commas: "
                "symbol=$(paste -sd, FILE)"
            )
        if value.rstrip().endswith(","):
            raise ConfigError(f"symbol= ends with a comma after {value.split(',')[-2].strip()}")


def _asks_hydra_itself(arguments: Sequence[str]) -> bool:
    """Whether there is an option (--multirun, --cfg ...) beside key=value."""
    return any(argument.startswith("-") for argument in arguments)


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def _choices(overrides: Sequence[str]) -> dict[str, list[str]]:
    """The overrides that choose options, with the options that they name."""
    found = (_GROUP_CHOICE.fullmatch(override) for override in overrides)
    return {
        match["group"]: [value.strip() for value in match["values"].split(",")]
        for match in found
        # Quotes, functions and interpolations are left for Hydra to read.
        if match and _options(match["group"]) and not re.search(r"""["'($]""", match["values"])
    }


def _check_overrides(overrides: Sequence[str], schema: type) -> None:
    """Refuse what Hydra would name by its own inner workings, or not at all."""
    _check_markets(overrides, schema)
    for override in overrides:
        if override.startswith("~"):
            raise ConfigError(f"{override}: a setting cannot be left out; give it another value")
        if override in _MULTIRUN and schema is not TrainConfig:
            raise ConfigError(f"{override} is for sweeps of train.py; name one market at a time")
        if re.match(r"\+*hydra\b", override):
            _check_of_hydra(override, schema)
    chosen = _choices(overrides)
    for group, values in chosen.items():
        for value in values:
            if value not in _options(group):
                raise ConfigError(_no_option(group, value))
    stray = [text for text in overrides if text.startswith(f"{_OPTIONAL_GROUP}.")]
    if stray and _OPTIONAL_GROUP not in chosen:
        key, option = stray[0].partition("=")[0], _options(_OPTIONAL_GROUP)[0]
        choice = f"{_OPTIONAL_GROUP}={option}"
        raise ConfigError(f"{key} is a setting of {choice}; add {choice}")


def _check_of_hydra(override: str, schema: type) -> None:
    """Refuse settings of Hydra that would do nothing, or would break it."""
    key, _, value = override.lstrip("+").partition("=")
    if schema is not TrainConfig:
        raise ConfigError(f"{key} is a setting of train.py; leave it out")
    if _OF_HYDRA.fullmatch(key) is None:
        raise ConfigError(
            f"{key} is not a setting of percoin; of Hydra's own there are hydra.run.dir, "
            "hydra.verbose, hydra.job_logging, hydra/launcher and hydra.launcher"
        )
    if key == "hydra.run.dir":
        check_path(key, value)
    if key == "hydra.verbose" and _LOGGERS.fullmatch(value) is None:
        raise ConfigError(
            f"hydra.verbose={shown_value(value)} must be true, false, or the name of a logger"
        )


def refuse_bar_length_settings(overrides: Sequence[str]) -> None:
    """For commands that ask for the name of a bar length alone, and by default for none.

    To be called before their config is composed, where that would end in a traceback.

    Raises:
        ConfigError: A setting that hangs on a bar length, such as ``tf.threshold``.
    """
    for key in (override.partition("=")[0].lstrip("+") for override in overrides):
        if key.startswith("tf."):
            raise ConfigError(f"{key} is a setting of trainings; leave it out")


def _no_option(group: str, value: str, origin: str = "") -> str:
    known = ", ".join(_options(group))
    return f"{group}={value}{origin} is not an option; {group} is one of {known}"


def shown_value(value: str) -> str:
    """A value as a message shows it, where a long one would fill the screen."""
    return printable(value, _MOST_SHOWN)


def explain(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    """Say in one line what a config error means and what was probably meant."""
    line = _explained(error, config_name, overrides)
    for override in overrides:
        value = override.partition("=")[2]
        if len(value) > _MOST_SHOWN:
            line = line.replace(value, shown_value(value))
    return printable(line, _LONGEST_LINE)


def _meant_by_word(word: str) -> str | None:
    """The setting that a word without a key looks like: a bar length or a market."""
    if word in set(Timeframe):
        return f"tf={word}"
    return f"symbol={word}" if _MARKET.fullmatch(word) else None


def _explained(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, OverrideParseException):
        if meant := _meant_by_word(str(error.override)):
            return f"{error.override!r} is not KEY=VALUE; did you mean {meant}?"
        return (
            f"{error.override!r} is not KEY=VALUE; a sweep is -m KEY=A,B with nothing after B, and "
            "a value with brackets, quotes or signs in it is written KEY='VALUE'"
        )
    if unknown := re.search(r"Could not override '([^']+)'", text):
        return _explain_unknown_key(unknown[1], config_name, overrides)
    if option := re.search(r"Could not find '(hydra/\w+|\w+)/([^']*)'", text):
        # Choices on the command line have been checked; this one is a default's, or Hydra's.
        origin = " (from ML_DEFAULT_TF)" if option[1] == "tf" else ""
        return _no_option(option[1], option[2], origin)
    if "Ambiguous value" in text:
        found = text.splitlines()[0]
        if SCHEMAS[config_name] is TrainConfig:
            return f"{found}; several values make a sweep: add -m, and a list has brackets: [A,B]"
        return f"{found}; give one value, and write a list with brackets: [A,B]"
    if override := re.search(r"Error merging override (([^=\s]+)=\S+)", text):
        return _explain_value(override[1], override[2], error, config_name, overrides)
    if environment := re.search(
        r"interpolation '\$\{oc\.env:(\w+),[^}]*\}': (.*?)\s+full_key: (\S+)", text, re.DOTALL
    ):
        variable, reason, key = environment.groups()
        return f"{key} (from {variable}): {reason}"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _explain_value(
    override: str, key: str, error: Exception, config_name: str, overrides: Sequence[str]
) -> str:
    below = [name for name in _known_keys(config_name, overrides) if name.startswith(f"{key}.")]
    if below:
        return f"{override}: {key} holds further settings; set one of {', '.join(below)}"
    return f"{override}: {str(error.__cause__).splitlines()[0]}"


def _explain_unknown_key(key: str, config_name: str, overrides: Sequence[str]) -> str:
    group, _, name = key.partition(".")
    for option in _options(group):
        if name in OmegaConf.load(CONF_DIR / group / f"{option}.yaml").keys():  # noqa: SIM118
            return f"{key} is a setting of {group}={option}; add {group}={option}"
    return name_nearest(key, _known_keys(config_name, overrides))


def _known_keys(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Every key of the config that these choices make."""
    chosen = [f"{group}={values[0]}" for group, values in _choices(overrides).items()]
    config = compose_config(config_name, chosen)
    container = OmegaConf.to_container(config, resolve=False)
    return list(_flatten(container, prefix=""))


def _flatten(container: Any, prefix: str) -> list[str]:
    names: list[str] = []
    for key, value in container.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, dict):
            names += _flatten(value, prefix=f"{prefix}{key}.")
    return names


def help_text(config_name: str) -> str:
    """What ``--help`` prints, taken from the comments in ``conf/``."""
    path = CONF_DIR / f"{config_name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    text = _leading_comment(lines)
    text += [
        "",
        "Choices (GROUP=OPTION) with their keys; $NAME is read from the environment:",
    ]
    for entry in OmegaConf.to_container(OmegaConf.load(path), resolve=False)["defaults"]:  # type: ignore[index,call-overload]
        if isinstance(entry, dict):
            text += _help_on_choice(entry)
    text += [
        "",
        "Keys (KEY=VALUE), with their defaults:",
        *(_help_line(*key) for key in _keys_in(lines)),
    ]
    return "\n".join(text)


def _leading_comment(lines: Sequence[str]) -> list[str]:
    n_lines = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return [line[1:].removeprefix(" ") for line in lines[:n_lines]]


def _help_on_choice(entry: dict[Any, Any]) -> list[str]:
    text: list[str] = []
    for name, default in entry.items():
        group = str(name).removeprefix("override ")
        if not _options(group) or group == "hydra/job_logging":
            continue  # Hydra's own
        chosen, variable = _default_value(str(default))
        for option in _options(group):
            path = CONF_DIR / group / f"{option}.yaml"
            lines = path.read_text(encoding="utf-8").splitlines()
            note = " ".join(_leading_comment(lines))
            mark = f"[default{variable}]" if option == chosen else ""
            text.append(_help_line(f"{group}={option}", f"{note} {mark}".strip()))
            # Library objects are described by their libraries.
            keys = "  ".join(name for name, _ in _keys_in(lines, f"{group.replace('/', '.')}."))
            if "_target_" not in keys:
                text += textwrap.wrap(keys, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return text


def _help_line(name: str, note: str) -> str:
    start = f"  {name:{_HELP_WIDTH}}  "
    return textwrap.fill(note, 100, initial_indent=start, subsequent_indent=" " * len(start)) or (
        start.rstrip()
    )


def _keys_in(lines: Sequence[str], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each setting of a YAML file, with its note; a group's note counts for all in it."""
    parents = [(-1, prefix, "")]
    for line in lines:
        match = _YAML_LINE.fullmatch(line)
        if match is None or match["key"] == "defaults":
            continue
        depth, key = len(match["indent"]), match["key"]
        while parents[-1][0] >= depth:
            parents.pop()
        name = f"{parents[-1][1]}{key}"
        note = match["note"] or parents[-1][2]
        if match["value"] is None:
            parents.append((depth, f"{name}.", note))
        elif prefix or not name.startswith("hydra."):
            value, variable = _default_value(match["value"])
            yield name if value == "???" else f"{name}={value}", f"{note}{variable}"


def _default_value(value: str) -> tuple[str, str]:
    """A default as text, and a word on the environment variable that can set it."""
    match = _FROM_ENVIRONMENT.fullmatch(value)
    return (match["otherwise"], f"; ${match['variable']}") if match else (value, "")
