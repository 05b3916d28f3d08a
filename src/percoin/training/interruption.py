"""Ctrl-C and SIGTERM end a training the same way: by an error, at a moment that loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from percoin.errors import InterruptedRunError
from percoin.interruption import StopSignals
from percoin.run_record import has_checkpoint


class RunInterruption:
    """Takes note of a signal until somebody asks for it.

    Args:
        market: Symbol and timeframe, for the message.
        folder: Of the run, whose checkpoints can be gone on with; None if there never are any.
    """

    def __init__(self, market: tuple[str, str], folder: Path | None) -> None:
        self._market = market
        self._folder = folder
        self._signals = StopSignals()
        self._is_expected = False

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Take note of the first signal; a second one ends the process at once.

        Within itself it does nothing: a training may be part of a larger run.
        """
        if self._is_expected:
            yield
            return
        self._is_expected = True
        try:
            with self._signals.noted():
                yield
        except SystemExit:
            # Lightning takes note of SIGTERM as well, and would answer it with exit code 0.
            self.end_if_received()
            raise
        finally:
            self._is_expected = False

    def end_if_received(self) -> None:
        """Raise what a signal that has come means; nothing without one."""
        received = self._signals.first
        if received is None:
            return
        can_resume = self._folder is not None and has_checkpoint(self._folder)
        raise InterruptedRunError(
            *self._market,
            f"interrupted by {received.name}",
            "the last finished epoch is kept; the same command with resume=true goes on from it"
            if can_resume
            else "no epoch was finished; start again",
            signal_number=received,
        )
