"""The normal prior with independent dimensions, its moments given or learned."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.priors.values import LocationScale, as_text, expanded

__all__ = ["Normal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normal(LocationScale):
    """p(z) = Normal(z; loc, diag(scale^2)), the moments given, or learned from there.

    Args:
        loc: mean, one for all dimensions or one each.
        scale: standard deviation, likewise.
        learned: whether both are parameters of each dimension, which start at these values.

    Raises:
        ValueError: a loc that is not finite, a scale that is not positive; on building, a number of values that is not the
            number of dimensions.

    Examples:
        >>> Normal(loc=(0.0, 1.0), scale=2.0).build((2,))().mean
        tensor([0., 1.])
    """

    learned: bool = False

    def family(self, loc: Tensor, scale: Tensor) -> Any:
        """Normal(loc, scale^2)."""
        return dist.Normal(loc, scale)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``."""
        module = LearnedNormalModule if self.learned else NormalModule
        return module(expanded("loc", self.loc, shape), expanded("scale", self.scale, shape))

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        if self.learned:
            return "Normal(mu0, diag(sigma0^2)), learned"
        if not shape:
            return f"Normal({as_text(self.loc)}, {as_text(self.scale)}^2)"
        return f"Normal({as_text(self.loc)}, diag({as_text(self.scale)}^2)), K = {math.prod(shape)}"


class NormalModule(nn.Module):
    """Its moments are buffers, so they follow ``.to(device)``."""

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("loc", loc, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self) -> dist.Distribution:
        """p(z)."""
        return dist.Normal(self.loc, self.scale).to_event(self.loc.dim())


class LearnedNormalModule(nn.Module):
    """Parameters ``loc`` and ``log_scale``, both of the latent shape."""

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.loc = nn.Parameter(loc)
        self.log_scale = nn.Parameter(scale.log())

    def forward(self) -> dist.Distribution:
        """p(z)."""
        return dist.Normal(self.loc, self.log_scale.exp()).to_event(self.loc.dim())
