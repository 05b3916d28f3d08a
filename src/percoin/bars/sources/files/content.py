"""The bytes of a file: read within limits, unpacked, and refused if they are no table."""

from __future__ import annotations

import gzip
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from percoin.bars.sources.files.errors import FileError
from percoin.bars.sources.files.names import KINDS, suffix
from percoin.printable import printable

# Ten years of 1m bars with 12 columns are 800 MB of CSV.
LARGEST_TEXT_BYTES = 2 * 1024**3
LARGEST_JSON_BYTES = 256 * 1024**2
# Bars pack to a third or a tenth of their size; a bomb packs to a thousandth.
_LARGEST_RATIO = 50
_ALWAYS_UNPACKED_BYTES = 64 * 1024**2
_MEMBERS_SHOWN = 3
_DOWNLOAD_AGAIN = "download or write it again"

# How other kinds of files begin, what they are, what to do.
_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "run git lfs pull"),
    (b"<!doctype", "a page of HTML", _DOWNLOAD_AGAIN),
    (b"<html", "a page of HTML", _DOWNLOAD_AGAIN),
    (b"<?xml", "XML", "save it as CSV"),
    (b"pk\x03\x04", "a zip or an Excel workbook", "save it as CSV, or name it .zip if it is one"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as CSV"),
    (b"\x1f\x8b", "packed with gzip", "name it .csv.gz"),
    (b"par1", "Parquet", "name it .parquet"),
    (b"arrow1", "Feather", "name it .feather"),
    (b"fea1", "Feather", "name it .feather"),
    (b"sqlite format", "an SQLite database", "write its bars to CSV"),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
)
_OWN_BEGINNINGS = {
    ".parquet": (b"par1",),
    ".feather": (b"arrow1", b"fea1"),
    ".gz": (b"\x1f\x8b",),
    ".zip": (b"pk\x03\x04",),
}


def check_beginning(path: Path) -> None:
    """Refuse what is empty, too large, or clearly not what its name says.

    Raises:
        FileError: Says what it is instead.
        OSError: It cannot be read.
    """
    kind = suffix(path)
    if not kind:
        raise FileError("not a kind of file that percoin reads", f"save it as one of {KINDS}")
    status = path.stat()
    # Reading a pipe would wait, and a device never ends.
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise FileError(f"it is {what}", "name a file")
    if status.st_size > LARGEST_TEXT_BYTES and kind not in (".parquet", ".feather"):
        limit = LARGEST_TEXT_BYTES // 1024**3
        raise FileError(f"it is larger than {limit} GB", "write its bars to Parquet")
    with path.open("rb") as file:
        beginning = file.read(64)
    _check_beginning(beginning, kind)


def read_content(path: Path) -> tuple[bytes, str]:
    """The unpacked content of a CSV or JSON file, and which of both it is.

    Raises:
        FileError: It unpacks to too much, holds several files, or is broken.
        OSError: It cannot be read.
    """
    kind = suffix(path)
    if kind.endswith(".gz"):
        inner = kind.removesuffix(".gz") or ".csv"
        content = _unpack(path, lambda: gzip.GzipFile(path))
    elif kind.endswith(".zip"):
        inner, content = _only_member(path)
    else:
        inner, content = kind, path.read_bytes()
    if kind != inner:
        _check_beginning(content[:64], inner)
    if inner == ".json" and len(content) > LARGEST_JSON_BYTES:
        limit = LARGEST_JSON_BYTES // 1024**2
        raise FileError(f"it is JSON of more than {limit} MB", "write its bars to Parquet or CSV")
    return content, inner


def _check_beginning(beginning: bytes, kind: str) -> None:
    if not beginning.strip():
        raise FileError("the file is empty", _DOWNLOAD_AGAIN)
    own = next((own for end, own in _OWN_BEGINNINGS.items() if kind.endswith(end)), ())
    start = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if own and start.startswith(own):
        return
    for known, what, action in _BEGINNINGS:
        if start.startswith(known):
            raise FileError(f"it is {what}", action)
    if own:
        raise FileError(f"it is no {kind} file", _DOWNLOAD_AGAIN)
    if b"\0" in beginning:
        raise FileError("it is no text", _DOWNLOAD_AGAIN)


def _only_member(path: Path) -> tuple[str, bytes]:
    """Kind and content of the one table in a zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if _is_table(each)]
            if len(members) != 1:
                names = ", ".join(each.filename for each in members[:_MEMBERS_SHOWN])
                held = f"{len(members):,} of them ({names})" if members else "none"
                found = f"it should hold one CSV or JSON file and holds {printable(held, 200)}"
                raise FileError(found, "unpack it")
            (member,) = members
            content = _unpack(path, lambda: archive.open(member))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        found = f"the zip cannot be unpacked ({printable(str(error), 200)})"
        raise FileError(found, _DOWNLOAD_AGAIN) from error
    return suffix(Path(member.filename)), content


def _is_table(member: zipfile.ZipInfo) -> bool:
    is_hidden = member.filename.startswith("__MACOSX")
    return suffix(Path(member.filename)) in (".csv", ".json") and not is_hidden


def _unpack(path: Path, opened: Callable[[], object]) -> bytes:
    """The unpacked content, up to a limit; the size that the file states proves nothing."""
    packed = path.stat().st_size
    limit = max(_ALWAYS_UNPACKED_BYTES, packed * _LARGEST_RATIO)
    limit = min(limit, LARGEST_TEXT_BYTES)
    try:
        with opened() as file:  # type: ignore[attr-defined]
            content: bytes = file.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        found = f"it cannot be unpacked ({printable(str(error), 200)})"
        raise FileError(found, _DOWNLOAD_AGAIN) from error
    if len(content) > limit:
        found = f"its {packed:,} bytes unpack to more than {limit // 1024**2:,} MB, no bars do"
        raise FileError(found, "unpack it if you trust it")
    return content
