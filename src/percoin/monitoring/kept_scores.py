"""What the scoreboard has read of a record, kept in a file for the next start.

The record is the truth; this file only saves reading it again. It is written whole or not at all,
and not used where it does not fit the record. Its numbers are raw columns, so a year of 32
markets is there in a second.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from percoin.whole_file import write_whole

log = logging.getLogger(__name__)

# Another number for every change of what ``ForecasterRows`` keeps, or of what it means.
_FORMAT = b"percoin scores 1 "
_HASH_BYTES = hashlib.sha256().digest_size
_SIZE_BYTES = 8

NumberColumn: TypeAlias = "array[float] | array[int]"


@dataclass(frozen=True)
class KeptScores:
    """The content of the file.

    Attributes:
        header: What can be written as JSON.
        columns: Columns of numbers, in the order in which they were given.
    """

    header: Mapping[str, Any]
    columns: Sequence[NumberColumn]


def write_scores(path: Path, header: Mapping[str, object], columns: Iterable[NumberColumn]) -> bool:
    """Write the file; return whether it could be written, which is logged otherwise."""
    columns = list(columns)
    sizes = [[column.typecode, len(column)] for column in columns]
    described = {"byteorder": sys.byteorder, "columns": sizes, "header": header}
    text = json.dumps(described).encode()

    def write(file: BinaryIO) -> None:
        digest = hashlib.sha256()
        for part in (_FORMAT, len(text).to_bytes(_SIZE_BYTES), text, *columns):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
    except OSError as error:
        log.warning("SCOREBOARD: the next start reads the whole record: %s", error)
        return False
    return True


def read_scores(path: Path) -> KeptScores | None:
    """Read the file; None without one, or if it was damaged or made elsewhere."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _parse(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("SCOREBOARD: %s cannot be used, the whole record is read: %s", path.name, error)
        return None


def _parse(content: mmap.mmap) -> KeptScores:
    end = len(content) - _HASH_BYTES
    with memoryview(content) as view:
        if bytes(view[: len(_FORMAT)]) != _FORMAT:
            raise ValueError("it has another format")
        if hashlib.sha256(view[:end]).digest() != bytes(view[end:]):
            raise ValueError("it was changed")
        place = len(_FORMAT) + _SIZE_BYTES
        size = int.from_bytes(view[len(_FORMAT) : place])
        described = json.loads(bytes(view[place : place + size]))
        place += size
        if described["byteorder"] != sys.byteorder:
            raise ValueError("it is of another machine")
        columns: list[NumberColumn] = []
        for kind, n_numbers in described["columns"]:
            column: NumberColumn = array(kind)
            stop = place + n_numbers * column.itemsize
            column.frombytes(view[place:stop])
            columns.append(column)
            place = stop
        return KeptScores(described["header"], columns)
