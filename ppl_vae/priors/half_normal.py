"""The half-normal prior of scales."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior, Support

__all__ = ["HalfNormal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfNormal(Prior):
    """p(s) = 2 Normal(s; 0, scale^2) for s > 0: a scale of about this size or less (Gelman 2006).

    Args:
        scale: of the normal, in the units of what the model sees.

    Raises:
        ValueError: a scale that is not positive.

    Examples:
        >>> HalfNormal(scale=2.0).build((3,))().event_shape
        torch.Size([3])
    """

    support: ClassVar[Support] = "positive"

    scale: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.scale < math.inf, "a positive scale", self.scale)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, elements independent."""
        return HalfNormalModule(torch.full(shape, float(self.scale)))

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"HalfNormal({self.scale:g})"


class HalfNormalModule(nn.Module):
    """Its scale is a buffer, so it follows ``.to(device)``."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale, persistent=False)

    def forward(self) -> dist.Distribution:
        """p(s)."""
        return dist.HalfNormal(self.scale).to_event(self.scale.dim())
