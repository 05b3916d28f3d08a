"""Standard output and error that accept whatever is printed, even if they are full or gone.

A terminal may lack a letter, a disk may be full, a reader may have ended, and a service may have no
output at all. None of this may end a training whose model is not saved yet.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast


class _Nowhere(io.TextIOBase):
    """In place of an output that a process does not have."""

    encoding = "utf-8"
    errors = "replace"

    def write(self, text: str) -> int:
        return len(text)


class Outlet:
    """A text stream that notes the first failure to write and drops what follows.

    Args:
        stream: The one to write to; None if the process has none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
        self._stream = cast(TextIO, _Nowhere()) if stream is None else stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write, as any text stream does."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._let_go(error)
            return len(text)

    def flush(self) -> None:
        """Pass on what is held back, as any text stream does."""
        try:
            self._stream.flush()
        except OSError as error:
            self._let_go(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _let_go(self, error: OSError) -> None:
        self.failure = self.failure or error
        # What is still held back must not fail once more, at the end of the process at the latest.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def outlets() -> Iterator[Outlet]:
    """Print through outlets inside the block; yields that of standard output."""
    out, err = Outlet(sys.stdout), Outlet(sys.stderr)
    with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
        try:
            yield out
        finally:
            out.flush()
            err.flush()
