"""Text from elsewhere, made safe to print: one line stays one line, and no terminal obeys it.

Manifests, file names, answers of exchanges and settings hold whatever somebody wrote there. A
line break in them would forge a log line, an escape sequence would move the cursor or the title
of the window, and half a surrogate pair cannot be encoded at all.
"""

from __future__ import annotations

import re

ELLIPSIS = "..."
_LONGEST_PASSWORD = 200
_PASSWORD = re.compile(
    rf"(?<=://)([^\s:/@]{{0,{_LONGEST_PASSWORD}}}):[^\s@]{{0,{_LONGEST_PASSWORD}}}(?=@)"
)
_SECRET_OF_QUERY = re.compile(r"(?i)([?&]\w*(?:password|passwd|secret|token|key)=)[^\s&#'\"]+")
_HIDDEN = "***"


def printable(text: str, max_chars: int | None = None) -> str:
    r"""``text`` as one line: what is not printable is escaped, ``\n`` as backslash and n.

    Letters of every language stay as they are. Passwords in addresses are left out.

    Args:
        text: From a file, a server or a person.
        max_chars: Longer text is cut and ends in three dots; at least 4.
    """
    # Cut before it is escaped too, so that a text of many megabytes costs nothing.
    if max_chars is not None:
        text = text[: max_chars + _LONGEST_PASSWORD + 1]
    text = without_passwords(text)
    if max_chars is not None:
        text = text[: max_chars + 1]
    clean = text if text.isprintable() else "".join(_escaped(letter) for letter in text)
    if max_chars is not None and len(clean) > max_chars:
        return clean[: max_chars - len(ELLIPSIS)] + ELLIPSIS
    return clean


def without_passwords(text: str) -> str:
    """The text with three stars for each password or token in an address (URL)."""
    if "://" not in text:
        return text
    return _SECRET_OF_QUERY.sub(rf"\1{_HIDDEN}", _PASSWORD.sub(rf"\1:{_HIDDEN}", text))


def printable_lines(text: str) -> str:
    """As ``printable``, but line breaks stay; for a text that percoin has laid out in lines."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
