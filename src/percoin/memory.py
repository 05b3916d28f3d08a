"""Whether an error means that memory ran out, whichever library was told so."""

from __future__ import annotations

import errno
import re

# How libraries put it that have no error of their own for it; "map segment" is the linker's.
_NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|out of memory|bad_alloc|"
    r"failed to map segment|can't start new thread|could not (create|execute) a primitive",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is lacking, in the words of Python, NumPy, Arrow, torch or the system."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    # Of torch, which is not imported for this.
    is_of_torch = type(error).__name__ == "OutOfMemoryError"
    return is_of_torch or _NO_MEMORY.search(str(error)) is not None
