"""Running a command: it ends with one clear line and an exit code."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

import percoin
from percoin.cli.compose import ConfigShown
from percoin.cli.console import outlets
from percoin.cli.explain import explain
from percoin.cli.folders import folders_in
from percoin.cli.help import help_text
from percoin.cli.hydras_own import ask_hydra
from percoin.cli.options import HELP, OF_HYDRA, VERSION, joined
from percoin.commands import PROGRAM, as_called
from percoin.config.folders import reading_from
from percoin.errors import ConfigError, PercoinError
from percoin.interruption import Interrupted, interruptible
from percoin.memory import is_out_of_memory
from percoin.printable import printable

EXIT_USAGE = 2


# Writing reports these without saying which file it was.
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# The year 2200; dates in nanoseconds end in 2262.
_END_OF_TIME = 7_258_118_400


# Bytes that a prediction needs without PyTorch.
_LEAST_ADDRESS_SPACE = 600_000 * 1024


# Their work is in files or answers; what they print only reports it.
_WORK_IS_IN_FILES = {"train", "retrain", "fetch", "report", "serve"}


# Read when torch is loaded. Its threads wait for each other some ten thousand times a step, and
# would burn a whole time slice each time that another program has one of their cores.
PATIENCE_OF_THREADS = {"GOMP_SPINCOUNT": "1000"}


_CHOSEN_PATIENCE = {"OMP_WAIT_POLICY", *PATIENCE_OF_THREADS}


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
        print(f"warning: {found}; the command has done its work", file=sys.stderr)
        return 0
    print(f"error: {found}", file=sys.stderr)
    return code or PercoinError.exit_code


def _run_in_one_line(command: Callable[[], Any], config_name: str) -> int:
    arguments = sys.argv[1:]
    try:
        _check_clock()
        _check_memory_limit()
        if HELP & set(arguments):
            print(as_called(help_text(config_name)))
        elif VERSION & set(arguments):
            print(f"{PROGRAM} {percoin.__version__}")
        elif OF_HYDRA & set(arguments):
            ask_hydra(config_name, arguments)
        else:
            with interruptible(), reading_from(folders_in(joined(arguments))):
                command()
    except ConfigShown as shown:
        print(shown, end="")
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {as_called(explain(error, config_name, arguments))}", file=sys.stderr)
        return EXIT_USAGE
    except PercoinError as error:
        print(f"error: {as_called(printable(str(error)))}", file=sys.stderr)
        return error.exit_code
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        print(f"error: {_explain_machine(error)}", file=sys.stderr)
        return PercoinError.exit_code
    except KeyboardInterrupt as error:
        print("error: interrupted", file=sys.stderr)
        return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)
    return 0


def _explain_machine(error: Exception) -> str:
    """Say in one line what the machine refused; other errors are raised again."""
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
    """Refuse a memory limit that is too low to load the libraries: some hang or crash.

    Raises:
        MemoryError: The limit is that low.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise MemoryError


def _check_clock() -> None:
    """Refuse a clock that is so wrong that no bar could be dated by it.

    Raises:
        ConfigError: It shows a year after 2200.
    """
    now = time.time()
    if now > _END_OF_TIME:
        year = 1970 + int(now / (365.2425 * 86_400))
        raise ConfigError(
            f"the clock of this machine shows the year {year}; set it right, as bars and models "
            "carry the time"
        )
