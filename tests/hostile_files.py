"""Files that would do harm if anyone unpickled them, and manifests that vouch for them."""

import hashlib
import io
import os
import pickle
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import torch

from percoin.registry.layout import MANIFEST_FILE, MarketFolder
from percoin.registry.manifest import Manifest, ManifestDraft


class Trap:
    """Pickles as a call that would make a folder named by ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def trapped_pickle(path: Path) -> bytes:
    """A pickle whose loading makes ``path``; that it does is tried here."""
    content = pickle.dumps(Trap(path))
    pickle.loads(content)
    path.rmdir()
    return content


def trapped_weights(path: Path) -> bytes:
    """The same as torch would save it."""
    return saved_weights({"weight": Trap(path)})


def saved_weights(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def vouch_for(market: MarketFolder, folder: Path, files: dict[str, bytes]) -> Path:
    """Put files into a version and give it a manifest, and a name, by which all hashes are right.

    Whoever can write the models folder can do this; hashes are no signature.
    """
    manifest = Manifest.from_json(
        (folder / MANIFEST_FILE).read_text(), market.symbol, market.timeframe
    )
    hashes = dict(manifest.files)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    entries = {entry.name: getattr(manifest, entry.name) for entry in fields(ManifestDraft)}
    stamp = manifest.version_id.partition("-")[0]
    exported = datetime.strptime(stamp, "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
    forged = ManifestDraft(**entries).seal(exported, hashes)
    (folder / MANIFEST_FILE).write_text(forged.to_json())
    was_served = market.link.resolve() == folder.resolve()
    renamed = folder.rename(market.version(forged.version_id))
    if was_served:
        market.link.unlink()
        market.link.symlink_to(market.link_target(forged.version_id))
    return renamed
