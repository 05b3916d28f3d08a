"""One real training, from which every test gets a copy."""

from blank_pictures import _blank_pictures  # noqa: F401
from one_core import _one_core  # noqa: F401
from registry.command.trained_registry import once, trained  # noqa: F401
