"""The discretized logistic likelihood and its mixture."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid, softplus

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import argument_of
from ppl_vae.likelihoods.categorical import Levels

__all__ = ["DiscretizedLogistic", "DiscretizedLogisticDistribution", "DiscretizedLogisticMixture"]

START = 0.25  # scale at features of zero; the levels together have width 2
FLOOR = 7.0  # the scale stays above exp(-7), a tenth of the width of a level of 8-bit images


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscretizedLogistic(Levels):
    """p(x | h) = prod_d sigmoid((u_d + w - loc_d) / s_d) - sigmoid((u_d - w - loc_d) / s_d), for x in {0, ..., levels - 1}^D.

    With ``u = 2 x / (levels - 1) - 1`` the levels lie in [-1, 1], ``w = 1 / (levels - 1)`` is half the distance of two; the
    bins of the first and the last level reach to infinity, so that the probabilities sum to one. (loc, log s) = h up to
    constants. Kingma et al. 2016, "Improved variational inference with inverse autoregressive flow".

    Args:
        levels: L, how many values an element can take; 256 for 8-bit images.

    Raises:
        ValueError: fewer than 2 levels; on checking, data of more.

    Examples:
        >>> DiscretizedLogistic().build((1,))(torch.zeros(2, 1)).mean
        tensor([127.5000])
    """

    @property
    def features(self) -> int:
        """The location of each element and its log-scale."""
        return 2

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., 2, *event_shape)`` to the distribution."""
        return DiscretizedLogisticModule(len(event_shape), self.levels)

    def story(self, features: str) -> str:
        """The density as text."""
        return f"DiscretizedLogistic(mu(z), s(z); {self.levels} levels), (mu, s)(z) = {features}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscretizedLogisticMixture(Levels):
    """p(x | h) = prod_d sum_c pi_dc DiscretizedLogistic(x_d; loc_dc, s_dc), pi = softmax of the first features.

    Salimans et al. 2017, "PixelCNN++", without its dependence of a pixel's colours on each other: given h the elements are
    independent. Features of zero spread the components evenly over the levels.

    Args:
        levels: L, how many values an element can take; 256 for 8-bit images.
        components: C, logistic distributions mixed for each element.

    Raises:
        ValueError: fewer than 2 levels or 1 component; on checking, data of more levels.

    Examples:
        >>> DiscretizedLogisticMixture(components=5).features
        15
    """

    components: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(isinstance(self.components, int) and self.components >= 1, "at least 1 component", self.components)

    @property
    def features(self) -> int:
        """Logit, location and log-scale of each component and element."""
        return 3 * self.components

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., 3 C, *event_shape)`` to the distribution."""
        return DiscretizedLogisticMixtureModule(len(event_shape), self.levels, self.components)

    def story(self, features: str) -> str:
        """The density as text."""
        z = argument_of(features)
        return (
            f"sum_c pi_c({z}) DiscretizedLogistic(mu_c({z}), s_c({z}); {self.levels} levels), c = 1..{self.components}, "
            f"(pi, mu, s)({z}) = {features}"
        )


class DiscretizedLogisticModule(nn.Module):
    """Locations and log-scales to the distribution of a datum."""

    def __init__(self, event_dim: int, levels: int) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.levels = levels

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        loc, raw = features.unbind(-1 - self.event_dim)
        return DiscretizedLogisticDistribution(loc, _log_scale(raw), self.levels).to_event(self.event_dim)


class DiscretizedLogisticMixtureModule(nn.Module):
    """Logits, locations and log-scales of the components to the distribution of a datum."""

    centers: Tensor

    def __init__(self, event_dim: int, levels: int, components: int) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.levels = levels
        self.components = components
        self.register_buffer("centers", (2 * torch.arange(components) + 1) / components - 1, persistent=False)

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        parameters = features.movedim(-1 - self.event_dim, -1).unflatten(-1, (3, self.components))
        logits, loc, raw = parameters.unbind(-2)  # each (..., *event, C)
        components = DiscretizedLogisticDistribution(loc + self.centers, _log_scale(raw), self.levels)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), components).to_event(self.event_dim)


def _log_scale(raw: Tensor) -> Tensor:
    return softplus(raw + math.log(START) + FLOOR) - FLOOR


class DiscretizedLogisticDistribution(dist.TorchDistribution):
    """A logistic distribution on [-1, 1] and beyond, rounded to the nearest of so many levels.

    Args:
        loc: location, where the levels go from -1 to 1.
        log_scale: logarithm of the logistic's scale in the same units.
        levels: L.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": dist.constraints.real, "log_scale": dist.constraints.real}

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int, validate_args: bool | None = None) -> None:
        self.loc, self.log_scale = broadcast_all(loc, log_scale)
        self.levels = levels
        self.half_width = 1 / (levels - 1)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> dist.constraints.Constraint:
        """The levels 0 to L - 1."""
        return dist.constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """E[x] = sum_k p(x >= k)."""
        return self._sum_of_tails(lambda k: 1)

    @property
    def variance(self) -> Tensor:
        """E[x^2] - E[x]^2, with E[x^2] = sum_k (2 k - 1) p(x >= k)."""
        return (self._sum_of_tails(lambda k: 2 * k - 1) - self.mean.square()).clamp_min(0)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogisticDistribution:
        """The same distribution with a larger batch shape."""
        loc, log_scale = self.loc.expand(batch_shape), self.log_scale.expand(batch_shape)
        return DiscretizedLogisticDistribution(loc, log_scale, self.levels, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of levels."""
        if self._validate_args:
            self._validate_sample(value)
        precision = (-self.log_scale).exp()
        centred = 2 * self.half_width * value - 1 - self.loc
        below = logsigmoid((centred + self.half_width) * precision)
        above = logsigmoid((self.half_width - centred) * precision)
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): no difference of nearly equal numbers.
        inside = below + above + torch.log(-torch.expm1(-2 * self.half_width * precision))
        return torch.where(value <= 0, below, torch.where(value >= self.levels - 1, above, inside))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of the logistic, rounded to the nearest level."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            eps = torch.finfo(u.dtype).tiny
            x = self.loc + self.log_scale.exp() * (u.clamp_min(eps).log() - torch.log1p(-u))
            return ((x + 1) / (2 * self.half_width)).round().clamp(0, self.levels - 1)

    def _sum_of_tails(self, weight: Any) -> Tensor:
        precision = (-self.log_scale).exp()
        total = torch.zeros_like(self.loc)
        for k in range(1, self.levels):  # level by level, so that memory does not grow with their number
            edge = (2 * k - 1) * self.half_width - 1
            total = total + weight(k) * torch.sigmoid((self.loc - edge) * precision)
        return total
