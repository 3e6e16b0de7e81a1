"""Densities on the open unit interval, stretched so that a closed one lies inside."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.declaration import require

__all__ = ["OpenInterval", "Stretched", "check_margin"]


def check_margin(margin: float) -> None:
    """Raise ``ValueError`` if a declared margin is negative or not finite."""
    require(0 <= margin < math.inf, "a margin of at least 0", margin)


class OpenInterval(constraints.interval):
    """The interval without its ends, where the densities below may be zero or infinite."""

    def check(self, value: Tensor) -> Tensor:
        """Whether each value lies strictly between the ends."""
        return (self.lower_bound < value) & (value < self.upper_bound)


class Stretched(dist.TorchDistribution):
    """The density of ``x = (1 + 2 margin) t - margin`` for t in (0, 1): it covers [0, 1] and integrates to one.

    Args:
        base: the distribution of each t.
        margin: how far the support reaches beyond 0 and 1.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: dist.Distribution, margin: float, validate_args: bool | None = None) -> None:
        self.base_dist = base
        self.margin = margin
        self.width = 1 + 2 * margin
        super().__init__(base.batch_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The open interval (-margin, 1 + margin)."""
        return OpenInterval(-self.margin, 1 + self.margin)

    @property
    def has_rsample(self) -> bool:
        """Whether draws carry gradients."""
        return self.base_dist.has_rsample

    @property
    def mean(self) -> Tensor:
        """The mean of x."""
        return self.base_dist.mean * self.width - self.margin

    def expand(self, batch_shape: Any, _instance: Any = None) -> Stretched:
        """The same distribution with a larger batch shape."""
        return Stretched(self.base_dist.expand(batch_shape), self.margin, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of x."""
        if self._validate_args:
            self._validate_sample(value)
        return self.base_dist.log_prob((value + self.margin) / self.width) - math.log(self.width)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of t, stretched; rounding is kept from putting one on an end."""
        t = self.base_dist.rsample(torch.Size(sample_shape))
        eps = torch.finfo(t.dtype).eps
        return t.clamp(eps, 1 - eps) * self.width - self.margin
