"""The logit-normal likelihood."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import broadcast_all

from ppl_vae.likelihoods.scales import Family, LocationScale
from ppl_vae.likelihoods.unit_interval import OpenInterval, Stretched, check_margin
from ppl_vae.types import UNIT_INTERVAL, Kind

__all__ = ["LogitNormal", "LogitNormalDistribution"]

NODES, REACH = 257, 8.0  # of the trapezoidal rule for the mean, in standard deviations


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitNormal(LocationScale):
    """p(x | h) = prod_d Normal(logit t_d; h_d, scale_d^2) / (t_d (1 - t_d)) / (1 + 2 margin), x = (1 + 2 margin) t - margin.

    A normal distribution through a sigmoid: Atchison and Shen 1980, "Logistic-normal distributions: some properties and
    uses". The density of t in (0, 1) is zero at the ends, where pixels often lie, so it is stretched a little beyond them;
    draws may leave [0, 1] by as much.

    Args:
        scale: ``fixed``, ``shared``, ``per_feature`` or ``amortized``, as for ``Gaussian``; the standard deviation of logit t.
        value: the fixed scale, or where a learned one starts.
        floor: a learned scale stays above it.
        margin: how far the support reaches beyond 0 and 1; half a level of 8-bit images by default. With 0 the support is
            the open interval, and data with exact zeros or ones are refused.

    Raises:
        ValueError: a negative margin, or what ``Gaussian`` raises.

    Examples:
        >>> LogitNormal().build((2,))(torch.zeros(1, 2)).mean.detach()
        tensor([0.5000, 0.5000])
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({UNIT_INTERVAL})
    filler: ClassVar[float] = 0.5

    value: float = 1.0
    margin: float = 0.5 / 255

    def __post_init__(self) -> None:
        super().__post_init__()
        check_margin(self.margin)

    def family(self) -> Family:
        """The stretched logit-normal distribution."""
        return functools.partial(_stretched, margin=self.margin)


class LogitNormalDistribution(dist.TorchDistribution):
    """The sigmoid of a normal variable.

    Args:
        loc: mean of the logit.
        scale: standard deviation of the logit.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": dist.constraints.real, "scale": dist.constraints.positive}
    support = OpenInterval(0.0, 1.0)
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """E[sigmoid(loc + scale e)], e ~ Normal(0, 1): no closed form, but the trapezoidal rule converges exponentially."""
        nodes = torch.linspace(-REACH, REACH, NODES, dtype=torch.float64)
        weights = torch.softmax(-nodes.square() / 2, 0)
        total = torch.zeros_like(self.loc)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            total = total + weight * torch.sigmoid(self.loc + self.scale * node)
        return total

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogitNormalDistribution:
        """The same distribution with a larger batch shape."""
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return LogitNormalDistribution(loc, scale, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        log_t, log_rest = value.log(), torch.log1p(-value)
        y = (log_t - log_rest - self.loc) / self.scale
        return -y.square() / 2 - self.scale.log() - math.log(2 * math.pi) / 2 - log_t - log_rest

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Sigmoids of normal draws."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.sigmoid(self.loc + self.scale * noise)


def _stretched(loc: Tensor, scale: Tensor, *, margin: float) -> dist.Distribution:
    return Stretched(LogitNormalDistribution(loc, scale), margin)
