"""The affine map."""

from __future__ import annotations

import dataclasses
import math

from torch import nn

from ppl_vae.nn.base import Flattened, Network
from ppl_vae.nn.layers import BatchNorm

__all__ = ["Linear"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Network):
    """The affine map W x + b. As a decoder it makes the VAE a factor analyser.

    Args:
        bias: whether b is learned; without it b = 0.
        batch_norm: whether each output is normalized over the batch, with a scale and, if ``bias``, a shift to learn (Ioffe and
            Szegedy 2015): of the decoder of ProdLDA (Srivastava and Sutton 2017), which without it is slow to leave topics that
            are all alike. A datum's numbers in training then depend on its batch; in evaluation they do not.

    Examples:
        >>> Linear().build((8,), (1, 28, 28))
        Flattened(
          (layers): Linear(in_features=8, out_features=784, bias=True)
        )
    """

    bias: bool = True
    batch_norm: bool = False

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps ``(..., *in_shape)`` to ``(..., *out_shape)``."""
        outputs = math.prod(out_shape)
        layer = nn.Linear(math.prod(in_shape), outputs, bias=self.bias and not self.batch_norm)
        if not self.batch_norm:
            return Flattened(layer, in_shape, out_shape)
        return Flattened(nn.Sequential(layer, BatchNorm(outputs, images=False, bias=self.bias)), in_shape, out_shape)
