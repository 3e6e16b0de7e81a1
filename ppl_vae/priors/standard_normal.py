"""The standard normal prior."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from ppl_vae.priors.base import Prior
from ppl_vae.priors.normal import NormalModule

__all__ = ["StandardNormal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StandardNormal(Prior):
    """p(z) = Normal(z; 0, I), the prior of Kingma and Welling (2014) and of factor analysis.

    Examples:
        >>> StandardNormal().build((8,))().event_shape
        torch.Size([8])
    """

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``."""
        return NormalModule(torch.zeros(shape), torch.ones(shape))

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"Normal(0, I_{math.prod(shape)})" if shape else "Normal(0, I)"
