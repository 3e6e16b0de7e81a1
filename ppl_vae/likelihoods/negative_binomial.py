"""The negative binomial likelihood."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.utils import broadcast_all

from ppl_vae.likelihoods.base import Likelihood, argument_of
from ppl_vae.likelihoods.scales import Scale, check_scale, scaled
from ppl_vae.stable import log_negative_binomial
from ppl_vae.types import COUNT, Kind

__all__ = ["NegativeBinomial", "NegativeBinomialDistribution"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NegativeBinomial(Likelihood):
    """p(x | h) = prod_d Gamma(x_d + r) / (x_d! Gamma(r)) (r / (r + m_d))^r (m_d / (r + m_d))^x_d, mean m = exp(h), for counts.

    A Poisson whose rate varies by a Gamma(r): the variance is ``m + m^2 / r``. Hilbe 2011, "Negative binomial regression";
    as a decoder's output in Lopez et al. 2018, "Deep generative modeling for single-cell transcriptomics".

    Args:
        dispersion: where r comes from: by default one learned ``per_feature``, of a gene or a word whatever the datum; one
            learned, ``shared`` by all elements; ``fixed`` at ``value``; or ``amortized``, given by the decoder for each datum
            and element.
        value: the fixed r, or where a learned one starts; the larger, the nearer to a Poisson.
        floor: a learned r stays above it.

    Raises:
        ValueError: an unknown kind of dispersion, a value or floor that is not positive, a learned value below the floor.

    Examples:
        >>> NegativeBinomial(value=2.0, floor=0.0).build((1,))(torch.zeros(1, 1)).variance.detach()
        tensor([1.5000])
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({COUNT})
    discrete: ClassVar[bool] = True

    dispersion: Scale = "per_feature"
    value: float = 2.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        check_scale("dispersion", self.dispersion, self.value, self.floor)

    @property
    def features(self) -> int:
        """The log-mean of each element, and its dispersion when amortized."""
        return 2 if self.dispersion == "amortized" else 1

    @property
    def log_mean(self) -> int:
        """The first feature."""
        return 0

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., P, *event_shape)`` to the distribution."""
        return scaled(NegativeBinomialDistribution, event_shape, self.dispersion, self.value, self.floor)

    def story(self, features: str) -> str:
        """The density as text."""
        if self.dispersion == "amortized":
            z = argument_of(features)
            return f"NegativeBinomial(mean = exp m({z}), r({z})), (m, r)({z}) = {features}"
        r = {"fixed": f"{self.value:g}", "shared": "r", "per_feature": "r_d"}[self.dispersion]
        return f"NegativeBinomial(mean = exp {features}, {r})"


class NegativeBinomialDistribution(dist.TorchDistribution):
    """By log-mean and dispersion, with a log-probability that keeps its digits for large counts and a large dispersion.

    Args:
        log_mean: log m.
        dispersion: r > 0.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"log_mean": dist.constraints.real, "dispersion": dist.constraints.positive}
    support = dist.constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor, dispersion: Tensor, validate_args: bool | None = None) -> None:
        self.given_dispersion = dispersion  # in as few elements as it has
        self.log_mean, self.dispersion = broadcast_all(log_mean, dispersion)
        super().__init__(self.log_mean.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The expected count m."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """M + m^2 / r."""
        return self.mean + self.mean.square() / self.dispersion

    def expand(self, batch_shape: Any, _instance: Any = None) -> NegativeBinomialDistribution:
        """The same distribution with a larger batch shape."""
        log_mean = self.log_mean.expand(batch_shape)
        return NegativeBinomialDistribution(log_mean, self.given_dispersion, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of counts."""
        if self._validate_args:
            self._validate_sample(value)
        r = self.given_dispersion
        return log_negative_binomial(value, r, self.log_mean - r.log())

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Counts: a Poisson draw at a gamma draw of the rate."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            r = self.dispersion.expand(shape)
            return torch.poisson(torch._standard_gamma(r) * (self.log_mean - self.dispersion.log()).exp())
