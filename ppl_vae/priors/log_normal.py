"""The log-normal prior of scales."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior, Support
from ppl_vae.priors.normal import NormalModule

__all__ = ["LogNormal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogNormal(Prior):
    """log s ~ Normal(loc, scale^2): a scale known up to a factor. It vanishes at zero, so no scale of a MAP fit collapses.

    Args:
        loc: mean of log s; exp(loc) is the median of s.
        scale: standard deviation of log s.

    Raises:
        ValueError: a loc that is not finite, or a scale that is not positive.

    Examples:
        >>> LogNormal(loc=0.0).build((3,))().support.is_discrete
        False
    """

    support: ClassVar[Support] = "positive"

    loc: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.loc), "a finite loc", self.loc)
        require(0 < self.scale < math.inf, "a positive scale", self.scale)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, elements independent."""
        return LogNormalModule(torch.full(shape, float(self.loc)), torch.full(shape, float(self.scale)))

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"LogNormal({self.loc:g}, {self.scale:g}^2)"


class LogNormalModule(NormalModule):
    """``loc`` and ``scale`` are those of log s."""

    def forward(self) -> dist.Distribution:
        """p(s)."""
        return dist.LogNormal(self.loc, self.scale).to_event(self.loc.dim())
