"""The prior of standard deviations that is conjugate to a normal's variance."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior, Support
from ppl_vae.priors.values import as_text, as_tuple, each, expanded

__all__ = ["RootInverseGamma", "RootInverseGammaDistribution", "RootInverseGammaModule"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootInverseGamma(Prior):
    """s^2 ~ InverseGamma(a, b): p(s) = 2 b^a / Gamma(a) s^(-2 a - 1) exp(-b / s^2), conjugate to a normal's standard deviation.

    The precision 1 / s^2 is Gamma(a, b). Gelman et al., *Bayesian Data Analysis* (2013), section 2.6.

    Args:
        concentration: a; 2 a observations' worth of knowledge.
        rate: b, in the squared units of what the model sees, one for all elements, one for each along the last axis, or one
            each.

    Raises:
        ValueError: a number that is not positive; on building, a number of rates that is not that of the elements.

    Examples:
        >>> RootInverseGamma(concentration=2.0).build((3,))().event_shape
        torch.Size([3])
    """

    support: ClassVar[Support] = "positive"

    concentration: float = 1.5
    rate: float | tuple[float, ...] = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", as_tuple(self.rate))
        require(0 < self.concentration < math.inf, "a positive concentration", self.concentration)
        require(all(0 < b < math.inf for b in each(self.rate)), "positive rates", self.rate)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, elements independent."""
        return RootInverseGammaModule(torch.full(shape, float(self.concentration)), expanded("rate", self.rate, shape))

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"RootInverseGamma({self.concentration:g}, {as_text(self.rate)})"


class RootInverseGammaModule(nn.Module):
    """Its numbers are buffers, so they follow ``.to(device)``."""

    concentration: Tensor
    rate: Tensor

    def __init__(self, concentration: Tensor, rate: Tensor) -> None:
        super().__init__()
        self.register_buffer("concentration", concentration, persistent=False)
        self.register_buffer("rate", rate, persistent=False)

    def forward(self) -> dist.Distribution:
        """p(s)."""
        return RootInverseGammaDistribution(self.concentration, self.rate).to_event(self.rate.dim())


class RootInverseGammaDistribution(dist.TorchDistribution):
    """1 / sqrt(Gamma(a, b))."""

    arg_constraints: ClassVar[dict[str, Any]] = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, concentration: Tensor, rate: Tensor, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = torch.broadcast_tensors(concentration, rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> RootInverseGammaDistribution:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape)
        return RootInverseGammaDistribution(self.concentration.expand(shape), self.rate.expand(shape), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """sqrt(b) Gamma(a - 1/2) / Gamma(a); infinite up to a = 1/2."""
        a = self.concentration
        mean = 0.5 * self.rate.log() + torch.lgamma((a - 0.5).clamp_min(1e-6)) - torch.lgamma(a)
        return torch.where(a > 0.5, mean.exp(), math.inf)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws."""
        return dist.Gamma(self.concentration, self.rate).rsample(torch.Size(sample_shape)).rsqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of s in nats."""
        if self._validate_args:
            self._validate_sample(value)
        a, b = self.concentration, self.rate
        return math.log(2) + a * b.log() - torch.lgamma(a) - (2 * a + 1) * value.log() - b / value.square()
