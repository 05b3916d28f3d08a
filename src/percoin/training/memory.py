"""What a training asks of the C library's memory."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# The largest threshold that glibc takes.
_LARGEST_MMAP_THRESHOLD = 32 * 1024**2
_TOP_PAD_BYTES = 64 * 1024**2
_NEVER_TRIM = 2**31 - 1


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
