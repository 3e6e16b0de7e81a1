"""Missing entries, left out of a likelihood."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood, in_words, point_prediction, unreduced
from ppl_vae.likelihoods.gaussian import Gaussian
from ppl_vae.types import Column, DataSpec, Kind

__all__ = ["Masked", "MaskedDistribution", "MissingOr"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masked(Likelihood):
    """p(x_observed | h) = prod_{d observed} p(x_d | h_d): missing entries (NaN) contribute nothing.

    Exact where entries are missing at random, since elements that are independent given h are integrated out by leaving them
    out: Nazabal et al. 2020, "Handling incomplete heterogeneous data using VAEs"; Mattei and Frellsen 2019, "MIWAE". Draws
    are complete.

    Args:
        likelihood: of an entry that is observed.

    Raises:
        ValueError: a likelihood whose elements depend on each other given h, or that leaves out missing entries itself.

    Examples:
        >>> likelihood = Masked(likelihood=Bernoulli()).build((2,))(torch.zeros(1, 2))
        >>> likelihood.log_prob(torch.tensor([1.0, float("nan")])).exp()
        tensor(0.5000)
    """

    likelihood: Likelihood = Gaussian()

    def __post_init__(self) -> None:
        alone = self.likelihood.factorizes and not self.likelihood.missing
        require(alone, "a likelihood of independent elements (inside a MixedTable mask each group's own)", self.likelihood)

    @property
    def accepts(self) -> frozenset[Kind]:  # type: ignore[override]
        """The kinds of data that the inner likelihood accepts."""
        return self.likelihood.accepts

    @property
    def features(self) -> int:
        """Those of the inner likelihood."""
        return self.likelihood.features

    @property
    def log_mean(self) -> int | None:
        """As the inner likelihood."""
        return self.likelihood.log_mean

    @property
    def unit_free(self) -> bool:
        """As the inner likelihood."""
        return self.likelihood.unit_free

    @property
    def one_scale(self) -> bool:
        """As the inner likelihood."""
        return self.likelihood.one_scale

    @property
    def missing(self) -> bool:
        """Entries may be missing."""
        return True

    def check_columns(self, table: tuple[Column, ...]) -> None:
        """Raise ``ValueError`` if the inner likelihood is no density of the columns."""
        self.likelihood.check_columns(table)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the observed entries do not lie in the inner likelihood's support."""
        super().check(spec)
        self.likelihood.check(spec)

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., P, *event_shape)`` to the distribution."""
        return MaskedModule(len(event_shape), self.likelihood.build(event_shape), self.likelihood.filler)

    def story(self, features: str) -> str:
        """The density as text."""
        return f"{self.likelihood.story(features)}, observed entries only"


class MaskedModule(nn.Module):
    """Features of the inner likelihood to the distribution of a datum."""

    missing = True

    def __init__(self, event_dim: int, likelihood: nn.Module, filler: float) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.likelihood = likelihood
        self.filler = filler

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        return MaskedDistribution(unreduced(self.likelihood(features), self.event_dim), self.filler).to_event(self.event_dim)


class MissingOr(constraints.Constraint):
    """The values of a constraint, or NaN.

    Args:
        base_constraint: of a value that is not missing.
    """

    def __init__(self, base_constraint: constraints.Constraint) -> None:
        self.base_constraint = base_constraint
        self.is_discrete = base_constraint.is_discrete
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is missing or satisfies the base."""
        return value.isnan() | self.base_constraint.check(value)

    def __repr__(self) -> str:
        return f"{in_words(self.base_constraint)} or missing"


class MaskedDistribution(dist.TorchDistribution):
    """A distribution of single elements, of which a missing one has the log-probability 0.

    Args:
        base: of an observed element.
        filler: a value inside its support.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: dist.Distribution, filler: float, validate_args: bool | None = None) -> None:
        self.base_dist = base
        self.filler = filler
        super().__init__(base.batch_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """That of the base, or NaN."""
        return MissingOr(self.base_dist.support)

    @property
    def mean(self) -> Tensor:
        """The mean of each element."""
        return self.base_dist.mean

    @property
    def point_prediction(self) -> Tensor:
        """What stands for the base."""
        return point_prediction(self.base_dist)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MaskedDistribution:
        """The same distribution with a larger batch shape."""
        return MaskedDistribution(self.base_dist.expand(batch_shape), self.filler, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of each element; the filler keeps NaN out of the gradients too."""
        missing = value.isnan()
        return torch.where(missing, 0.0, self.base_dist.log_prob(torch.where(missing, self.filler, value)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, none of them missing."""
        return self.base_dist.sample(torch.Size(sample_shape))
