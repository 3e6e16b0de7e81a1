"""The continuous Bernoulli likelihood."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.types import UNIT_INTERVAL, Kind

__all__ = ["ContinuousBernoulli", "ContinuousBernoulliDistribution"]

SERIES = 0.25  # below it six terms of a power series are exact to the last digit of float64, above it the closed form is
LOG_SINHC = (1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775, -691 / 3831077250)  # log(sinh(a) / a), by powers of a^2
LANGEVIN = (1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555, -1382 / 638512875)  # (coth(a) - 1 / a) / a, by powers of a^2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContinuousBernoulli(Likelihood):
    """p(x | h) = prod_d exp(h_d x_d) h_d / (exp(h_d) - 1), for x in [0, 1]^D: gray pixels as they are.

    What a Bernoulli likelihood on gray pixels lacks is this normalizer. Loaiza-Ganem and Cunningham 2019, "The continuous
    Bernoulli: fixing a pervasive error in variational autoencoders".

    Examples:
        >>> ContinuousBernoulli().build((2,))(torch.zeros(1, 2)).mean
        tensor([0.5000, 0.5000])
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({UNIT_INTERVAL})

    @property
    def features(self) -> int:
        """One logit per element."""
        return 1

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from logits ``(..., 1, *event_shape)`` to the distribution."""
        return ContinuousBernoulliModule(len(event_shape))

    def story(self, features: str) -> str:
        """The density as text."""
        return f"ContinuousBernoulli(logits = {features})"


class ContinuousBernoulliModule(nn.Module):
    """Logits to the distribution of a datum."""

    def __init__(self, event_dim: int) -> None:
        super().__init__()
        self.event_dim = event_dim

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        return ContinuousBernoulliDistribution(features.squeeze(-1 - self.event_dim)).to_event(self.event_dim)


class ContinuousBernoulliDistribution(dist.TorchDistribution):
    """Exact for every logit, zero included, where torch's own leaves out a neighbourhood of it.

    Args:
        logits: h = log(p / (1 - p)).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": dist.constraints.real}
    support = dist.constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """1 / (1 - exp(-h)) - 1 / h, or 1/2 at h = 0."""
        half = self.logits / 2
        a = half.abs().clamp_min(SERIES)
        closed = half.sign() * (1 / torch.tanh(a) - 1 / a)
        near = half.clamp(-SERIES, SERIES)
        return (1 + torch.where(half.abs() < SERIES, near * _power_series(LANGEVIN, near.square()), closed)) / 2

    def expand(self, batch_shape: Any, _instance: Any = None) -> ContinuousBernoulliDistribution:
        """The same distribution with a larger batch shape."""
        return ContinuousBernoulliDistribution(self.logits.expand(batch_shape), validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density h (x - 1/2) - log(sinh(h / 2) / (h / 2))."""
        if self._validate_args:
            self._validate_sample(value)
        a = self.logits.abs() / 2
        far, near = a.clamp_min(SERIES), a.clamp_max(SERIES)
        closed = far + torch.log1p(-torch.exp(-2 * far)) - math.log(2) - far.log()
        log_sinhc = torch.where(a < SERIES, near.square() * _power_series(LOG_SINHC, near.square()), closed)
        return self.logits * (value - 0.5) - log_sinhc

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The inverse of the distribution function at uniform draws."""
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        h = self.logits.abs().clamp_min(1e-6)
        x = -torch.log1p(u * torch.expm1(-h)) / h  # of the distribution with -|h|; its mirror image has |h|
        return torch.where(self.logits < 0, x, 1 - x).clamp(0, 1)


def _power_series(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Sum of c_i x^i, by Horner's rule."""
    total = torch.zeros_like(x)
    for c in reversed(coefficients):
        total = total * x + c
    return total
