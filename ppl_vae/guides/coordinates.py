"""From a density of real vectors to one on the support of p(z).

    u ~ q(u | x),  z = T(u),  log q(z | x) = log q(u | x) - log |det dT/du|

T is :func:`torch.distributions.biject_to` of the prior's support (Kucukelbir et al. 2017); on the real numbers there is no T.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import ReshapeTransform

from ppl_vae.guides.base import lone_site
from ppl_vae.program.wrapped import innermost

__all__ = ["Coordinates", "Pointed", "Pushforward", "points", "standard_points", "unmixed"]

POINTS = 64  # for means that have no closed form


class Coordinates:
    """Real coordinates of a built model's only latent variable.

    Attributes:
        site: the variable, as it was when this was made.
        shape: of the coordinates of one datum; the latent shape where the support is real, one less on a simplex.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.site = lone_site(model)
        self.real = innermost(self.site.support) in (constraints.real, constraints.real_vector)
        latent_shape = torch.Size(self.site.event_shape)
        self.shape = latent_shape if self.real else self._bijection().inverse_shape(latent_shape)

    def __call__(self, q: dist.Distribution) -> dist.Distribution:
        """The density of z whose coordinates, in this shape or flat, have the density ``q``; ``q`` itself where z is real."""
        transforms: list[Transform] = []
        if q.event_shape != self.shape:
            transforms.append(ReshapeTransform(q.event_shape, self.shape, cache_size=1))
        if not self.real:
            transforms.append(self._bijection())
        return Pushforward(q, transforms) if transforms else q

    def constrain(self, u: Tensor) -> Tensor:
        """The value of z at coordinates ``(..., *shape)``."""
        return u if self.real else self._bijection()(u)

    def _bijection(self) -> Transform:
        # Made anew each time: bounds may be parameters, and a cache belongs to one density.
        return biject_to(unmixed(lone_site(self._model).support)).with_cache(1)


class Pushforward(dist.TransformedDistribution):
    """The density of T(u), u ~ q; its draws keep their u, so that their own log-density needs no inverse of T.

    It has a mean: E[T(u)] by fixed points, the same for every datum and every call. For a normal u they are 32 Sobol points and
    their mirror images, so that the mean of an affine T is exact.
    """

    @property
    def mean(self) -> Tensor:
        """E[z] by the fixed points, ``(*batch, *event)``."""
        z, weights = self.points(POINTS)
        return (weights.reshape(weights.shape + (1,) * len(self.event_shape)) * z).sum(0)

    def points(self, count: int) -> tuple[Tensor, Tensor]:
        """Fixed points ``(S, *batch, *event)`` and their weights ``(S, *batch)``."""
        z, weights = points(self.base_dist, count)
        for transform in self.transforms:
            z = transform(z)
        return z, weights


@runtime_checkable
class Pointed(Protocol):
    """A density that offers fixed points of its own."""

    def points(self, count: int) -> tuple[Tensor, Tensor]:
        """Points ``(S, *batch, *event)`` and their weights ``(S, *batch)``."""
        ...


@runtime_checkable
class Factored(Protocol):
    """A normal that gives the Cholesky factor of its covariance."""

    scale_tril: Tensor


def points(q: dist.Distribution, count: int) -> tuple[Tensor, Tensor]:
    """Fixed points ``(S, *batch, *event)`` of a density and their weights ``(S, *batch)``, which sum to one.

    Args:
        q: a normal of any covariance, or a density that offers its own ``points``.
        count: S, even; a mixture has so many for each component.
    """
    if isinstance(q, Pointed):
        return q.points(count)
    e = standard_points(math.prod(q.event_shape), count).to(q.mean)
    e = e.reshape(len(e), *(1 for _ in q.batch_shape), *q.event_shape)
    offset = (q.scale_tril @ e.unsqueeze(-1)).squeeze(-1) if isinstance(q, Factored) else q.stddev * e
    return q.mean + offset, q.mean.new_full((len(e), *q.batch_shape), 1 / len(e))


@lru_cache(maxsize=32)
def standard_points(columns: int, count: int) -> Tensor:
    """Points ``(count, columns)`` that stand for a standard normal, in float64: each column has mean 0 and variance 1."""
    uniform = torch.quasirandom.SobolEngine(columns, scramble=True, seed=0).draw(count // 2, dtype=torch.float64)
    e = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))
    e = e / e.square().mean(0).sqrt()
    return torch.stack([e, -e], 1).flatten(0, 1)


def unmixed(constraint: Any) -> Any:
    """A mixture's support is that of its components, to which bijections are registered."""
    if isinstance(constraint, constraints.MixtureSameFamilyConstraint):
        return unmixed(constraint.base_constraint)
    return constraint
