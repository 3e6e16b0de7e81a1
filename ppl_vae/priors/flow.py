"""Normalizing-flow priors.

    u ~ Normal(0, I),  u = f_1(... f_L(z)),  log p(z) = log Normal(u; 0, I) + sum_l log |det df_l|

Each f_l is a masked map (:mod:`ppl_vae.nn.masked`) from the latent variable towards noise, so a density takes one pass of each
layer's network, and a draw as many as the map has levels. Before training the f_l are nearly the identity.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.transforms import ReshapeTransform

from ppl_vae.declaration import require
from ppl_vae.nn.curves import Affine, Composed, RationalQuadraticSpline
from ppl_vae.nn.masked import MaskedNetwork, MaskedTransform, autoregressive, coupling
from ppl_vae.priors.base import Prior

__all__ = ["AutoregressiveFlow", "CouplingFlow", "Flow", "SplineFlow"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow(Prior, abc.ABC):
    """A standard normal carried through learned invertible maps.

    Args:
        layers: L, the number of maps.
        hidden: widths of the hidden layers of each map's masked network.
    """

    layers: int = 4
    hidden: tuple[int, ...] = (100,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        require(self.layers >= 1, "at least 1 layer", self.layers)
        widths = bool(self.hidden) and all(isinstance(width, int) and width >= 1 for width in self.hidden)
        require(widths, "hidden widths of at least 1, one at least", self.hidden)

    @property
    def curve(self) -> Any:
        """The increasing function of one dimension whose parameters the networks give: a shift and a scale."""
        return Affine()

    @staticmethod
    @abc.abstractmethod
    def levels(columns: int, layer: int) -> Tensor:
        """Which dimensions a layer's dimensions depend on: those of lower levels."""

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``."""
        levels = [self.levels(math.prod(shape), layer) for layer in range(self.layers)]
        return FlowModule(shape, self.curve, [MaskedNetwork(level, 0, self.hidden, self.curve.size) for level in levels])

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"{type(self).__name__}^{self.layers}(Normal(0, {f'I_{math.prod(shape)}' if shape else 'I'}))"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CouplingFlow(Flow):
    """Affine couplings: one half of z shifts and scales the other, the halves taking turns (RealNVP, Dinh et al. 2017).

    Draws and densities both take few passes of the networks.

    Args:
        layers: L, the number of maps; at least two, so that every dimension depends on others.
        hidden: widths of the hidden layers of each map's network.

    Raises:
        ValueError: no layer, or no hidden width.

    Examples:
        >>> CouplingFlow().build((8,))().log_prob(torch.zeros(3, 8)).shape
        torch.Size([3])
    """

    levels = staticmethod(coupling)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoregressiveFlow(Flow):
    """Masked autoregressive flow: each dimension is shifted and scaled given all before it (Papamakarios et al. 2017).

    The order turns around from layer to layer. Densities take one pass, draws as many as there are dimensions.

    Args:
        layers: L, the number of maps.
        hidden: widths of the hidden layers of each map's masked network (MADE).

    Raises:
        ValueError: no layer, or no hidden width.

    Examples:
        >>> AutoregressiveFlow().build((8,))().sample((5,)).shape
        torch.Size([5, 8])
    """

    levels = staticmethod(autoregressive)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplineFlow(Flow):
    """Neural spline flow: couplings through monotone rational quadratic splines (Durkan et al. 2019).

    A shift and a scale go before each spline, which is the identity outside [-bound, bound]; the density's tails are normal.

    Args:
        layers: L, the number of maps; at least two, so that every dimension depends on others.
        hidden: widths of the hidden layers of each map's network.
        bins: pieces of a spline.
        bound: half the width of the box in which splines bend.

    Raises:
        ValueError: no layer, no hidden width, fewer than two or more than a hundred bins, a bound that is not positive.

    Examples:
        >>> SplineFlow(bins=4).build((8,))().log_prob(torch.zeros(3, 8)).shape
        torch.Size([3])
    """

    levels = staticmethod(coupling)

    bins: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.bins <= 100, "2 to 100 bins", self.bins)
        require(0 < self.bound < math.inf, "a positive bound", self.bound)

    @property
    def curve(self) -> Any:
        """A shift, a scale and a spline."""
        return Composed(Affine(), RationalQuadraticSpline(self.bins, self.bound))


class FlowModule(nn.Module):
    """The networks of the maps in ``networks``; a call makes the maps anew, so no cache outlives a training step."""

    loc: Tensor
    networks: Any

    def __init__(self, shape: tuple[int, ...], curve: Any, networks: list[MaskedNetwork]) -> None:
        super().__init__()
        self.shape = torch.Size(shape)
        self.curve = curve
        self.networks = nn.ModuleList(networks)
        self.register_buffer("loc", torch.zeros(math.prod(shape)), persistent=False)

    def forward(self) -> dist.Distribution:
        """p(z)."""
        base = dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
        maps: list[Any] = [MaskedTransform(network, self.curve).inv for network in self.networks]
        return dist.TransformedDistribution(base, [*maps, ReshapeTransform(self.loc.shape, self.shape, cache_size=1)])
