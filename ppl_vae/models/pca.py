"""Principal component analysis, the linear autoencoder in closed form (Pearson 1901; Baldi and Hornik 1989).

    z_n = W^+ (x_n - mu)              the nearest point of a plane
    x_n ~ Normal(W z_n + mu, s^2 I)

It is PPCA as the noise of its posterior goes to zero (Tipping and Bishop 1999): for a density of x take
:class:`~ppl_vae.PPCA`, which spans the same plane.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.declaration import require
from ppl_vae.exact import floors, moments
from ppl_vae.likelihoods import Gaussian
from ppl_vae.likelihoods.base import refuse_categories
from ppl_vae.likelihoods.noise import NoiseScale
from ppl_vae.models.autoencoder import CodeModel
from ppl_vae.models.base import Model, PosteriorFamily
from ppl_vae.nn import Linear
from ppl_vae.program.quantities import COLUMN, LATENT, Quantity
from ppl_vae.types import DataSpec, Kind

__all__ = ["PCA", "Components"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PCA(Model):
    """Principal component analysis: the plane with the least squared distance to the data.

    Fitted by ``ClosedForm``, axes are orthonormal and in the order of their variance, so codes are the usual scores; gradients
    (``SVI``) find the same plane in other coordinates. ``evaluate`` gives the ``reconstruction``, the log-density of x around
    its projection with one noise scale for all elements, which is no bound on log p(x).

    Args:
        latent_dim: K, the number of components.

    Raises:
        ValueError: fewer than one component, and on building as many as the data have columns.

    Examples:
        >>> print(PCA(latent_dim=2))
        z = W^+ (x - mu); x | z ~ Normal(W z + mu, s^2 I)
    """

    posterior_family: ClassVar[PosteriorFamily] = "projection"

    latent_dim: int = 8

    def __post_init__(self) -> None:
        require(self.latent_dim >= 1, "a latent_dim of at least 1", self.latent_dim)

    @property
    def likelihood(self) -> Gaussian:
        """p(x | z) of the same program's autoencoder form."""
        return Gaussian(scale="shared")

    @property
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that lie on the real line."""
        return self.likelihood.accepts

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are not complete numbers, or have no more columns than there are components."""
        refuse_categories("PCA", spec.table)
        self.likelihood.check(spec)
        if spec.missing:
            raise ValueError("PCA needs complete data: fill missing entries, drop those rows, or use PPCA or FactorAnalysis")
        limit = math.prod(spec.event_shape) - 1
        if self.latent_dim > limit:
            raise ValueError(f"expected at most {limit} components for data of shape {spec.event_shape}, got {self.latent_dim}")

    def build(self, spec: DataSpec) -> PrincipalModel:
        """The Pyro program for data of this shape and number."""
        return PrincipalModel(
            size=spec.size,
            latent_shape=(self.latent_dim,),
            decoder=Linear().build((self.latent_dim,), (1, *spec.event_shape)),
            likelihood=NoiseScale(self.likelihood, spec.event_shape),
        )

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        return "z = W^+ (x - mu); x | z ~ Normal(W z + mu, s^2 I)"


class Components(NamedTuple):
    """Mu ``(D,)``, orthonormal axes W ``(D, K)``, the mean squared distance per element s^2, the unit of its floor."""

    loc: Tensor
    axes: Tensor
    variance: Tensor
    unit: Tensor


class PrincipalModel(CodeModel):
    """The program, and what is exact about it."""

    takes_weights = True

    @property
    def free_parameters(self) -> int:
        """D of mu, D K - K (K + 1) / 2 of orthonormal axes, and the noise."""
        D, K = self.decoder.layers.weight.shape
        return D + int(D * K - K * (K + 1) // 2) + 1

    def posterior(self, x: Tensor) -> dist.Distribution:
        """The code of each datum as a point without a density: its projection, x ``(B, *event)``."""
        linear = self.decoder.layers
        return dist.Delta((x.flatten(1) - linear.bias) @ torch.linalg.pinv(linear.weight).T, event_dim=1)

    def decoded_change(self, direction: Tensor) -> Tensor:
        """What a change ``(K,)`` of the code adds to the mean of x: the axes times it, ``(D,)``."""
        return self.decoder.layers.weight @ direction.to(self.decoder.layers.weight)

    def quantities(self) -> dict[str, Quantity]:
        """Mean, axes and the variance around the plane."""
        linear, noise = self.decoder.layers, self.likelihood.scale.square()
        return {
            "mean": Quantity(values=linear.bias, axes=(COLUMN,), power=1, located=True),
            "axis": Quantity(values=linear.weight, axes=(COLUMN, LATENT), power=1),
            "noise_variance": Quantity(values=noise.expand_as(linear.bias), axes=(COLUMN,), power=2),
        }

    def closed_form(self, rows: Any) -> Components:
        """The principal components of rows ``(N, D)`` or batches of them, by the eigenvectors of their covariance."""
        seen = moments.moments(rows)
        values, vectors = torch.linalg.eigh(seen.covariance)
        (latent_dim,) = self.latent_shape
        # Each axis points where most of its entries, by size, are positive.
        axes = vectors.flip(1)[:, :latent_dim]
        signs = torch.where(axes.gather(0, axes.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
        variance = values[:-latent_dim].clamp_min(0).sum() / len(values)
        unit = floors.common(floors.variance_floor(seen.mean, seen.covariance.diagonal(), 1.0)).sqrt()
        return Components(seen.mean, signs * axes, variance, unit)

    @torch.no_grad()
    def assign(self, found: Components) -> None:
        """Write components into the modules."""
        linear, likelihood = self.decoder.layers, self.likelihood
        linear.bias.copy_(found.loc)
        linear.weight.copy_(found.axes)
        likelihood.measure(found.unit)
        likelihood.assign(found.variance.sqrt())
