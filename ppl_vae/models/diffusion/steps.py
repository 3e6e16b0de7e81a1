"""The algebra of a diffusion's steps, in terms of gamma = -log(alpha^2 / sigma^2) (Kingma et al. 2021).

For s < t and a denoised x' the step back is, with c = 1 - exp(gamma_s - gamma_t),

    z_s = (alpha_t / alpha_s) (sigma_s^2 / sigma_t^2) z_t + alpha_s c u,     u ~ Normal(x', 1 / (SNR_s - SNR_t))

so that q(z_s | z_t, x) is u around x, and p(z_s | z_t) u around what the denoiser gives. The KL of z_s is that of u, and
computed there: its means are of the order of the data, however small the noise.

T steps of 1 / T each have in the limit the sum of T KL at times t of

    u ~ Normal(x', 1 / -SNR'(t)),   KL = -SNR'(t) ||x - x'||^2 / 2 = gamma'(t) ||epsilon - epsilon'||^2 / 2
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions import register_kl
from torch.nn.functional import logsigmoid

__all__ = ["AT_ONCE", "Instant", "SpreadTimes", "Step", "alpha", "over", "sigma"]

AT_ONCE = 2**20  # elements of noisy data that are denoised together


def alpha(gamma: Tensor) -> Tensor:
    """How much of the data is left."""
    return torch.sigmoid(-gamma).sqrt()


def sigma(gamma: Tensor) -> Tensor:
    """The standard deviation of the noise."""
    return torch.sigmoid(gamma).sqrt()


def over(values: Tensor, event_dim: int) -> Tensor:
    """Values ``(...)`` as ``(..., 1, ..., 1)``, one for all elements of a datum."""
    return values.reshape(*values.shape, *(1,) * event_dim)


class Step(NamedTuple):
    """From t back to s < t.

    Attributes:
        gamma_s: at the end of the step ``(...)``.
        gamma_t: at its start ``(...)``.
    """

    gamma_s: Tensor
    gamma_t: Tensor

    @property
    def share(self) -> Tensor:
        """c, from 0 to 1."""
        return -torch.expm1(self.gamma_s - self.gamma_t)

    @property
    def scale(self) -> Tensor:
        """The standard deviation of u under q, ``(SNR_s - SNR_t)^(-1/2)``."""
        return (torch.exp(-self.gamma_s) * self.share).rsqrt()

    @property
    def log_ratio(self) -> Tensor:
        """The logarithm of sigma_t / sigma_s, by which the larger of the two usual scales of p exceeds that of q."""
        return (logsigmoid(self.gamma_t) - logsigmoid(self.gamma_s)) / 2

    def back(self, z: Tensor, u: Tensor, event_dim: int) -> Tensor:
        """z_s at z_t and u, all ``(..., *event)``."""
        log_kept = (logsigmoid(-self.gamma_t) - logsigmoid(-self.gamma_s)) / 2 - 2 * self.log_ratio
        return over(log_kept.exp(), event_dim) * z + over(alpha(self.gamma_s) * self.share, event_dim) * u


class Instant(NamedTuple):
    """A time at which there are steps without end, each without length.

    Attributes:
        gamma_t: there ``(...)``.
        rate: gamma'(t) ``(...)``.
    """

    gamma_t: Tensor
    rate: Tensor

    @property
    def scale(self) -> Tensor:
        """Of u, such that its KL is what a unit of time at t costs, ``(-SNR'(t))^(-1/2)``."""
        return (self.rate * torch.exp(-self.gamma_t)).rsqrt()

    @property
    def log_ratio(self) -> Tensor:
        """The two usual scales of p are one."""
        return torch.zeros_like(self.gamma_t)


class SpreadTimes(TorchDistribution):
    """Times uniform on (0, 1), spread evenly over a batch: t_n = (u + n / B) mod 1, u ~ Uniform(0, 1) (Kingma et al. 2021).

    Each is uniform by itself, which is all that an average over the data hangs on; together they lie at equal distances, which
    takes most of the noise out of it.

    Args:
        like: a tensor of the device and dtype of the draws.
        shape: of the batch.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.unit_interval
    has_rsample = True  # there is nothing that a gradient could be of

    def __init__(self, like: Tensor, shape: Any = (), validate_args: bool | None = None) -> None:
        self.like = like
        super().__init__(torch.Size(shape), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> SpreadTimes:
        """The same distribution with a larger batch shape."""
        return SpreadTimes(self.like, batch_shape, validate_args=self._validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch_shape)``."""
        shape = torch.Size(sample_shape) + self.batch_shape
        places = torch.arange(shape.numel(), device=self.like.device, dtype=self.like.dtype).reshape(shape)
        first = torch.rand((), device=self.like.device, dtype=self.like.dtype)
        return (first + places / max(1, shape.numel())) % 1

    def log_prob(self, value: Tensor) -> Tensor:
        """Of each time alone, zero."""
        return torch.zeros_like(value)


@register_kl(SpreadTimes, SpreadTimes)
def _same(p: SpreadTimes, q: SpreadTimes) -> Tensor:
    return p.like.new_zeros(p.batch_shape)
