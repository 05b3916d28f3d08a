"""Imported once by the server that forks the jobs, so that each job starts fast.

The imports must start no thread and initialise no GPU; else a fork is not safe.
"""

import arch
import pandera.pandas
import sklearn.ensemble
import sklearn.linear_model

from percoin.provenance import code_version
from percoin.sweep import worker

# Version of the imported code, even if the files change while the sweep runs.
CODE_VERSION = code_version()

# A job would otherwise import these libraries only when it needs them.
__all__ = ["CODE_VERSION", "arch", "pandera", "sklearn", "worker"]
