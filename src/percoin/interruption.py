"""The one answer to Ctrl-C and SIGTERM: at once, or noted until a moment that loses nothing.

Either way the second signal ends the process at once, and the handlers that were there before
come back. A signal that the process was started to ignore stays ignored.
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
    """Have both signals raise ``Interrupted`` where the program is."""

    def answer(number: signal.Signals) -> None:
        raise Interrupted(number)

    with _answered(answer):
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
        with _answered(self._received.append, self._second_ends_process):
            yield


@contextmanager
def _answered(
    answer: Callable[[signal.Signals], object], second_ends_process: bool = True
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can say what a signal does
        return
    found = {number: signal.getsignal(number) for number in STOPPING}
    usual = {number: was for number, was in found.items() if was is not signal.SIG_IGN}

    def handle(number: int, _frame: object) -> None:
        if second_ends_process:
            for each in usual:
                signal.signal(each, signal.SIG_DFL)
        answer(signal.Signals(number))

    for number in usual:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in usual.items():
            # One that C code has put in place cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
