"""The files of a version, checked against its manifest; what they hold is not looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from percoin.errors import InvalidArtifactError
from percoin.registry import publish
from percoin.registry.layout import MANIFEST_FILE, MarketFolder
from percoin.registry.manifest import Manifest


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
    """Read every other file that the manifest lists.

    Raises:
        InvalidArtifactError: A file is missing, a link, or not the one that was exported.
    """
    files = {name: publish.read_file(market, folder, name) for name in manifest.files}
    check_hashes(market, manifest, files)
    return files


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
    """Compare the sha256 of every file with the manifest's.

    Raises:
        InvalidArtifactError: One differs.
    """
    for name, expected in manifest.files.items():
        if sha256(files[name]) != expected:
            raise _invalid(market, f"{name} was changed after the export")


def sha256(content: bytes) -> str:
    """The hash that manifests keep."""
    return hashlib.sha256(content).hexdigest()


def _invalid(market: MarketFolder, found: str) -> InvalidArtifactError:
    action = "train the model again"
    return InvalidArtifactError(market.symbol, market.timeframe, found, action)
