"""Texts that many requests ask for, made once."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

# Candles have at most about 100 kB each, histories 700.
_TEXTS_KEPT = 64


class Texts:
    """Caches the texts asked for last; several threads may share it.

    Two threads that ask at the same time may make the same text twice, and wait for nobody.

    Args:
        is_same: Whether two marks are one.
    """

    def __init__(self, is_same: Callable[[Any, Any], bool] = operator.eq) -> None:
        self._is_same = is_same
        self._kept: OrderedDict[Hashable, tuple[object, str]] = OrderedDict()
        self._lock = Lock()

    def text(self, key: Hashable, mark: object, make: Callable[[], str]) -> str:
        """A text, made anew if it is not kept or was made under another mark.

        Args:
            key: Which text.
            mark: Of the state that it is made of; another state has another mark.
            make: Makes it.
        """
        with self._lock:
            kept = self._kept.get(key)
        if kept is None or not self._is_same(kept[0], mark):
            kept = mark, make()
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            if len(self._kept) > _TEXTS_KEPT:
                self._kept.popitem(last=False)
        return kept[1]
