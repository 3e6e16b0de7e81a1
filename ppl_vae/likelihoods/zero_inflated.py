"""Zero inflation of a likelihood of counts."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood, unreduced
from ppl_vae.likelihoods.poisson import Poisson
from ppl_vae.types import DataSpec, Kind

__all__ = ["ZeroInflated"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroInflated(Likelihood):
    """p(x | h) = prod_d [g_d 1(x_d = 0) + (1 - g_d) p(x_d | h_d)], g = sigmoid(first feature): more zeros than counts explain.

    Lambert 1992, "Zero-inflated Poisson regression"; Lopez et al. 2018, "Deep generative modeling for single-cell
    transcriptomics".

    Args:
        likelihood: of the counts that are no extra zeros, such as ``Poisson`` or ``NegativeBinomial``.

    Raises:
        ValueError: a likelihood that gives no probability to each whole number alone.

    Examples:
        >>> ZeroInflated(likelihood=NegativeBinomial(dispersion="amortized")).features
        3
    """

    discrete: ClassVar[bool] = True

    likelihood: Likelihood = Poisson()

    def __post_init__(self) -> None:
        counts = self.likelihood.discrete and self.likelihood.factorizes and not self.likelihood.missing
        require(counts, "a likelihood of counts, each by itself and complete", self.likelihood)

    @property
    def accepts(self) -> frozenset[Kind]:  # type: ignore[override]
        """The kinds of data that the inner likelihood accepts."""
        return self.likelihood.accepts

    @property
    def features(self) -> int:
        """The logit of an extra zero, then the features of the inner likelihood."""
        return 1 + self.likelihood.features

    @property
    def log_mean(self) -> int | None:
        """That of the inner likelihood."""
        return None if self.likelihood.log_mean is None else 1 + self.likelihood.log_mean

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data do not lie in the inner likelihood's support."""
        super().check(spec)
        self.likelihood.check(spec)

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., P, *event_shape)`` to the distribution."""
        return ZeroInflatedModule(len(event_shape), self.likelihood.build(event_shape))

    def story(self, features: str) -> str:
        """The density as text."""
        return f"g 1(x = 0) + (1 - g) {self.likelihood.story(features)}, g = sigmoid {features}_0"


class ZeroInflatedModule(nn.Module):
    """A gate's logits and the features of the inner likelihood to the distribution of a datum."""

    def __init__(self, event_dim: int, likelihood: nn.Module) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.likelihood = likelihood

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        parameters = -1 - self.event_dim
        gate = features.select(parameters, 0)
        rest = features.narrow(parameters, 1, features.shape[parameters] - 1)
        counts = unreduced(self.likelihood(rest), self.event_dim)
        return dist.ZeroInflatedDistribution(counts, gate_logits=gate).to_event(self.event_dim)
