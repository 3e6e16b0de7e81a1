"""Networks of two arguments: what they are a function of, and a vector that they are told beside it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ppl_vae.nn.base import Flattened, Network, TimedNetwork

__all__ = ["Conditioned", "ConditionedImages", "conditioned"]


def conditioned(network: Network, in_shape: tuple[int, ...], columns: int, out_shape: tuple[int, ...]) -> nn.Module:
    """A module from x ``(..., *in_shape)`` and c ``(..., columns)`` to ``(..., *out_shape)``.

    A network of images gets each column as a plane, as in Mirza and Osindero 2014, "Conditional generative adversarial nets",
    unless it has its own way (:class:`~ppl_vae.UNet`); every other one x flattened and c behind it.

    Args:
        network: the network's declaration.
        in_shape: shape of its first argument.
        columns: length of its second.
        out_shape: shape of its value.

    Examples:
        >>> from ppl_vae.nn.conditioned import conditioned
        >>> conditioned(MLP(), (1, 8, 8), 10, (3,))(torch.zeros(5, 1, 8, 8), torch.zeros(10)).shape
        torch.Size([5, 3])
    """
    if isinstance(network, TimedNetwork):
        return network.build_timed(in_shape, out_shape, columns)
    if network.images and len(in_shape) >= 2:
        *channels, height, width = in_shape
        return ConditionedImages(network.build((math.prod(channels) + columns, height, width), out_shape), len(in_shape))
    return Conditioned(network.build((math.prod(in_shape) + columns,), out_shape), len(in_shape))


class Conditioned(nn.Module):
    """A network of the flattened x and of c, side by side."""

    def __init__(self, network: nn.Module, event_dim: int) -> None:
        super().__init__()
        self.network = network
        self.event_dim = event_dim

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Of x ``(..., *in_shape)`` and c ``(..., columns)``, whose leading dimensions are broadcast."""
        flat = x.flatten(-self.event_dim)
        if flat.shape[:-1] != c.shape[:-1] and isinstance(self.network, Flattened):
            found = self.network.of_parts(flat, c)
            if found is not None:
                return found
        leading = torch.broadcast_shapes(flat.shape[:-1], c.shape[:-1])
        return self.network(torch.cat([part.expand(*leading, part.shape[-1]) for part in (flat, c)], dim=-1))


class ConditionedImages(nn.Module):
    """A network of images, the columns of c as constant planes behind the channels of x."""

    def __init__(self, network: nn.Module, event_dim: int) -> None:
        super().__init__()
        self.network = network
        self.event_dim = event_dim

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Of x ``(..., *in_shape)`` and c ``(..., columns)``, whose leading dimensions are broadcast."""
        leading = torch.broadcast_shapes(x.shape[: -self.event_dim], c.shape[:-1])
        size = x.shape[-2:]
        images = x.reshape(*x.shape[: -self.event_dim], -1, *size)
        planes = c[..., None, None].expand(*c.shape, *size)
        return self.network(torch.cat([part.expand(*leading, *part.shape[-3:]) for part in (images, planes)], dim=-3))
