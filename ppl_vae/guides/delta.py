"""A point in place of a posterior.

q(z | x) = prod_n delta(z_n - mu(x_n))
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.guides.amortized import LatentGuide, encoder
from ppl_vae.guides.base import CONTINUOUS, Guide, Latent, check_latent
from ppl_vae.guides.coordinates import Coordinates
from ppl_vae.nn import MLP, Network
from ppl_vae.types import DataSpec

__all__ = ["AmortizedDelta"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedDelta(Guide):
    """q(z | x) = delta(z - mu(x)), the point given by an encoder network.

    The objective is then log p(x, mu(x)), whose maximum is MAP; without KL it is the deterministic autoencoder's
    log p(x | mu(x)). Neither is a bound on log p(x), for a point has no entropy, and neither is reported as one.

    Args:
        encoder: the network from x to the point, or to its real coordinates where the prior does not live on the real numbers.

    Examples:
        >>> print(AmortizedDelta())
        q(z | x) = delta(z - mu(x)), mu(x) = MLP(x)
    """

    serves: ClassVar[frozenset[Latent]] = CONTINUOUS | {"code"}
    makes_priors: ClassVar[bool] = False  # of points, which have no density

    encoder: Network = MLP()

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the latent variable of ``model``.

        Raises:
            ValueError: the model's latent variable is discrete, or its prior is made of the guide's posteriors.
        """
        check_latent(self, model)
        return DeltaGuide(model, self, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        return f"q(z | x) = delta(z - mu(x)), mu(x) = {self.encoder.story('x')}"


class DeltaGuide(LatentGuide):
    """The encoder gives the point's coordinates."""

    point = True
    score = "log_joint"
    encoder: Any

    def __init__(self, model: Any, declared: AmortizedDelta, spec: DataSpec) -> None:
        coordinates = Coordinates(model)
        super().__init__(spec, coordinates.site.name)
        self.coordinates = coordinates
        self.event_dim = len(coordinates.site.event_shape)
        self.encoder = encoder(declared.encoder, model, spec, self.coordinates.shape)

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The encoder's output."""
        return (self.encoder(*batch),)

    def at(self, *local: Tensor) -> dist.Distribution:
        """The point as a distribution, without a Jacobian: MAP is in z's own coordinates."""
        return dist.Delta(self.coordinates.constrain(*local), event_dim=self.event_dim)
