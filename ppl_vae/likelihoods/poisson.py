"""The Poisson likelihood."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.stable import log_poisson
from ppl_vae.types import COUNT, Kind

__all__ = ["LogPoisson", "Poisson"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Poisson(Likelihood):
    """p(x | h) = prod_d rate_d^x_d exp(-rate_d) / x_d!, rate = exp(h), for counts x in {0, 1, 2, ...}^D.

    Its variance is its mean: counts that vary more want ``NegativeBinomial``.

    Examples:
        >>> Poisson().build((3,))(torch.zeros(1, 3)).mean
        tensor([1., 1., 1.])
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({COUNT})
    discrete: ClassVar[bool] = True

    @property
    def features(self) -> int:
        """One log-rate per element."""
        return 1

    @property
    def log_mean(self) -> int:
        """The first feature."""
        return 0

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from log-rates ``(..., 1, *event_shape)`` to the distribution."""
        return PoissonModule(len(event_shape))

    def story(self, features: str) -> str:
        """The density as text."""
        return f"Poisson(exp {features})"


class PoissonModule(nn.Module):
    """Log-rates to the distribution of a datum."""

    def __init__(self, event_dim: int) -> None:
        super().__init__()
        self.event_dim = event_dim

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        return LogPoisson(features.squeeze(-1 - self.event_dim)).to_event(self.event_dim)


class LogPoisson(dist.Poisson):
    """By log-rate, with a log-probability that keeps its digits for large counts.

    Args:
        log_rate: log of the expected count.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"rate": dist.constraints.nonnegative}

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.exp(), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogPoisson:
        """The same distribution with a larger batch shape."""
        return LogPoisson(self.log_rate.expand(batch_shape), validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of counts."""
        if self._validate_args:
            self._validate_sample(value)
        return log_poisson(value, self.log_rate)
