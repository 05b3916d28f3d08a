"""The web page at ``/``: a few package files, read once and sent to browsers."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

from percoin.serving.guard import PAGE, PAGE_FILES
from percoin.serving.questions import RefusedError, check_parameters

_FOLDER = Path(__file__).parent / "site"
_DOCUMENT = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Forbids content from other hosts, and scripts and styles inside the HTML document.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A file's name changes with its content, so browsers may cache it for ever.
_FOREVER = "public, max-age=31536000, immutable"
_NAME = re.compile(r"\{\{([a-z.]+)\}\}")


@dataclass(frozen=True)
class PageFile:
    """One file of the page.

    Attributes:
        plain: The file's bytes.
        packed: The same bytes, compressed with gzip.
        media_type: Value of the Content-Type header.
    """

    plain: bytes
    packed: bytes
    media_type: str


@cache
def page_files() -> dict[str, PageFile]:
    """All files by address; the HTML document links to the addresses of the others."""
    contents = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir())}
    document = contents.pop(_DOCUMENT).decode()
    addresses = {name: _address(name, content) for name, content in contents.items()}
    named = _NAME.sub(lambda match: addresses[match[1]], document)
    files = {addresses[name]: _file(name, content) for name, content in contents.items()}
    return files | {PAGE: _file(_DOCUMENT, named.encode())}


def add_page(app: FastAPI) -> None:
    """Serve the page and its files; the OpenAPI document leaves them out."""

    @app.get(PAGE, include_in_schema=False)
    async def page(request: Request) -> Response:
        check_parameters(request.query_params.multi_items(), ())
        return _send(request, PAGE, "no-cache")

    @app.get(PAGE_FILES + "{name}", include_in_schema=False)
    async def page_file(request: Request, name: str) -> Response:
        check_parameters(request.query_params.multi_items(), ())
        return _send(request, PAGE_FILES + name, _FOREVER)


def _send(request: Request, address: str, caching: str) -> Response:
    file = page_files().get(address)
    if file is None:
        raise RefusedError(404, "not_found", "there is nothing at this address")
    headers = {
        "content-security-policy": _POLICY,
        "cache-control": caching,
        "vary": "accept-encoding",
    }
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(file.plain, headers=headers, media_type=file.media_type)
    headers["content-encoding"] = "gzip"
    return Response(file.packed, headers=headers, media_type=file.media_type)


def _address(name: str, content: bytes) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{PAGE_FILES}{stem}-{hashlib.sha256(content).hexdigest()[:12]}.{ending}"


def _file(name: str, content: bytes) -> PageFile:
    return PageFile(content, gzip.compress(content, mtime=0), _TYPES[Path(name).suffix])
