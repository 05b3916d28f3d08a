"""Ctrl-C and SIGTERM end a training the same way: by an error, at a moment that loses nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from percoin.errors import InterruptedRunError
from percoin.run_folder import CHECKPOINTS


class Interruption:
    """Takes note of a signal until somebody asks for it.

    Raised in the signal's handler itself, the error could end up in any ``except`` of whatever is
    running, logging's for one, and be lost.

    Args:
        market: Symbol and timeframe, for the message.
        folder: Of the run, whose checkpoints can be gone on with; None if there never are any.
    """

    def __init__(self, market: tuple[str, str], folder: Path | None) -> None:
        self._market = market
        self._folder = folder
        self._received: signal.Signals | None = None
        self._is_expected = False

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Take note of the first signal; a second one ends the process at once.

        Within itself it does nothing: a training may be part of a larger run.
        """
        if self._is_expected:
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        usual = {number: signal.getsignal(number) for number in numbers}

        def note(number: int, _frame: FrameType | None) -> None:
            self._received = signal.Signals(number)
            for each in numbers:
                signal.signal(each, signal.SIG_DFL)

        for number in numbers:
            signal.signal(number, note)
        self._is_expected = True
        try:
            yield
        except SystemExit:
            # Lightning takes note of SIGTERM as well, and would answer it with exit code 0.
            self.end_if_received()
            raise
        finally:
            self._is_expected = False
            for number, handler in usual.items():
                signal.signal(number, handler)

    def end_if_received(self) -> None:
        """Raise what a signal that has come means; nothing without one."""
        if self._received is None:
            return
        can_resume = self._folder is not None and any(self._folder.glob(CHECKPOINTS))
        raise InterruptedRunError(
            *self._market,
            f"interrupted by {self._received.name}",
            "the last finished epoch is kept; the same command with resume=true goes on from it"
            if can_resume
            else "no epoch was finished; start again",
            signal_number=self._received,
        )
