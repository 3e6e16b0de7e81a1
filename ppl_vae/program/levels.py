"""The levels of a hierarchy of latent variables: what each is, and how their numbers stand in the output of a network.

A level's numbers are channels ``(C, *space)``: a vector ``(K,)``, or maps ``(K, height, width)``. What a network gives of it
are locations, scales before softplus and features, one behind the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["Level", "joined", "normal"]

MIN_SCALE = 1e-6  # keeps log(scale) finite when softplus underflows in float32


class Level(NamedTuple):
    """One group of latent variables of a built hierarchy.

    Args:
        name: of its site.
        shape: of one datum's value, channels first.
        features: F, channels of what the guide's network hands on to the level above.
        passed: channels of what the model's network hands on to all that is below.
        network: the declaration of the networks that lead to it.
    """

    name: str
    shape: tuple[int, ...]
    features: int
    passed: int
    network: Any

    def of(self, channels: int) -> tuple[int, ...]:
        """The shape of so many channels."""
        return (channels, *self.shape[1:])

    def split(self, numbers: Tensor, *others: int) -> tuple[Tensor, ...]:
        """Locations and raw scales of numbers ``(..., 2 K + others, *space)``, and so many other channels behind them."""
        parts: tuple[Tensor, ...] = numbers.split([self.shape[0], self.shape[0], *others], dim=-len(self.shape))
        return parts


def joined(level: Level, *parts: Tensor) -> Tensor:
    """Channels of a level behind each other, the leading dimensions of the parts broadcast."""
    event_dim = len(level.shape)
    leading = torch.broadcast_shapes(*(part.shape[: part.dim() - event_dim] for part in parts))
    return torch.cat([part.expand(*leading, *part.shape[part.dim() - event_dim :]) for part in parts], dim=-event_dim)


def normal(level: Level, loc: Tensor, raw_scale: Tensor) -> dist.Distribution:
    """Independent normals on the level's shape, of scales before softplus."""
    return dist.Normal(loc, softplus(raw_scale) + MIN_SCALE).to_event(len(level.shape))
