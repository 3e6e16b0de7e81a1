"""The Laplace prior."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyro.distributions as dist
from torch import Tensor

from ppl_vae.priors.values import LocationScale, as_text

__all__ = ["LaplacePrior"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaplacePrior(LocationScale):
    """p(z) = prod_k exp(-|z_k - loc_k| / scale_k) / (2 scale_k), which favours codes with many small entries.

    Sparse coding: Olshausen and Field (1996); in a VAE: Barello, Charles and Pillow (2018).

    Args:
        loc: median, one for all dimensions or one each.
        scale: mean distance from it, likewise; the standard deviation is sqrt(2) times as large.

    Raises:
        ValueError: a loc that is not finite, a scale that is not positive; on building, a number of values that is not the
            number of dimensions.

    Examples:
        >>> LaplacePrior(scale=2.0).build((3,))().variance
        tensor([8., 8., 8.])
    """

    def family(self, loc: Tensor, scale: Tensor) -> Any:
        """Laplace(loc, scale)."""
        return dist.Laplace(loc, scale)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"Laplace({as_text(self.loc)}, {as_text(self.scale)})"
