"""Memory settings of the C library for training, and the error when memory runs out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from percoin.errors import TrainingError
from percoin.memory import is_out_of_memory
from percoin.printable import printable

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# The largest threshold that glibc accepts.
_LARGEST_MMAP_THRESHOLD = 32 * 1024**2
_TOP_PAD_BYTES = 64 * 1024**2
_NEVER_TRIM = 2**31 - 1
_LONGEST_REASON = 200


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, because the next batch needs the same amount.

    By default glibc returns large freed tensors to the kernel and asks for new memory at every
    step; the kernel then clears each page again. With this setting the process keeps its
    largest size until it ends.

    Returns:
        Whether the C library accepts these settings.
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
    """Turn an out-of-memory error of any library into a one-line error with advice.

    Args:
        title: The market, or the name of several markets in messages.
        timeframe: Bar length.

    Raises:
        TrainingError: Memory ran out.
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
