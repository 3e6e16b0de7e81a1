"""The projected normal guide, for latent variables on the sphere.

q(z | x) = prod_n ProjectedNormal(z_n; mu(x_n)),   z = h / |h|,  h ~ Normal(mu(x), I)
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.guides.amortized import LatentGuide, encoder
from ppl_vae.guides.base import Guide, Latent, check_latent, lone_site
from ppl_vae.nn import MLP, Network
from ppl_vae.priors.projected_normal import ProjectedNormalDistribution
from ppl_vae.types import DataSpec

__all__ = ["AmortizedProjectedNormal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedProjectedNormal(Guide):
    """q(z | x) = the density of h / |h|, h ~ Normal(mu(x), I): the longer mu(x), the more concentrated.

    Exact in any dimension and drawn by reparameterization, unlike the von Mises-Fisher guide of Davidson et al. (2018). The
    posterior's ``mean`` is its direction mu / |mu|, which lies on the sphere.

    Args:
        encoder: the network from x to mu.

    Examples:
        >>> print(AmortizedProjectedNormal())
        q(z | x) = ProjectedNormal(mu(x), I), mu(x) = MLP(x)
    """

    serves: ClassVar[frozenset[Latent]] = frozenset({"sphere"})

    encoder: Network = MLP()

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the latent variable of ``model``.

        Raises:
            ValueError: the model's latent variable is not on a sphere.
        """
        check_latent(self, model)
        return ProjectedNormalGuide(model, self, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        return f"q(z | x) = ProjectedNormal(mu(x), I), mu(x) = {self.encoder.story('x')}"


class ProjectedNormalGuide(LatentGuide):
    """The encoder gives mu, along the last axis."""

    encoder: Any

    def __init__(self, model: Any, declared: AmortizedProjectedNormal, spec: DataSpec) -> None:
        site = lone_site(model)
        super().__init__(spec, site.name)
        shape = site.event_shape
        self.leading = len(shape) - 1
        self.encoder = encoder(declared.encoder, model, spec, shape)

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Mu."""
        return (self.encoder(*batch),)

    def at(self, *local: Tensor) -> dist.Distribution:
        """The density with this mu, on the sphere."""
        return ProjectedNormalDistribution(*local).to_event(self.leading)
