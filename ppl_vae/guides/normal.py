"""The amortized Gaussian guide (Kingma and Welling 2014).

    q(z | x) = prod_n Normal(z_n; mu(x_n), Sigma(x_n))

with Sigma diagonal, low-rank or full, given with mu by one encoder network. Where the prior does not live on the real numbers,
it is the density of the latent variable's real coordinates (:mod:`ppl_vae.guides.coordinates`).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.guides.amortized import EncodedGuide
from ppl_vae.guides.base import CONTINUOUS, Guide, Latent, check_latent
from ppl_vae.guides.floors import NormalizedMeans, check_standard, floored_scale
from ppl_vae.nn import MLP, Network
from ppl_vae.stable import LowRankMultivariateNormal
from ppl_vae.types import DataSpec

__all__ = ["AmortizedNormal"]

MIN_SCALE = 1e-6  # keeps log(scale) finite when softplus underflows in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedNormal(Guide):
    """q(z | x) = Normal(mu(x), Sigma(x)), the moments given by an encoder network.

    A full or low-rank Sigma is of the flattened latent variable.

    Args:
        encoder: the network from x to the moments.
        covariance: ``diagonal``; ``low_rank``, diag(sigma^2) + W W^T (Ong, Nott and Smith 2018); or ``full`` by its Cholesky
            factor.
        rank: columns of W, of a low-rank covariance.
        batch_norm_mean: gamma, the deviation that each of the K means has over the data, by batch normalization (Zhu et al.
            2020): against a standard normal prior the KL over the data whose moments the running ones are is then at least
            K gamma^2 / 2 nats in the mean, whatever the decoder does. Batches are of 3 rows or more.
        min_kl: delta, a floor of every datum's KL from a standard normal prior in nats, the committed rate of Razavi et al.
            (2019): the scales are at most s, where K (s^2 - 1 - log s^2) / 2 = delta. It may be paid without telling anything.

    Raises:
        ValueError: an unknown covariance, a rank below one, a gamma or a floor out of range, a floor of a low-rank covariance;
            on building, a rank above the latent dimension, a floor against another prior than the standard normal or above
            13.3 K nats.

    Examples:
        >>> print(AmortizedNormal(covariance="full"))
        q(z | x) = Normal(mu(x), L(x) L(x)^T), (mu, L)(x) = MLP(x)
    """

    serves: ClassVar[frozenset[Latent]] = CONTINUOUS

    encoder: Network = MLP()
    covariance: Literal["diagonal", "low_rank", "full"] = "diagonal"
    rank: int = 2
    batch_norm_mean: float | None = None
    min_kl: float = 0.0

    def __post_init__(self) -> None:
        require(self.covariance in COVARIANCES, f"a covariance of {', '.join(COVARIANCES)}", self.covariance)
        require(self.rank >= 1, "a rank of at least 1", self.rank)
        gamma = self.batch_norm_mean
        require(gamma is None or 0 < gamma < math.inf, "a positive batch_norm_mean", gamma)
        require(0 <= self.min_kl < math.inf, "a min_kl of at least 0 nats", self.min_kl)
        if self.covariance == "low_rank":
            require(
                self.min_kl == 0, "no min_kl with covariance='low_rank', whose factor makes up for any small scale", self.min_kl
            )

    @property
    def needs_standard_prior(self) -> bool:
        """Whether there is a floor of every datum's KL."""
        return self.min_kl > 0

    @property
    def takes_floor(self) -> bool:
        """Whether a ``min_kl`` may be declared and none is."""
        return self.min_kl == 0 and self.covariance != "low_rank"

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the latent variable of ``model``.

        Raises:
            ValueError: the model's latent variable is discrete, or has fewer dimensions than the covariance's rank, or its
                prior is not the standard normal and there is a ``min_kl``, or one that is too large.
        """
        check_latent(self, model)
        if self.min_kl:
            check_standard(model)
        return COVARIANCES[self.covariance](model, self, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        factor, spread = {
            "diagonal": ("sigma", "diag(sigma(x)^2)"),
            "low_rank": ("sigma, W", "diag(sigma(x)^2) + W(x) W(x)^T"),
            "full": ("L", "L(x) L(x)^T"),
        }[self.covariance]
        normalized = "" if self.batch_norm_mean is None else f", mu of deviation {self.batch_norm_mean:g} over the data"
        floor = f", KL(q(z | x) || p(z)) >= {self.min_kl:g}" if self.min_kl else ""
        return f"q(z | x) = Normal(mu(x), {spread}), (mu, {factor})(x) = {self.encoder.story('x')}{normalized}{floor}"


class NormalGuide(EncodedGuide):
    """An encoder whose first K numbers are the means, and scales that may have a bound."""

    def __init__(self, model: Any, declared: AmortizedNormal, spec: DataSpec) -> None:
        super().__init__(model, declared, spec)
        K, gamma = self.latent_dim, declared.batch_norm_mean
        self.axes = len(self.parameter_shape(self.coordinates.shape, declared))
        self.normalized = nn.Identity() if gamma is None else NormalizedMeans(K, gamma)
        self.largest = floored_scale(declared.min_kl, K) if declared.min_kl else math.inf

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The encoder's output ``(..., *parameter_shape)``, its means normalized where that is declared."""
        numbers = self.encoder(*batch)
        return (self.normalized(numbers.flatten(-self.axes)).unflatten(-1, numbers.shape[-self.axes :]),)

    def positive(self, raw: Tensor) -> Tensor:
        """A scale from any number: by softplus, or by a sigmoid where there is a largest one."""
        if self.largest == math.inf:
            return softplus(raw) + MIN_SCALE
        return self.largest * (raw.sigmoid() + MIN_SCALE) / (1 + MIN_SCALE)


class DiagonalNormalGuide(NormalGuide):
    """The encoder gives ``(..., 2, *shape)``: means, and scales before softplus."""

    def parameter_shape(self, shape: tuple[int, ...], declared: AmortizedNormal) -> tuple[int, ...]:
        """``(2, *shape)``."""
        return (2, *shape)

    def density(self, *local: Tensor) -> dist.Distribution:
        """Independent normals."""
        loc, raw_scale = local[0].unbind(-1 - self.event_dim)
        return dist.Normal(loc, self.positive(raw_scale)).to_event(self.event_dim)


class LowRankNormalGuide(NormalGuide):
    """The encoder gives ``(..., 2 + R, K)``: means, scales before softplus, and W's R columns."""

    rank: int

    def parameter_shape(self, shape: tuple[int, ...], declared: AmortizedNormal) -> tuple[int, ...]:
        """``(2 + R, K)``."""
        self.rank, K = declared.rank, self.latent_dim
        if self.rank > K:
            raise ValueError(f"expected a rank of at most the latent dimension {K}, got {self.rank}: use covariance='full'")
        return (2 + self.rank, K)

    def density(self, *local: Tensor) -> dist.Distribution:
        """A normal whose covariance is diagonal up to R directions."""
        loc, raw_scale, W = local[0].split([1, 1, self.rank], dim=-2)
        scale = self.positive(raw_scale.squeeze(-2))
        return LowRankMultivariateNormal(loc.squeeze(-2), W.mT, scale.square())


class FullNormalGuide(NormalGuide):
    """The encoder gives ``(..., K + K (K + 1) / 2)``: means, then L row by row, its diagonal before softplus."""

    def __init__(self, model: Any, declared: AmortizedNormal, spec: DataSpec) -> None:
        super().__init__(model, declared, spec)
        K = self.latent_dim
        rows, columns = torch.tril_indices(K, K)
        self.register_buffer("entries", rows * K + columns, persistent=False)

    def parameter_shape(self, shape: tuple[int, ...], declared: AmortizedNormal) -> tuple[int, ...]:
        """``(K + K (K + 1) / 2,)``."""
        K = self.latent_dim
        return (K + K * (K + 1) // 2,)

    def density(self, *local: Tensor) -> dist.Distribution:
        """A normal with this Cholesky factor."""
        K = self.latent_dim
        loc, triangle = local[0].split([K, len(self.entries)], dim=-1)
        square = triangle.new_zeros(*triangle.shape[:-1], K * K).index_copy(-1, self.entries, triangle).unflatten(-1, (K, K))
        diagonal = self.positive(square.diagonal(dim1=-2, dim2=-1))
        return dist.MultivariateNormal(loc, scale_tril=square.tril(-1) + diagonal.diag_embed())


COVARIANCES: dict[str, type[EncodedGuide]] = {
    "diagonal": DiagonalNormalGuide,
    "low_rank": LowRankNormalGuide,
    "full": FullNormalGuide,
}
