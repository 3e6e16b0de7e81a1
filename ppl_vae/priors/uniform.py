"""The uniform prior on a box."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior, Support
from ppl_vae.priors.values import Elementwise, as_text, as_tuple, each, expanded

__all__ = ["Uniform"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform(Prior):
    """p(z) = prod_k 1 / (high_k - low_k) on the box between ``low`` and ``high``, its faces included.

    Args:
        low: lower bound, one for all dimensions or one each.
        high: upper bound, likewise.

    Raises:
        ValueError: bounds that are not finite; on building, bounds out of order, or a number of values that is not the number
            of dimensions.

    Examples:
        >>> Uniform(low=0.0, high=2.0).build((3,))().log_prob(torch.ones(3)).exp()
        tensor(0.1250)
    """

    support: ClassVar[Support] = "interval"

    low: float | tuple[float, ...] = -1.0
    high: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, as_tuple(getattr(self, name)))
            bound = getattr(self, name)
            require(all(map(math.isfinite, each(bound))), f"a finite {name}", bound)
        single = not isinstance(self.low, tuple) and not isinstance(self.high, tuple)
        require(not single or self.low < self.high, "a low below high", (self.low, self.high))  # type: ignore[operator]

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, elements independent."""
        low, high = expanded("low", self.low, shape), expanded("high", self.high, shape)
        require(bool((low < high).all()), "every low below its high", (self.low, self.high))
        return Elementwise(ClosedUniform, low=low, high=high)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"Uniform({as_text(self.low)}, {as_text(self.high)})"


class ClosedUniform(dist.Uniform):
    """Torch's, with density at the upper bound too: a guide's bounded coordinate may round to it."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats, minus infinity outside the box."""
        if self._validate_args:
            self._validate_sample(value)
        inside = (self.low <= value) & (value <= self.high)
        return torch.where(inside, -(self.high - self.low).log(), -math.inf)
