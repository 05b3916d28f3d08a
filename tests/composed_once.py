"""Hydra reads the files of a config once for all tests, and puts them together once.

It would do both anew for each command line, a tenth of a second for each of thousands. What the
words of a command line change is still changed by Hydra, on a copy of its own.
"""

import pickle

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore

_compose = ConfigLoaderImpl._compose_config_from_defaults_list
_load = ConfigRepository.load_config
_composed: dict[tuple[str, str], bytes] = {}
_loaded: dict[tuple[str, str], bytes] = {}


def compose_once() -> None:
    ConfigLoaderImpl._compose_config_from_defaults_list = _compose_once
    ConfigRepository.load_config = _load_once
    # Hydra copies the schemas of all commands for every question, and then takes a copy of that.
    ConfigStore.__deepcopy__ = lambda store, _memo: store


def _compose_once(self, defaults, repo):
    key = (repr(repo.get_sources()), repr(defaults))
    if key not in _composed:
        _composed[key] = pickle.dumps(_compose(self, defaults, repo))
    return pickle.loads(_composed[key])


def _load_once(self, config_path):
    key = (repr(self.get_sources()), config_path)
    if key not in _loaded:
        _loaded[key] = pickle.dumps(_load(self, config_path))
    return pickle.loads(_loaded[key])
