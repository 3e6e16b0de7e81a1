"""Bounds from several samples of a datum, weighed by their importance w_s = p(x, z_s) / q(z_s | x).

L_alpha = E[1 / (1 - alpha) log 1/S sum_s w_s^(1 - alpha)],    alpha = 0: IWAE,    alpha -> 1: ELBO
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

from torch import nn

from ppl_vae.declaration import require
from ppl_vae.inference.objectives.base import Objective
from ppl_vae.inference.objectives.importance_bound import ImportanceBound
from ppl_vae.program.pair import Pair

__all__ = ["IWAE", "Renyi"]

Gradient = Literal["pathwise", "sticking_the_landing", "doubly_reparameterized"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class IWAE(Objective):
    """E[log 1/S sum_s p(x, z_s) / q(z_s | x)], the importance-weighted bound (Burda, Grosse and Salakhutdinov 2016).

    It lies between the ELBO (S = 1) and log p(x), and rises with S. Draws that are not reparameterized go by the score function
    with the bound of the other samples as baseline (VIMCO, Mnih and Rezende 2016).

    Args:
        samples: S, samples of the latent variables per datum and step.
        gradient: of the guide: ``pathwise``, that of the bound; ``doubly_reparameterized`` (DReG, Tucker et al. 2019), of the
            same mean, whose signal does not drown in noise as S grows; ``sticking_the_landing`` (Roeder et al. 2017), which
            leaves out the score of q: no noise where q is the posterior, but for S > 1 another mean.

    Raises:
        ValueError: fewer than one sample, an unknown gradient; when first called, latent variables that do not belong to a
            datum, or draws that are not reparameterized where the gradient needs it.

    Examples:
        >>> IWAE(samples=50, gradient="doubly_reparameterized").samples
        50
    """

    samples: int = 5
    gradient: Gradient = "pathwise"

    def __post_init__(self) -> None:
        require(self.samples >= 1, "at least 1 sample", self.samples)
        require(self.gradient in get_args(Gradient), f"a gradient of {', '.join(get_args(Gradient))}", self.gradient)

    @property
    def draws(self) -> int:
        """The samples."""
        return self.samples

    @property
    def takes_weights(self) -> bool:
        """Each datum's own terms count by its weight."""
        return True

    @property
    def adds_up(self) -> bool:
        """Each datum has a bound of its own."""
        return True

    def build(self, pair: Pair, steps_per_epoch: int = 1) -> nn.Module:
        """The bound of a pair as a module."""
        return ImportanceBound(pair, self.samples, alpha=0.0, gradient=self.gradient)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Renyi(Objective):
    """E[1 / (1 - alpha) log 1/S sum_s (p(x, z_s) / q(z_s | x))^(1 - alpha)], the variational Renyi bound (Li and Turner 2016).

    It falls with alpha: alpha = 0 is IWAE, alpha -> 1 the ELBO, larger ones lie below the ELBO. Below 0 it is no lower bound on
    log p(x).

    Args:
        alpha: the order; towards minus infinity only the best sample counts.
        samples: S, samples of the latent variables per datum and step.
        gradient: of the guide, as for :class:`IWAE`.

    Raises:
        ValueError: an infinite order, fewer than one sample, an unknown gradient; when first called, as for :class:`IWAE`.

    Examples:
        >>> Renyi(alpha=0.5, samples=10).alpha
        0.5
    """

    alpha: float = 0.5
    samples: int = 5
    gradient: Gradient = "pathwise"

    def __post_init__(self) -> None:
        require(math.isfinite(self.alpha), "a finite alpha", self.alpha)
        require(self.samples >= 1, "at least 1 sample", self.samples)
        require(self.gradient in get_args(Gradient), f"a gradient of {', '.join(get_args(Gradient))}", self.gradient)

    @property
    def draws(self) -> int:
        """The samples."""
        return self.samples

    @property
    def takes_weights(self) -> bool:
        """Each datum's own terms count by its weight."""
        return True

    @property
    def adds_up(self) -> bool:
        """Each datum has a bound of its own."""
        return True

    def build(self, pair: Pair, steps_per_epoch: int = 1) -> nn.Module:
        """The bound of a pair as a module."""
        return ImportanceBound(pair, self.samples, alpha=self.alpha, gradient=self.gradient)
