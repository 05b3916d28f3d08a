"""Weights as bytes and back: a plain state dict, read without running any code from it."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
from torch import Tensor

from percoin.errors import InvalidArtifactError
from percoin.registry.layout import MarketFolder

_WEIGHT_TYPES = {torch.float32, torch.float64, torch.int64}


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
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        # Broken bytes make torch raise whatever they happen to break.
        reason = str(error).strip().partition("\n")[0]
        raise _invalid(
            market, f"{name} holds no weights that are safe to load: {reason}"
        ) from error
    if not isinstance(weights, dict) or not weights:
        raise _invalid(market, f"{name} holds no state dict")
    for key, tensor in weights.items():
        if not isinstance(key, str) or not _is_plain(tensor):
            raise _invalid(market, f"{name} holds more than a plain state dict: {key!r}")
        if not bool(torch.isfinite(tensor).all()):
            raise _invalid(market, f"{name} holds a value that is not finite in {key}")
    return weights


def _is_plain(tensor: object) -> bool:
    # A few bytes can describe an expanded or sparse tensor too large to look at.
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
