"""The learned mixture of Gaussians as a prior."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior
from ppl_vae.priors.mixture import Mixture

__all__ = ["GaussianMixture"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianMixture(Prior):
    """p(z) = sum_c pi_c Normal(z; mu_c, diag(sigma_c^2)), all of it learned.

    Dilokthanakul et al. (2016); compared with other priors by Tomczak and Welling (2018).

    Args:
        components: number of Gaussians C.
        spread: standard deviation of the centres mu_c before training; they must differ for the components to part.

    Raises:
        ValueError: fewer than one component, or a spread that is not positive.

    Examples:
        >>> prior = GaussianMixture(components=5).build((8,))
        >>> prior().log_prob(torch.zeros(3, 8)).shape
        torch.Size([3])
    """

    categorical: ClassVar[bool] = True

    components: int = 10
    spread: float = 1.0

    def __post_init__(self) -> None:
        require(self.components >= 1, "at least 1 component", self.components)
        require(self.spread > 0, "a positive spread", self.spread)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``."""
        return GaussianMixtureModule(self.components, shape, self.spread)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"sum_c pi_c Normal(mu_c, diag(sigma_c^2)), c = 1..{self.components}"


class GaussianMixtureModule(nn.Module):
    """Parameters ``logits (C,)``, ``loc (C, *shape)`` and ``log_scale (C, *shape)``."""

    def __init__(self, components: int, shape: tuple[int, ...], spread: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(spread * torch.randn(components, *shape))
        self.log_scale = nn.Parameter(torch.zeros(components, *shape))

    def forward(self) -> dist.Distribution:
        """p(z)."""
        components = dist.Normal(self.loc, self.log_scale.exp()).to_event(self.loc.dim() - 1)
        return Mixture(dist.Categorical(logits=self.logits), components)
