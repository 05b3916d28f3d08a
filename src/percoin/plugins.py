"""The user's own code: allowed by ``plugins=``, found by its name, known by its source's hash.

A name is ``module:qualname``, such as ``my_features:zscore``, or ``FILE.py:qualname``. Nothing is
imported that ``allow_plugins`` did not allow in this process: neither a config nor a saved model
can run code by naming it. What such a file imports itself is not its code: no name leads there.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from percoin.errors import ConfigError
from percoin.printable import printable

_SUFFIX = ".py"
_MOST_CHARS_SHOWN = 120
_HASH_SHOWN = 12


@dataclass(frozen=True)
class PluginSource:
    """Which code an object is, as a saved model records it.

    Attributes:
        module: Its module; of a file its name without ``.py``.
        qualname: Its name in the module, with dots.
        sha256: Of the source file of the module, as it was imported.
    """

    module: str
    qualname: str
    sha256: str

    @property
    def name(self) -> str:
        """As ``resolve`` takes it."""
        return f"{self.module}:{self.qualname}"


@dataclass(frozen=True)
class Plugin:
    """An object of the user's own, and which code it is."""

    value: Any
    source: PluginSource


@dataclass(frozen=True)
class _Loaded:
    module: ModuleType
    path: Path | None
    sha256: str

    def is_current(self, path: Path | None) -> bool:
        """Whether the file that is allowed now is the one that was run."""
        return path is not None and path == self.path and _hash(_read(path)) == self.sha256


# Of this process. Several threads of a server load models.
_lock = threading.RLock()
_allowed: tuple[str, ...] = ()
_loaded: dict[str, _Loaded] = {}


def allow_plugins(entries: Sequence[str]) -> None:
    """Say which code this process may import; it replaces what was allowed before.

    A file that has changed since it was loaded is loaded again when it is needed next.

    Args:
        entries: Files (``my_features.py``) and names of importable modules, each with all
            that lies below it; none allows nothing.

    Raises:
        ConfigError: A file is missing or has a name that cannot be a module, or two entries
            have the same name.
    """
    global _allowed
    modules = [_module_of(entry) for entry in entries]
    for entry, module in zip(entries, modules, strict=True):
        if modules.count(module) > 1:
            raise ConfigError(f"plugins has two entries named {module}: rename one of the files")
        if _is_file(entry):
            _check_file(entry, module)
        elif not all(part.isidentifier() for part in module.split(".")):
            raise ConfigError(
                f"plugins names {_shown(entry)}, which is neither a file (NAME.py) nor a module"
            )
    with _lock:
        # Absolute, because other processes may run in other folders.
        _allowed = tuple(str(Path(e).resolve()) if _is_file(e) else e for e in entries)
        files = {_module_of(entry): Path(entry).resolve() for entry in entries if _is_file(entry)}
        for name, loaded in list(_loaded.items()):
            if loaded.path is not None and not loaded.is_current(files.get(name)):
                del _loaded[name]
                sys.modules.pop(name, None)


def allowed_plugins() -> tuple[str, ...]:
    """What ``allow_plugins`` was last told; files by their absolute paths."""
    return _allowed


def resolve(name: str) -> Plugin:
    """Find an object by its name, importing its module if that is allowed.

    Args:
        name: ``module:qualname`` or ``FILE.py:qualname``.

    Raises:
        ConfigError: It is no such name, ``plugins=`` does not allow its module, the import
            fails, or the module has no such object of its own.
    """
    place, _, qualname = name.rpartition(":")
    if not place or not qualname:
        raise ConfigError(
            f"{_shown(name)} names no code: write MODULE:NAME, such as my_features:zscore"
        )
    with _lock:
        module_name, entry = _allowing(name, place)
        loaded = _loaded.get(module_name)
        if loaded is None:
            loaded = _load_file(Path(entry), module_name) if _is_file(entry) else None
            loaded = loaded or _import(module_name)
            _loaded[module_name] = loaded
    value: Any = loaded.module
    for part in qualname.split("."):
        if not hasattr(value, part):
            raise ConfigError(_no_such_name(module_name, qualname, part, value))
        value = getattr(value, part)
        _check_defined_in(module_name, qualname, value)
    return Plugin(value, PluginSource(module_name, qualname, loaded.sha256))


def resolve_same(source: PluginSource) -> Any:
    """Find the object that a saved model was trained with.

    Raises:
        ConfigError: As ``resolve``, or its source has changed since.
    """
    plugin = resolve(source.name)
    found = replace(source, sha256=plugin.source.sha256)
    if found != source:
        raise ConfigError(
            f"{source.name} has changed since the training (its file had sha256 "
            f"{source.sha256[:_HASH_SHOWN]}, now {found.sha256[:_HASH_SHOWN]}); name the file as "
            "it was in plugins=, or train the model again"
        )
    return plugin.value


def _is_file(entry: str) -> bool:
    return entry.endswith(_SUFFIX)


def _module_of(entry: str) -> str:
    return Path(entry).stem if _is_file(entry) else entry


def _check_file(entry: str, module: str) -> None:
    if not Path(entry).is_file():
        raise ConfigError(f"plugins names {_shown(entry)}: there is no such file in {Path.cwd()}")
    if not module.isidentifier():
        raise ConfigError(
            f"plugins names {_shown(entry)}: rename it, as {_shown(module)} cannot be a module"
        )
    if module in _loaded and _loaded[module].path is not None:
        return
    # Such as the name of a library, which would then import this file in place of its own.
    known = sys.modules.get(module)
    spec = getattr(known, "__spec__", None) if known else importlib.util.find_spec(module)
    if known or spec:
        origin = getattr(spec, "origin", None)
        if origin is None or Path(origin).resolve() != Path(entry).resolve():
            raise ConfigError(
                f"plugins names {_shown(entry)}: rename it, as a module {module} exists already"
            )


def _allowing(name: str, place: str) -> tuple[str, str]:
    """The module that is meant, and the entry of ``plugins`` that allows it."""
    for entry in _allowed:
        module = _module_of(entry)
        if _is_file(place):
            if _is_file(entry) and Path(entry).resolve() == Path(place).resolve():
                return module, entry
        elif place == module or (not _is_file(entry) and place.startswith(f"{module}.")):
            return place, entry
    allow = place if _is_file(place) else f"{place}{_SUFFIX}"
    module = "" if _is_file(place) else f", or plugins=[{_shown(place)}] if it is installed"
    raise ConfigError(
        f"{_shown(name)} is code of your own, which plugins=[{_shown(','.join(_allowed))}] does "
        f"not allow; add its file, such as plugins=[{_shown(allow)}]{module}"
    )


def _load_file(path: Path, name: str) -> _Loaded:
    """Run the very bytes that are hashed."""
    source = _read(path)
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None:
        raise ConfigError(f"{path} cannot be imported: it is no Python file")
    module = importlib.util.module_from_spec(spec)
    # By its name, so that its functions and classes can be sent to other processes.
    sys.modules[name] = module
    try:
        exec(compile(source, str(path.resolve()), "exec"), module.__dict__)
    except BaseException as error:
        sys.modules.pop(name, None)
        if not isinstance(error, Exception):
            raise
        raise ConfigError(_not_importable(path, error)) from error
    return _Loaded(module, path.resolve(), _hash(source))


def _import(name: str) -> _Loaded:
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise ConfigError(_not_importable(name, error)) from error
    origin = getattr(module, "__file__", None)
    if origin is None:
        raise ConfigError(f"module {name} has no source file; name one of the modules in it")
    return _Loaded(module, None, _hash(_read(Path(origin))))


def _check_defined_in(module: str, qualname: str, value: Any) -> None:
    """Refuse what a module only imports: its hash says nothing of it, and ``torch.load`` runs code.

    Plain values, which belong to no module, may be named.
    """
    is_module = isinstance(value, ModuleType)
    where = value.__name__ if is_module else getattr(value, "__module__", module)
    if is_module or where != module:
        raise ConfigError(
            f"{module}:{_shown(qualname)} is not defined in {module}"
            + (f", but in {where}" if where else "")
            + "; name it where it is defined, or write a function or class of your own"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _hash(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _not_importable(what: Path | str, error: Exception) -> str:
    found = printable(str(error), _MOST_CHARS_SHOWN)
    return f"{what} cannot be imported: {type(error).__name__}: {found}"


def _no_such_name(module: str, qualname: str, part: str, holder: Any) -> str:
    nearest = difflib.get_close_matches(part, dir(holder), 1)
    meant = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"{module} has no {_shown(qualname)}{meant}"


def _shown(text: str) -> str:
    return printable(text, _MOST_CHARS_SHOWN)
