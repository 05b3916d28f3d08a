"""The one answer to Ctrl-C and SIGTERM: at once, or noted until a moment that loses nothing.

Either way the second signal ends the process at once, and the handlers that were there before
come back.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM, raised where the program was when it came.

    Args:
        number: Which of them.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """Have both signals raise ``Interrupted`` where the program is.

    A signal that whoever started the process has it ignore stays ignored.
    """

    def answer(number: signal.Signals) -> None:
        _end_at_the_next()
        raise Interrupted(number)

    heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    with _answered(heard, answer):
        yield


class StopSignals:
    """Both signals, noted until somebody asks.

    Raised in the signal's handler itself, an error could end up in any ``except`` of whatever is
    running, logging's for one, and be lost.

    Args:
        second_ends_process: Or is noted too, for a caller that has processes to end.
    """

    def __init__(self, second_ends_process: bool = True) -> None:
        self._second_ends_process = second_ends_process
        self._received: list[signal.Signals] = []

    @property
    def first(self) -> signal.Signals | None:
        """What has come first; None if nothing has."""
        return self._received[0] if self._received else None

    @property
    def is_urgent(self) -> bool:
        """Whether a second one has come."""
        return len(self._received) > 1

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Take note of what comes."""

        def note(number: signal.Signals) -> None:
            self._received.append(number)
            if self._second_ends_process:
                _end_at_the_next()

        with _answered(STOPPING, note):
            yield


def _end_at_the_next() -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def _answered(
    numbers: tuple[signal.Signals, ...] | list[signal.Signals],
    answer: Callable[[signal.Signals], object],
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can say what a signal does
        return
    usual = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda number, _frame: answer(signal.Signals(number)))
    try:
        yield
    finally:
        for number, handler in usual.items():
            # One that C code has put in place cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
