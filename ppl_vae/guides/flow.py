"""Normalizing flows as guides (Rezende and Mohamed 2015; Kingma et al. 2016).

    u_0 ~ q_0(u | x),  u_l = f_l(u_(l-1); h(x)),  z = u_L
    log q(z | x) = log q_0(u_0 | x) - sum_l log |det df_l/du_(l-1)|

The base q_0 is any guide of real coordinates; before training the maps f_l are nearly the identity.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Transform
from torch.distributions.transforms import ReshapeTransform

from ppl_vae.declaration import require
from ppl_vae.guides.amortized import RealGuide, encoder
from ppl_vae.guides.base import CONTINUOUS, Guide, Latent, check_latent
from ppl_vae.guides.coordinates import Pushforward
from ppl_vae.guides.normal import AmortizedNormal
from ppl_vae.nn import MLP, Network
from ppl_vae.nn.curves import Affine, RationalQuadraticSpline
from ppl_vae.nn.masked import MaskedNetwork, MaskedTransform, autoregressive, coupling
from ppl_vae.types import DataSpec

__all__ = ["AmortizedFlow"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedFlow(Guide):
    """q(z | x) = the density of f_L(... f_1(u; h(x)) ...; h(x)), u ~ q_0(u | x).

    Drawing z with its own log-density takes one pass of each layer's network. The log-density of another z is exact too: it
    takes as many passes as a layer has steps, K for ``iaf`` and ``spline``, 2 for ``coupling``. The posterior's ``mean`` is the
    mean over fixed points of the base.

    Args:
        base: q_0, a guide with a density of its own: a normal, linear or mixture one, or another flow.
        transform: f. ``iaf``, an inverse autoregressive affine flow (Kingma et al. 2016), the order of the dimensions turned
            around in each layer; ``coupling``, the affine coupling (Dinh et al. 2017), the halves taking turns; ``spline``, an
            autoregressive rational quadratic spline on [-5, 5] (Durkan et al. 2019).
        layers: L, the number of maps.
        hidden: widths of the hidden layers of each map's masked network.
        encoder: the network from x to the context h(x).
        context: dimensions of h(x).

    Raises:
        ValueError: an unknown transform, no layer, width or context; on building, a base without a density.

    Examples:
        >>> print(AmortizedFlow(layers=4))
        q(z | x) = iaf^4 of Normal(mu(x), diag(sigma(x)^2)), (mu, sigma)(x) = MLP(x), given MLP(x)
    """

    serves: ClassVar[frozenset[Latent]] = CONTINUOUS

    base: Guide = AmortizedNormal()
    transform: Literal["iaf", "coupling", "spline"] = "iaf"
    layers: int = 2
    hidden: tuple[int, ...] = (100,)
    encoder: Network = MLP()
    context: int = 50

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        require(self.transform in TRANSFORMS, f"a transform of {', '.join(TRANSFORMS)}", self.transform)
        require(self.layers >= 1, "at least 1 layer", self.layers)
        widths = bool(self.hidden) and all(isinstance(width, int) and width >= 1 for width in self.hidden)
        require(widths, "hidden widths of at least 1, one at least", self.hidden)
        require(self.context >= 1, "a context of at least 1 dimension", self.context)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the latent variable of ``model``.

        Raises:
            ValueError: the model's latent variable is discrete, or the base has no density of its real coordinates.
        """
        check_latent(self, model)
        base = self.base.build(model, spec)
        if not isinstance(base, RealGuide):
            raise ValueError(
                f"a flow needs a base whose density is known and learned by the guide, got {self.base!r}: use AmortizedNormal, "
                "AmortizedLinear or AmortizedMixture"
            )
        return FlowGuide(model, base, self, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        base = self.base.story().partition(" = ")[2]
        return f"q(z | x) = {self.transform}^{self.layers} of {base}, given {self.encoder.story('x')}"


class FlowGuide(RealGuide):
    """The base's density carried through ``layers``, each conditioned on the context."""

    base: Any
    encoder: Any
    layers: Any

    def __init__(self, model: Any, base: RealGuide, declared: AmortizedFlow, spec: DataSpec) -> None:
        super().__init__(model, spec)
        K = math.prod(self.coordinates.shape)
        levels, self.curve = TRANSFORMS[declared.transform]
        self.base = base
        self.encoder = encoder(declared.encoder, model, spec, (declared.context,))
        self.layers = nn.ModuleList(
            MaskedNetwork(levels(K, layer), declared.context, declared.hidden, self.curve.size)
            for layer in range(declared.layers)
        )
        self.foreign_passes = base.foreign_passes + sum(layer.levels for layer in self.layers)

    def unconstrained(self, *batch: Tensor) -> dist.Distribution:
        """The density of the flattened coordinates of z given x."""
        return self._carried(self.base.unconstrained(*batch), self.encoder(*batch))

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Those of the base, then the context h(x); the maps' networks are shared by all data."""
        return (*self.base.local(*batch), self.encoder(*batch))

    def density(self, *local: Tensor) -> dist.Distribution:
        """The density of the flattened coordinates."""
        return self._carried(self.base.density(*local[:-1]), local[-1])

    def _carried(self, q: dist.Distribution, context: Tensor) -> dist.Distribution:
        maps: list[Transform] = [MaskedTransform(layer, self.curve, context) for layer in self.layers]
        if len(q.event_shape) > 1:
            maps.insert(0, ReshapeTransform(q.event_shape, torch.Size([q.event_shape.numel()]), cache_size=1))
        return Pushforward(q, maps)


TRANSFORMS: dict[str, tuple[Callable[[int, int], Tensor], Any]] = {
    "iaf": (autoregressive, Affine()),
    "coupling": (coupling, Affine()),
    "spline": (autoregressive, RationalQuadraticSpline()),
}
