"""The logistic prior."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.priors.values import LocationScale, as_text

__all__ = ["Logistic"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logistic(LocationScale):
    """p(z) = prod_k e^(-u_k) / (scale_k (1 + e^(-u_k))^2), u_k = (z_k - loc_k) / scale_k.

    Smooth, with exponential tails; the base density of NICE (Dinh, Krueger and Bengio 2015) and of independent component
    analysis.

    Args:
        loc: mean, one for all dimensions or one each.
        scale: likewise; the standard deviation is pi / sqrt(3) times as large.

    Raises:
        ValueError: a loc that is not finite, a scale that is not positive; on building, a number of values that is not the
            number of dimensions.

    Examples:
        >>> Logistic().build((3,))().log_prob(torch.zeros(3)).exp()
        tensor(0.0156)
    """

    def family(self, loc: Tensor, scale: Tensor) -> Any:
        """Logistic(loc, scale)."""
        return OpenLogistic(loc, scale)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"Logistic({as_text(self.loc)}, {as_text(self.scale)})"


class OpenLogistic(dist.Logistic):
    """Pyro's, whose draws are finite even where the generator gives an exact zero."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws by the inverse distribution function."""
        uniform = self.loc.new_empty(self._extended_shape(sample_shape)).uniform_()
        info = torch.finfo(uniform.dtype)
        return self.icdf(uniform.clamp(info.tiny, 1 - info.eps))
