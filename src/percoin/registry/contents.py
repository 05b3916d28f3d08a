"""The files of a version, checked against its manifest, and the one reader of their JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from percoin import json_codec
from percoin.errors import InvalidArtifactError
from percoin.printable import printable
from percoin.registry import publish
from percoin.registry.bounds import most_bytes, most_bytes_beside
from percoin.registry.layout import MANIFEST_FILE, METRICS_FILE, MarketFolder
from percoin.registry.manifest import Manifest

_T = TypeVar("_T")

# Of the reason in an error: a key may be as long as the file.
_MOST_CHARS_SHOWN = 300


def read_manifest(market: MarketFolder, folder: Path) -> Manifest:
    """Read the manifest of the version in ``folder``.

    Raises:
        InvalidArtifactError: It is missing, changed, of another market or version, or of
            a newer format.
    """
    manifest = parse_manifest(market, publish.read_file(market, folder, MANIFEST_FILE))
    is_version = folder.parent.name == market.versions.name
    if is_version and folder.name != manifest.version_id:
        raise _invalid(market, f"{folder.name} holds the files of {manifest.version_id}")
    return manifest


def read_files(market: MarketFolder, folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Read every other file that the manifest lists, after a check that none is too large.

    Raises:
        InvalidArtifactError: A file is missing, a link, or not the one that was exported.
    """
    _check_sizes(market, folder, manifest)
    files = {name: publish.read_file(market, folder, name) for name in manifest.files}
    check_hashes(market, manifest, files)
    return files


def _check_sizes(market: MarketFolder, folder: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        most = most_bytes(name)
        if manifest.has_network:
            most = most_bytes_beside(name, manifest.n_weights)
        publish.check_size(market, folder, name, most)


def read_metrics(market: MarketFolder, folder: Path, manifest: Manifest) -> Mapping[str, object]:
    """Read the record of the training of the version in ``folder``.

    Raises:
        InvalidArtifactError: It is missing, not the one of this manifest, or no JSON object.
    """
    content = publish.read_file(market, folder, METRICS_FILE)
    check_hashes(market, manifest, {METRICS_FILE: content})
    return parse_metrics(market, content)


def parse_metrics(market: MarketFolder, content: bytes) -> Mapping[str, object]:
    """Turn the bytes of a record, whose hash was checked, into its sections.

    Raises:
        InvalidArtifactError: They are not a JSON object that percoin could have written.
    """
    try:
        document = json_codec.loads(content)
    except ValueError as error:
        found = printable(f"{METRICS_FILE} cannot be read: {error}", _MOST_CHARS_SHOWN)
        raise _invalid(market, found) from error
    if not isinstance(document, dict):
        raise _invalid(market, f"{METRICS_FILE} cannot be read: it is no JSON object")
    return document


def read_section(kind: type[_T], sections: Mapping[str, object], name: str) -> _T | None:
    """One section of such a record; None if it is not there or of another form."""
    try:
        return json_codec.decode(kind, sections.get(name))
    except ValueError:
        return None


def parse_manifest(market: MarketFolder, content: bytes) -> Manifest:
    """Turn the bytes of a manifest into the manifest of this market.

    Raises:
        InvalidArtifactError: As ``Manifest.from_json``, or the bytes are no text.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _invalid(market, f"{MANIFEST_FILE}: it is no text") from error
    return Manifest.from_json(text, market.symbol, market.timeframe)


def check_hashes(market: MarketFolder, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Compare the sha256 of each of ``files`` with the manifest's.

    Raises:
        InvalidArtifactError: One differs.
    """
    for name, content in files.items():
        if name != MANIFEST_FILE and sha256(content) != manifest.files[name]:
            raise _invalid(market, f"{name} was changed after the export")


def sha256(content: bytes) -> str:
    """The hash that manifests keep."""
    return hashlib.sha256(content).hexdigest()


def _invalid(market: MarketFolder, found: str) -> InvalidArtifactError:
    action = "train the model again"
    return InvalidArtifactError(market.symbol, market.timeframe, found, action)
