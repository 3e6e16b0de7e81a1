"""The Gaussian likelihood with a low-rank covariance between the elements."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.likelihoods.scales import check_scale
from ppl_vae.stable import low_rank_mahalanobis
from ppl_vae.types import BINARY, COUNT, REAL, UNIT_INTERVAL, Kind

__all__ = ["LowRankGaussian", "LowRankNormal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRankGaussian(Likelihood):
    """p(x | h) = Normal(x; mu, S (I + G G^T) S), S = diag(s), G of size D x rank: errors of different elements go together.

    Dorta et al. 2018, "Structured uncertainty prediction networks"; the low-rank form is that of Monteiro et al. 2020,
    "Stochastic segmentation networks".

    Args:
        rank: R, columns of G.
        covariance: one learned covariance ``shared`` by all data, or ``amortized``, given by the decoder for each datum.
        value: where the scales s start, in the units of the data the model sees.
        floor: the scales stay above it.

    Raises:
        ValueError: a rank below 1, an unknown covariance, a value or floor that is not positive, a value below the floor.

    Examples:
        >>> LowRankGaussian(rank=3, covariance="amortized").features
        5
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({BINARY, UNIT_INTERVAL, REAL, COUNT})
    factorizes: ClassVar[bool] = False

    rank: int = 5
    covariance: Literal["shared", "amortized"] = "shared"
    value: float = 0.5
    floor: float = 1e-3

    def __post_init__(self) -> None:
        require(isinstance(self.rank, int) and self.rank >= 1, "a rank of at least 1", self.rank)
        require(self.covariance in ("shared", "amortized"), "a covariance of shared or amortized", self.covariance)
        check_scale("covariance", self.covariance, self.value, self.floor)

    @property
    def features(self) -> int:
        """The mean of each element; when amortized also its scale and its row of G."""
        return 2 + self.rank if self.covariance == "amortized" else 1

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., P, *event_shape)`` to the distribution."""
        program = AmortizedCovariance if self.covariance == "amortized" else SharedCovariance
        return program(event_shape, self.rank, self.value, self.floor)

    def story(self, features: str) -> str:
        """The density as text."""
        if self.covariance == "shared":
            return f"Normal({features}, S (I + G G^T) S), G of rank {self.rank}"
        return f"Normal(mu(z), S(z) (I + G(z) G(z)^T) S(z)), G of rank {self.rank}, (mu, S, G)(z) = {features}"


class SharedCovariance(nn.Module):
    """Means from the decoder, one learned covariance."""

    def __init__(self, event_shape: tuple[int, ...], rank: int, value: float, floor: float) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.floor = floor
        size = math.prod(event_shape)
        self.log_scale = nn.Parameter(torch.full((size,), math.log(value - floor)))
        self.factor = nn.Parameter(0.1 * torch.randn(size, rank))  # at zero it would have no gradient

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        loc = features.flatten(-len(self.event_shape)).squeeze(-2)
        return LowRankNormal(loc, self.log_scale.exp() + self.floor, self.factor, self.event_shape)


class AmortizedCovariance(nn.Module):
    """Means, scales and factors from the decoder; features of zero give independent elements of scale ``value``."""

    def __init__(self, event_shape: tuple[int, ...], rank: int, value: float, floor: float) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.rank = rank
        self.floor = floor
        self.shift = value - floor + math.log(-math.expm1(floor - value))

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        loc, raw, factor = features.flatten(-len(self.event_shape)).split([1, 1, self.rank], dim=-2)
        scale = softplus(raw.squeeze(-2) + self.shift) + self.floor
        return LowRankNormal(loc.squeeze(-2), scale, factor.transpose(-1, -2), self.event_shape)


class LowRankNormal(dist.TorchDistribution):
    """Normal(loc, S (I + G G^T) S) of a datum of any shape, by linear algebra of R x R matrices.

    G is relative to the scales, so that ``I + G^T G`` stays well conditioned in float32.

    Args:
        loc: mean ``(..., D)`` of the flattened datum.
        scale: s ``(..., D)``.
        factor: G ``(..., D, R)``.
        event_shape: shape of the datum.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(
        self, loc: Tensor, scale: Tensor, factor: Tensor, event_shape: torch.Size, validate_args: bool | None = None
    ) -> None:
        self.loc = loc
        self.scale = scale.expand_as(loc)
        self.factor = factor
        super().__init__(loc.shape[:-1], torch.Size(event_shape), validate_args=validate_args)

    @property
    def support(self) -> dist.constraints.Constraint:
        """All real data of the event's shape."""
        return dist.constraints.independent(dist.constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """The mean of each element."""
        return self.loc.unflatten(-1, self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The variance of each element."""
        return (self.scale.square() * (1 + self.factor.square().sum(-1))).unflatten(-1, self.event_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LowRankNormal:
        """The same distribution with a larger batch shape."""
        loc = self.loc.expand(*batch_shape, self.loc.shape[-1])
        return LowRankNormal(loc, self.scale, self.factor, self.event_shape, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density, by the determinant of Sylvester's lemma."""
        if self._validate_args:
            self._validate_sample(value)
        D, R = self.factor.shape[-2:]
        y = (value.flatten(-len(self.event_shape)) - self.loc) / self.scale
        capacitance = torch.eye(R, dtype=y.dtype, device=y.device) + self.factor.mT @ self.factor
        L = torch.linalg.cholesky_ex(capacitance).L
        log_det = 2 * (self.scale.log().sum(-1) + L.diagonal(dim1=-2, dim2=-1).log().sum(-1))
        return -(low_rank_mahalanobis(y, self.factor, L) + log_det + D * math.log(2 * math.pi)) / 2

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``loc + S (e + G f)`` of standard normal e and f."""
        shape = torch.Size(sample_shape) + self.loc.shape
        e = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        f = torch.randn(*shape[:-1], self.factor.shape[-1], 1, dtype=self.loc.dtype, device=self.loc.device)
        return (self.loc + self.scale * (e + (self.factor @ f).squeeze(-1))).unflatten(-1, self.event_shape)
