"""The projected normal prior on the sphere, by default uniform."""

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

__all__ = ["ProjectedNormal", "ProjectedNormalDistribution"]

SPACING = 0.25
NODES = (
    -40.0,
    8.0,
)  # standard deviations of the integrand around its mode; to the left it falls like a power of r


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectedNormal(Prior):
    """z = h / |h|, h ~ Normal(loc, I), on the unit sphere of R^K; uniform at loc = 0, its density taken per surface area.

    Uniform it is the prior of the hyperspherical VAE (Davidson et al. 2018). Unlike the von Mises-Fisher distribution it is
    drawn by reparameterization in any dimension (Hernandez-Stumpfhauser, Breidt and van der Woerd 2017).

    Args:
        loc: mean of h, one value for all dimensions or one each; the longer, the more concentrated.

    Raises:
        ValueError: a loc that is not finite; on building, a number of values that is not the number of dimensions, or fewer
            than two dimensions.

    Examples:
        >>> ProjectedNormal().build((2,))().log_prob(torch.tensor([0.0, 1.0])).exp()  # one over the circle's length
        tensor(0.1592)
    """

    support: ClassVar[Support] = "sphere"

    loc: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "loc", as_tuple(self.loc))
        require(all(map(math.isfinite, each(self.loc))), "a finite loc", self.loc)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, vectors along the last axis of length one."""
        require(bool(shape) and shape[-1] >= 2, "at least 2 dimensions for a sphere", shape)
        return Elementwise(ProjectedNormalDistribution, concentration=expanded("loc", self.loc, shape))

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return "Uniform(sphere)" if self.loc == 0 else f"ProjectedNormal({as_text(self.loc)}, I)"


class ProjectedNormalDistribution(dist.ProjectedNormal):
    """Pyro's, with its density in any dimension.

        p(z) = (2 pi)^(-K/2) exp((t^2 - |mu|^2) / 2) int_0^inf r^(K-1) exp(-(r - t)^2 / 2) dr,    t = mu . z

    The integral over the radius is taken by the trapezoidal rule in log r, which converges to machine precision.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of z ``(..., K)`` in nats per unit of surface area."""
        if self._validate_args:
            self._validate_sample(value)
        K = self.event_shape[0]
        t = (self.concentration * value).sum(-1)
        perpendicular = t.square() - self.concentration.square().sum(-1)
        return perpendicular / 2 - K / 2 * math.log(2 * math.pi) + _log_radial(t, K)


def _log_radial(t: Tensor, power: int) -> Tensor:
    """Log int_0^inf r^(power - 1) exp(-(r - t)^2 / 2) dr."""
    with torch.no_grad():  # where the nodes lie does not change the integral
        root = (t.square() + 4 * power).sqrt()
        mode = torch.where(t > 0, (root + t) / 2, 2 * power / (root + t.abs()))
        spread = (mode.square() + power).rsqrt()
        nodes = torch.arange(*NODES, SPACING, dtype=t.dtype, device=t.device)
        log_r = mode.log()[..., None] + spread[..., None] * nodes
    integrand = power * log_r - (log_r.exp() - t[..., None]).square() / 2
    return integrand.logsumexp(-1) + (SPACING * spread).log()
