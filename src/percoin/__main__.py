"""The program ``percoin``: every command of the package by its name.

``percoin train`` is ``python train.py`` of a checkout and ``percoin fetch`` is
``python -m percoin.fetch``, from any folder.
"""

from __future__ import annotations

import difflib
import gc
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module

import percoin
from percoin.commands import PROGRAM

_USAGE = 2


def predict() -> int:
    """Answer for the newest closed bar of a market, as ``predict.py``; the exit code."""
    # The process ends before garbage could matter, and looking for it among all that
    # the libraries create while they load is a tenth of the time to the answer.
    gc.disable()
    from percoin.cli import run_command

    return run_command(_answer, config_name="predict")


def _answer() -> None:
    from percoin.cli import compose_config
    from percoin.config import PredictConfig, typed
    from percoin.predict import answer

    answer(typed(compose_config("predict", sys.argv[1:]), PredictConfig))


def _train() -> int:
    from percoin.train import main

    return main()


def _run_module(name: str) -> int:
    """Call the command of a module; it is imported only now."""
    code: int = import_module(f"percoin.{name}").main(sys.argv[1:])
    return code


def _print_symbols() -> int:
    """The 32 markets on a line, for ``symbol=$(percoin symbols)``."""
    from percoin.config import CONF_DIR

    print((CONF_DIR.parent / "symbols").read_text(encoding="utf-8").strip())
    return 0


# What it does, by name, and what runs it.
COMMANDS: dict[str, tuple[str, Callable[[], int]]] = {
    "train": ("train a model, or many (-m)", _train),
    "predict": ("answer for the newest closed bar of a market", predict),
    "serve": ("serve answers over HTTP, with a page", partial(_run_module, "serve")),
    "report": (
        "what every saved model is worth, as a page",
        partial(_run_module, "report.__main__"),
    ),
    "fetch": ("fetch bars, or report on the stored ones", partial(_run_module, "fetch")),
    "audit": (
        "look for leaks in a market, a model or scores",
        partial(_run_module, "audit.__main__"),
    ),
    "judge": ("judge anybody's forecasts", partial(_run_module, "judge.__main__")),
    "signals": ("what each source of signals is worth", partial(_run_module, "signals.command")),
    "registry": (
        "list, show, promote, verify saved models",
        partial(_run_module, "registry.command.actions"),
    ),
    "retrain": (
        "train again what is due, demote what is gone",
        partial(_run_module, "retrain.__main__"),
    ),
    "symbols": ("print the 32 markets: symbol=$(percoin symbols)", _print_symbols),
}


def main() -> int:
    """Run the command that the first word names; the exit code."""
    words = sys.argv[1:]
    name = words[0] if words else "--help"
    if name in {"-h", "--help", "help"}:
        print(_help())
        return 0
    if name in {"-V", "--version", "version"}:
        print(f"{PROGRAM} {percoin.__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"commands: {', '.join(COMMANDS)}"
        print(f"error: {PROGRAM} has no command {name!r:.80}; {meant}", file=sys.stderr)
        return _USAGE
    # So that messages name commands as they were called.
    sys.argv = [PROGRAM, *words[1:]]
    return COMMANDS[name][1]()


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (summary, _) in COMMANDS.items()]
    return "\n".join(
        [
            "percoin trains, judges and serves one small signal model per crypto market.",
            "",
            f"  {PROGRAM} train symbol=BTCUSDT tf=1h source=sample epochs=3",
            f"  {PROGRAM} predict symbol=BTCUSDT tf=1h",
            f"  {PROGRAM} COMMAND --help",
            "",
            "Commands:",
            *lines,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
