"""Weights as bytes and back: a plain state dict, read without running any code from it."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from percoin.errors import InvalidArtifactError
from percoin.printable import printable
from percoin.registry.layout import MarketFolder

_WEIGHT_TYPES = {torch.float32, torch.float64, torch.int64}
# All names in the index of a plain state dict. Others that torch calls safe run no code, but can
# ask for any amount of memory.
_NAMES_IN_INDEX = {
    "collections OrderedDict",
    "torch DoubleStorage",
    "torch FloatStorage",
    "torch LongStorage",
    "torch._utils _rebuild_tensor_v2",
}
_INDEX = "data.pkl"
_MOST_INDEX_BYTES = 2**20
_MOST_CHARS_SHOWN = 200


def save_weights(state_dict: Mapping[str, Tensor]) -> bytes:
    """The content of a ``.pth`` file."""
    # Copied: a view would drag its whole storage into the file.
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state_dict.items()
    }
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


def load_weights(market: MarketFolder, name: str, content: bytes) -> dict[str, Tensor]:
    """Read the content of a ``.pth`` file.

    Raises:
        InvalidArtifactError: It holds anything but a plain state dict of finite values.
    """
    try:
        weights, problem = _read(content)
    except Exception as error:
        # On broken bytes torch raises almost any error.
        reason = printable(str(error).strip().partition("\n")[0], _MOST_CHARS_SHOWN)
        raise _invalid(
            market, f"{name} holds no weights that are safe to load: {reason}"
        ) from error
    if problem:
        raise _invalid(market, f"{name} holds {problem}")
    return dict(weights)


# Markets that were trained as a pool have the same weights, and are loaded one after another.
@lru_cache(maxsize=4)
def _read(content: bytes) -> tuple[Any, str]:
    """What a file holds, and what it should not hold, if anything."""
    _check_archive(content)
    weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return weights, _find_problem(weights)


def _find_problem(weights: object) -> str:
    if not isinstance(weights, dict) or not weights:
        return "no state dict"
    for key, tensor in weights.items():
        if not isinstance(key, str) or not _is_plain(tensor):
            return f"more than a plain state dict: {key!r:.80}"
        if not bool(torch.isfinite(tensor).all()):
            return f"a value that is not finite in {key!r:.80}"
    return ""


def _check_archive(content: bytes) -> None:
    """Refuse a file that would unpack to more than its size, before torch unpacks it.

    Raises:
        ValueError: Not as ``save_weights`` writes it: compressed, with parts larger than
            the whole, or with an index that holds more than names, shapes and types.
        zipfile.BadZipFile: It is no archive.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("it is compressed")
        if sum(part.file_size for part in parts) > len(content):
            raise ValueError("its parts are larger than the file")
        indices = [part for part in parts if part.filename.rpartition("/")[2] == _INDEX]
        if len(indices) != 1 or indices[0].file_size > _MOST_INDEX_BYTES:
            raise ValueError(f"it has no {_INDEX}, several, or too large a one")
        index = archive.read(indices[0])
    for operation, argument, _ in pickletools.genops(index):
        names = operation.name in {"GLOBAL", "INST", "STACK_GLOBAL"}
        if names and argument not in _NAMES_IN_INDEX:
            raise ValueError(f"its index names {argument}")


def _is_plain(tensor: object) -> bool:
    # A few bytes can describe an expanded or sparse tensor of any size.
    return (
        type(tensor) is Tensor
        and tensor.dtype in _WEIGHT_TYPES
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
    )


def _invalid(market: MarketFolder, found: str) -> InvalidArtifactError:
    action = "train the model again"
    return InvalidArtifactError(market.symbol, market.timeframe, found, action)
