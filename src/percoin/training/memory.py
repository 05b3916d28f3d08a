"""What a training asks of the C library's memory, and what it says when there is no more."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from percoin.errors import TrainingError
from percoin.memory import is_out_of_memory
from percoin.printable import printable

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# The largest threshold that glibc takes.
_LARGEST_MMAP_THRESHOLD = 32 * 1024**2
_TOP_PAD_BYTES = 64 * 1024**2
_NEVER_TRIM = 2**31 - 1
_LONGEST_REASON = 200


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, since the next batch asks for as much again.

    It would otherwise hand large tensors back to the kernel when they are freed and ask for
    them anew at every step; the kernel then clears each page once more. The process keeps its
    largest size until it ends.

    Returns:
        Whether the C library is one that can be told so.
    """
    if sys.platform != "linux":
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    options = {
        _MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD,
        _TRIM_THRESHOLD: _NEVER_TRIM,
        _TOP_PAD: _TOP_PAD_BYTES,
    }
    return all(set_option(name, value) for name, value in options.items())


@contextmanager
def memory_errors(title: str, timeframe: str) -> Iterator[None]:
    """Say in one line that memory ran out, whichever library was told so.

    Args:
        title: The market, or what messages call several.
        timeframe: Bar length.

    Raises:
        TrainingError: It ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TrainingError(
            title,
            timeframe,
            f"memory ran out ({printable(reason, _LONGEST_REASON)})",
            "give it more memory, or use a smaller batch_size, lookback or history_days",
        ) from error
