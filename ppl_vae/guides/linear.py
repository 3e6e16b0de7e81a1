"""The linear guide, the family that holds the exact posterior of every linear-Gaussian model.

    q(z | x) = prod_n Normal(z_n; A x_n + b, Sigma)

with one covariance Sigma for all data, diagonal or full.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.exact import moments
from ppl_vae.guides.amortized import RealGuide
from ppl_vae.guides.base import CONTINUOUS, Guide, Latent, check_latent
from ppl_vae.program.capabilities import KnownPosterior
from ppl_vae.program.facts import model_facts
from ppl_vae.program.hooks import Start
from ppl_vae.types import DataSpec

__all__ = ["AmortizedLinear"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedLinear(Guide):
    """q(z | x) = Normal(A x + b, Sigma): for factor analysis the exact family if Sigma is full.

    Lucas et al. (2019). A diagonal Sigma is exact only where the loadings' columns are orthogonal in the noise's metric: for
    PPCA some rotation makes them so.

    Args:
        covariance: ``diagonal`` or ``full``.

    Raises:
        ValueError: an unknown covariance.

    Examples:
        >>> print(AmortizedLinear())
        q(z | x) = Normal(A x + b, L L^T)
    """

    serves: ClassVar[frozenset[Latent]] = CONTINUOUS

    covariance: Literal["diagonal", "full"] = "full"

    def __post_init__(self) -> None:
        require(self.covariance in ("diagonal", "full"), "a covariance of diagonal or full", self.covariance)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the latent variable of ``model``.

        Raises:
            ValueError: the model's latent variable is discrete, or rows differ in length.
        """
        check_latent(self, model)
        if spec.ragged:
            raise ValueError("expected rows of one length for AmortizedLinear: use AmortizedNormal(encoder=LSTM())")
        kind = LinearGuide if self.covariance == "full" else DiagonalLinearGuide
        return kind(model, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        spread = "L L^T" if self.covariance == "full" else "diag(sigma^2)"
        return f"q(z | x) = Normal(A x + b, {spread})"


class LinearGuide(RealGuide):
    """Full covariance: A ``weight (K, D)`` acts on x in the buffers' units, ``raw (K, K)`` is L, its diagonal as logarithms."""

    center: Tensor
    unit: Tensor

    def __init__(self, model: Any, spec: DataSpec) -> None:
        super().__init__(model, spec)
        told = len(model_facts(model).reads) > 1
        self._telling = (model,) if told else ()  # in a tuple, so that its parameters are not listed twice
        latent_dim = math.prod(self.coordinates.shape)
        columns = math.prod(spec.event_shape) + (model.beside_columns if told else 0)
        self.register_buffer("center", torch.zeros(columns))
        self.register_buffer("unit", torch.ones(columns))
        self.weight = nn.Parameter(torch.randn(latent_dim, columns) / columns**0.5)
        self.bias = nn.Parameter(torch.zeros(latent_dim))
        self.raw = nn.Parameter(self._raw(torch.eye(latent_dim)))

    def unconstrained(self, *batch: Tensor) -> dist.Distribution:
        """The density of the coordinates of z for x ``(B, *event)`` and what else the model is given."""
        return self.density(self.rows(*batch) @ self.weight.T + self.bias, self.raw)

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Means ``(B, K)``, and ``raw`` for each datum, which all share."""
        loc = self.rows(*batch) @ self.weight.T + self.bias
        return loc, self.raw.expand(*loc.shape[:-1], *self.raw.shape)

    def density(self, *local: Tensor) -> dist.Distribution:
        """A normal with these means and factors."""
        loc, raw = local
        return dist.MultivariateNormal(loc, scale_tril=_scale_tril(raw))

    def rows(self, *batch: Tensor) -> Tensor:
        """X and, where the model shows one, its condition, as rows ``(B, D)`` in the buffers' units."""
        parts = [batch[0].flatten(1), *(model.beside(*batch) for model in self._telling)]
        return (torch.cat(parts, dim=1) - self.center) / self.unit

    @property
    def scale_tril(self) -> Tensor:
        """L ``(K, K)``."""
        return _scale_tril(self.raw)

    @torch.no_grad()
    def start_fit(self, context: Start) -> None:
        """Start at the model's own posterior where it knows it and the family holds it; else leave the random start.

        The posterior is affine in x, so its values at the mean and one unit away from it in each column are enough.
        """
        model = context.model
        if not isinstance(model, KnownPosterior):
            return
        seen = moments.moments(context.rows)
        spread = seen.covariance.diagonal().sqrt()
        self.center.copy_(seen.mean)
        self.unit.copy_(torch.where(spread > 0, spread, 1.0))
        exact = model.posterior(torch.cat([self.center[None], self.center + self.unit.diag()]))
        self.bias.copy_(exact.mean[0])
        self.weight.copy_((exact.mean[1:] - exact.mean[0]).T)
        self.raw.copy_(self._raw(exact.scale_tril[0]))

    def _raw(self, scale_tril: Tensor) -> Tensor:
        return scale_tril.tril(-1) + scale_tril.diagonal().log().diag_embed()


class DiagonalLinearGuide(LinearGuide):
    """Diagonal covariance: ``raw (K,)`` is the logarithm of the scales."""

    def density(self, *local: Tensor) -> dist.Distribution:
        """Independent normals with these means and logarithms of scales."""
        loc, raw = local
        return dist.Normal(loc, raw.exp()).to_event(1)

    def _raw(self, scale_tril: Tensor) -> Tensor:
        # The best diagonal fit to a normal has the inverse of its precisions' diagonal as variances.
        return -0.5 * torch.cholesky_inverse(scale_tril).diagonal().log()


def _scale_tril(raw: Tensor) -> Tensor:
    return raw.tril(-1) + raw.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
