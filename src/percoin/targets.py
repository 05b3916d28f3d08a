"""Objects that a setting names by ``_target_``: code of the user's own, or a class of torch.

Names are ``my_models:MyNet``, ``my_models.MyNet`` or ``FILE.py:MyNet``. Own code has to be allowed
(``percoin.plugins``); of torch there are the losses, optimizers and schedules alone.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from percoin.errors import ConfigError
from percoin.memory import is_out_of_memory
from percoin.plugins import PluginSource, resolve
from percoin.printable import printable

_OF_TORCH = re.compile(
    r"(torch\.nn(?=[.:]\w+Loss$)|torch\.optim|torch\.optim\.lr_scheduler)[.:]([A-Za-z]\w*)"
)
_MOST_CHARS_SHOWN = 200


@dataclass(frozen=True)
class Target:
    """An object that a setting names.

    Attributes:
        setting: The setting, such as ``model._target_``.
        name: As the setting says it.
        value: A class or function.
        source: Which code it is; None of torch.
    """

    setting: str
    name: str
    value: Any
    source: PluginSource | None = None

    def make(self, arguments: Mapping[str, Any], *positional: Any, **offered: Any) -> Any:
        """Call it.

        Args:
            arguments: Its arguments as the settings say them.
            positional: Arguments that it has to take first.
            offered: Further arguments, each given where it takes one of that name.

        Raises:
            ConfigError: It does not take these arguments, or fails with them.
        """
        given = self._given(arguments, offered, *positional)
        try:
            return self.value(*positional, **given)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise self.refusal(f"fails with {_listed(given)}: {in_short(error)}") from error

    def with_arguments(self, arguments: Mapping[str, Any], *positional: Any) -> Any:
        """The function with these arguments filled in; ``positional`` stand for what is to come."""
        return partial(self.value, **self._given(arguments, {}, *positional))

    def takes(self, name: str) -> bool:
        """Whether ``make`` would give it an offered argument of that name."""
        try:
            return name in inspect.signature(self.value).parameters
        except (TypeError, ValueError):
            return False

    def refusal(self, found: str) -> ConfigError:
        """The error that says what was found of it."""
        return ConfigError(printable(f"{self.setting}={self.name} {found}"))

    def _given(
        self, arguments: Mapping[str, Any], offered: Mapping[str, Any], *positional: Any
    ) -> dict[str, Any]:
        try:
            signature = inspect.signature(self.value)
        except (TypeError, ValueError):
            raise self.refusal("is no class or function: name one") from None
        given = {k: v for k, v in offered.items() if k in signature.parameters} | dict(arguments)
        try:
            signature.bind(*positional, **given)
        except TypeError as error:
            known = ", ".join(signature.parameters) or "no arguments"
            raise self.refusal(f"cannot be called: {error}; it takes {known}") from None
        return given


def find_target(setting: str, name: str) -> Target:
    """Find what a setting names, importing its module if that is allowed.

    Args:
        setting: The setting, such as ``loss._target_``.
        name: What it says.

    Raises:
        ConfigError: There is no such object, or ``plugins=`` does not allow its module.
    """
    if match := _OF_TORCH.fullmatch(name):
        module = importlib.import_module(match[1])
        if not inspect.isclass(getattr(module, match[2], None)):
            raise ConfigError(f"{setting}={name}: {match[1]} has no class {match[2]}")
        return Target(setting, name, getattr(module, match[2]))
    plugin = resolve(code_name(name))
    return Target(setting, name, plugin.value, plugin.source)


def code_name(name: str) -> str:
    """The name as ``percoin.plugins`` takes it: ``my_models.MyNet`` is ``my_models:MyNet``."""
    module, dot, qualname = name.rpartition(".")
    return name if ":" in name or not dot else f"{module}:{qualname}"


def in_short(error: Exception) -> str:
    """The kind of an error, and the first line of what it says."""
    text = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0].rstrip(": ")
    return printable(text, _MOST_CHARS_SHOWN)


def _listed(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r:.40}" for name, value in given.items()) or "no arguments"
