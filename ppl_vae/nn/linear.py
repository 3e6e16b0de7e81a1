"""The affine map."""

from __future__ import annotations

import dataclasses
import math

from torch import nn

from ppl_vae.nn.base import Flattened, Network

__all__ = ["Linear"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Network):
    """The affine map W x + b. As a decoder it makes the VAE a factor analyser.

    Args:
        bias: whether b is learned; without it b = 0.

    Example:
        >>> Linear().build((8,), (1, 28, 28))
        Flattened(
          (layers): Linear(in_features=8, out_features=784, bias=True)
        )
    """

    bias: bool = True

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps ``(..., *in_shape)`` to ``(..., *out_shape)``."""
        return Flattened(nn.Linear(math.prod(in_shape), math.prod(out_shape), bias=self.bias), in_shape, out_shape)
