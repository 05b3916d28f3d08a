"""A table exactly as it is in its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from percoin.printable import printable

_NAMES_SHOWN = 20
_NAME_CHARS = 40


@dataclass(frozen=True)
class RawTable:
    """Names of columns, values, and where each row stands.

    Attributes:
        names: Of the columns, as they are written; None if the file gives none.
        frame: The values; columns are numbered from 0.
        place: Where the row at a position stands: ``line 502``, ``row 501``.
        market: What the file says above its rows that it is of, or None.
    """

    names: tuple[str, ...] | None
    frame: pd.DataFrame
    place: Callable[[int], str]
    market: str | None = None

    def name(self, position: int) -> str:
        """One column's name, for a message."""
        return printable((self.names or ())[position], _NAME_CHARS) or "without a name"

    def listing(self) -> str:
        """The names of the columns, for a message."""
        if not self.names:
            return "it has no columns"
        shown = [printable(name, _NAME_CHARS) or "''" for name in self.names[:_NAMES_SHOWN]]
        more = ", ..." if len(self.names) > _NAMES_SHOWN else ""
        return f"the columns are {', '.join(shown)}{more}"


def native(column: pd.Series) -> pd.Series:
    """A column without categories and without the types of pyarrow."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if isinstance(column.dtype, pd.ArrowDtype):
        column = column.astype(object).infer_objects()
    return column
