"""Searches in this process: on one core, and without painted pictures."""

from blank_pictures import _blank_pictures, painted  # noqa: F401
from one_core import _one_core  # noqa: F401
