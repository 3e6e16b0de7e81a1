"""The standard normal prior."""

from __future__ import annotations

import dataclasses
import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.priors.base import Prior

__all__ = ["StandardNormal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StandardNormal(Prior):
    """p(z) = Normal(z; 0, I), the prior of Kingma and Welling (2014) and of factor analysis.

    Example:
        >>> StandardNormal().build((8,))().event_shape
        torch.Size([8])
    """

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``."""
        return StandardNormalModule(shape)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"Normal(0, I_{math.prod(shape)})"


class StandardNormalModule(nn.Module):
    """Its constants are buffers, so they follow ``.to(device)``."""

    loc: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(shape), persistent=False)
        self.register_buffer("scale", torch.ones(shape), persistent=False)

    def forward(self) -> dist.Distribution:
        """p(z)."""
        return dist.Normal(self.loc, self.scale).to_event(self.loc.dim())
