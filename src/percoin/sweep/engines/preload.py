"""Imported once by the server that jobs are forked from, so that each starts at once.

Importing starts no thread and initialises no GPU, or the fork would not be safe.
"""

import arch.bootstrap
import pandera.pandas
import sklearn.ensemble
import sklearn.linear_model

from percoin.provenance import code_version
from percoin.sweep import worker

# Of the code that was just imported, even if the files change while the sweep goes on.
CODE_VERSION = code_version()

# The libraries are those that a job imports only once it needs them.
__all__ = ["CODE_VERSION", "arch", "pandera", "sklearn", "worker"]
