"""The fixed mixture of Gaussians on a regular grid."""

from __future__ import annotations

import dataclasses
import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior
from ppl_vae.priors.mixture import Mixture

__all__ = ["GaussianGrid"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianGrid(Prior):
    """p(z) = P^-K sum_c Normal(z; g_c, scale^2 I) over the P^K points g_c of a regular grid, none of it learned.

    A sum over a grid is a product over its axes, prod_k (1/P) sum_p Normal(z_k; g_p, scale^2), so the P^K components cost K P.

    Args:
        points: P, grid points along each dimension, evenly from -extent to extent.
        extent: the largest coordinate of a grid point.
        scale: standard deviation of a component.

    Raises:
        ValueError: fewer than two points, an extent or a scale that is not positive.

    Examples:
        >>> GaussianGrid(points=2, extent=1.0).build((8,))().mean.abs().max()
        tensor(0.)
    """

    points: int = 5
    extent: float = 2.0
    scale: float = 0.25

    def __post_init__(self) -> None:
        require(self.points >= 2, "at least 2 points", self.points)
        require(0 < self.extent < math.inf, "a positive extent", self.extent)
        require(0 < self.scale < math.inf, "a positive scale", self.scale)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``."""
        grid = torch.linspace(-self.extent, self.extent, self.points)
        return GaussianGridModule(grid.expand(*shape, -1).clone(), self.scale)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"{self.points}^-K sum_c Normal(g_c, {self.scale:g}^2 I), g_c on a grid up to {self.extent:g}"


class GaussianGridModule(nn.Module):
    """The buffer ``loc (*shape, P)`` holds the grid of each dimension."""

    loc: Tensor

    def __init__(self, loc: Tensor, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("loc", loc, persistent=False)

    def forward(self) -> dist.Distribution:
        """p(z)."""
        weights = dist.Categorical(logits=torch.zeros_like(self.loc))
        return Mixture(weights, dist.Normal(self.loc, self.scale)).to_event(self.loc.dim() - 1)
