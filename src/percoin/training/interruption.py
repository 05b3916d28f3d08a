"""Ctrl-C and SIGTERM end a training with an error, at a moment when no data is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from percoin.errors import InterruptedRunError
from percoin.interruption import StopSignals
from percoin.run_record import has_checkpoint


class RunInterruption:
    """Remembers a signal until the training asks for it.

    Args:
        market: Symbol and timeframe, for the message.
        folder: The run's folder with checkpoints to resume; None if the run writes none.
    """

    def __init__(self, market: tuple[str, str], folder: Path | None) -> None:
        self._market = market
        self._folder = folder
        self._signals = StopSignals()
        self._is_expected = False

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Remember the first signal; a second one ends the process at once.

        A nested call does nothing, because a training may be part of a larger run.
        """
        if self._is_expected:
            yield
            return
        self._is_expected = True
        try:
            with self._signals.noted():
                yield
        except SystemExit:
            # Lightning handles SIGTERM too, but it exits with code 0.
            self.end_if_received()
            raise
        finally:
            self._is_expected = False

    def end_if_received(self) -> None:
        """Raise InterruptedRunError if a signal was received."""
        received = self._signals.first
        if received is None:
            return
        can_resume = self._folder is not None and has_checkpoint(self._folder)
        raise InterruptedRunError(
            *self._market,
            f"interrupted by {received.name}",
            "the last finished epoch is kept; the same command with resume=true goes on from it"
            if can_resume
            else "no finished epoch is kept; start again",
            signal_number=received,
        )
