"""The normal prior with given moments."""

from __future__ import annotations

import dataclasses
import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior

__all__ = ["Normal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normal(Prior):
    """p(z) = Normal(z; loc, diag(scale^2)), neither of them learned.

    Args:
        loc: mean, one for all dimensions or one each.
        scale: standard deviation, one for all dimensions or one each.

    Raises:
        ValueError: a scale that is not positive; on building, a number of values that is not the number of dimensions.

    Example:
        >>> Normal(loc=(0.0, 1.0), scale=2.0).build((2,))().mean
        tensor([0., 1.])
    """

    loc: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        scales = self.scale if isinstance(self.scale, (tuple, list)) else (self.scale,)
        require(all(0 < scale < math.inf for scale in scales), "positive scales", self.scale)
        for name in ("loc", "scale"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``."""
        return NormalModule(_moment("loc", self.loc, shape), _moment("scale", self.scale, shape))

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        if not shape:
            return f"Normal({_text(self.loc)}, {_text(self.scale)}^2)"
        return f"Normal({_text(self.loc)}, diag({_text(self.scale)}^2)), K = {math.prod(shape)}"


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


def _moment(name: str, value: float | tuple[float, ...], shape: tuple[int, ...]) -> Tensor:
    if isinstance(value, tuple) and len(value) != math.prod(shape):
        raise ValueError(f"expected one {name} or {math.prod(shape)}, one for each latent dimension, got {len(value)}")
    return torch.as_tensor(value, dtype=torch.get_default_dtype()).expand(math.prod(shape)).reshape(shape).clone()


def _text(value: float | tuple[float, ...]) -> str:
    return f"({', '.join(f'{v:g}' for v in value)})" if isinstance(value, tuple) else f"{value:g}"
