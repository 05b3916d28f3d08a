"""Imported once by the server that jobs are forked from: each then starts in no time.

Importing starts no thread and initialises no GPU, or the fork would not be safe.
"""

from percoin.provenance import code_version
from percoin.sweep import worker

# Of the code that was just imported, even if the files change while the sweep goes on.
CODE_VERSION = code_version()

__all__ = ["CODE_VERSION", "worker"]
