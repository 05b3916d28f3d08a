"""A network of the user's own: made from its arguments, and sized before it takes memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from percoin.errors import ConfigError
from percoin.targets import Target


def make_own_network(
    target: Target, arguments: Mapping[str, Any], n_features: int, lookback: int
) -> nn.Module:
    """Make the network.

    Args:
        target: Its class.
        arguments: Its arguments as the settings say them.
        n_features: Features of a bar, given where it takes an argument of that name.
        lookback: Bars in a window, likewise.

    Raises:
        ConfigError: It cannot be made, or is no ``nn.Module``.
    """
    network = target.make(arguments, n_features=n_features, lookback=lookback)
    if not isinstance(network, nn.Module):
        raise target.refusal(
            f"makes a {type(network).__name__}, not a torch.nn.Module: name a subclass of it"
        )
    return network


def count_own_weights(
    target: Target, arguments: Mapping[str, Any], n_features: int, lookback: int
) -> int:
    """Numbers in the parameters and buffers of the network, counted on torch's meta device.

    Tensors there have a shape and no memory, so a manifest cannot ask for any amount of it.

    Args:
        target: As of ``make_own_network``, and so are the others.
        arguments: Its arguments.
        n_features: Features of a bar.
        lookback: Bars in a window.

    Raises:
        ConfigError: It cannot be made there.
    """
    try:
        with torch.random.fork_rng(devices=()), torch.device("meta"):
            network = make_own_network(target, arguments, n_features, lookback)
            return sum(each.numel() for each in (*network.parameters(), *network.buffers()))
    except ConfigError as error:
        if "meta" not in str(error.__cause__):
            raise
        raise target.refusal(
            f"reads a tensor's values while it is made ({error.__cause__!s:.100}), and percoin "
            "sizes a network without memory before it loads one: compute such numbers with math"
        ) from error
