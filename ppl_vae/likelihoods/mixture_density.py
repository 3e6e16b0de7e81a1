"""The likelihood of mixture density networks."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.likelihoods.scales import LEAST, check_scale
from ppl_vae.types import BINARY, COUNT, REAL, UNIT_INTERVAL, Kind

__all__ = ["MixtureDensity"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureDensity(Likelihood):
    """p(x | h) = prod_d sum_c pi_c(h) Normal(x_d; m_c(h), s_c(h)^2), a mixture of normals for each element.

    Bishop 1994, "Mixture density networks": densities of several peaks, or skewed. Features of zero spread the components over
    the quantiles of a standard normal distribution, so that no two of them begin alike.

    Args:
        components: C, normal distributions mixed for each element.
        value: where the standard deviations start, in the units of the data the model sees.
        floor: they stay above it: the density at a value that is repeated has no upper bound otherwise.

    Raises:
        ValueError: fewer than one component, a value or floor that is not positive, a value below the floor.

    Examples:
        >>> MixtureDensity(components=2, value=1.0).build((1,))(torch.zeros(6, 1)).mean.round()
        tensor([0.])
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({BINARY, UNIT_INTERVAL, REAL, COUNT})

    components: int = 5
    value: float = 0.5
    floor: float = 1e-3

    def __post_init__(self) -> None:
        require(isinstance(self.components, int) and self.components >= 1, "at least 1 component", self.components)
        check_scale("scale", "amortized", self.value, self.floor)

    @property
    def features(self) -> int:
        """Logit, mean and scale of each component and element."""
        return 3 * self.components

    @property
    def unit_free(self) -> bool:
        """Its means and standard deviations are learned."""
        return True

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., 3 C, *event_shape)`` to the distribution."""
        return MixtureDensityModule(len(event_shape), self)

    def story(self, features: str) -> str:
        """The density as text."""
        return f"sum_c pi_c(z) Normal(m_c(z), s_c(z)^2), c = 1..{self.components}, (pi, m, s)(z) = {features}"


class MixtureDensityModule(nn.Module):
    """Logits, means and scales of the components to the distribution of a datum."""

    centers: Tensor

    def __init__(self, event_dim: int, declared: MixtureDensity) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.components = declared.components
        self.floor = declared.floor
        self.shift = declared.value - declared.floor + math.log(-math.expm1(declared.floor - declared.value))
        shares = (2 * torch.arange(declared.components, dtype=torch.float64) + 1) / (2 * declared.components)
        self.register_buffer("centers", torch.special.ndtri(shares).float(), persistent=False)

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        parameters = features.movedim(-1 - self.event_dim, -1).unflatten(-1, (3, self.components))
        logits, mean, raw = parameters.unbind(-2)  # each (..., *event, C)
        scale = (softplus(raw + self.shift) + self.floor).clamp_min(LEAST)
        components = dist.Normal(mean + self.centers, scale)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), components).to_event(self.event_dim)
