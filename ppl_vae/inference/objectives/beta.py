"""The ELBO with a weighed KL: beta, capacity, warm-up and free bits.

E_q[log p(x | z)] - beta KL(q(z | x) || p(z))
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.inference.objectives.base import Objective
from ppl_vae.inference.objectives.pyro_elbo import WeighedELBO
from ppl_vae.inference.objectives.warm_up import NoWarmUp, WarmUp
from ppl_vae.program.pair import Pair

__all__ = ["BetaELBO"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BetaELBO(Objective):
    """E_q[log p(x | z)] - beta w(t) KL, the beta-VAE's (Higgins et al. 2017), w(t) the warm-up.

    With a capacity C the KL is drawn to a target instead of to zero (Burgess et al. 2018):
    E_q[log p(x | z)] - beta |KL - w(t) C|. With free bits the KL of a latent site counts as at least so much (Kingma et al.
    2016): KL = sum_j max(free_bits, mean_n KL_nj), j the latent sites of a datum, not their dimensions, and the mean that over
    the data of the batch.

    A bound on log p(x) only where it is no larger than the ELBO. The KL of parameters with a prior keeps its weight of 1.

    Args:
        beta: the weight of the KL.
        warm_up: how the weight, or with a capacity the target, rises from zero at the start of training.
        capacity: C in nats per datum.
        free_bits: in nats per datum and latent site.
        particles: S, samples of the latent variables per datum and step.
        kl: ``analytic`` where a closed form exists (less noise), or ``sampled``.

    Raises:
        ValueError: a number out of range, or an unknown kind of KL.

    Example:
        >>> BetaELBO(beta=4.0, warm_up=LinearWarmUp(epochs=5)).ramp
        5
    """

    beta: float = 1.0
    warm_up: WarmUp = NoWarmUp()
    capacity: float | None = None
    free_bits: float = 0.0
    particles: int = 1
    kl: Literal["analytic", "sampled"] = "analytic"

    def __post_init__(self) -> None:
        require(0 <= self.beta < math.inf, "a beta of at least 0", self.beta)
        require(self.capacity is None or 0 <= self.capacity < math.inf, "a capacity of at least 0", self.capacity)
        require(0 <= self.free_bits < math.inf, "free_bits of at least 0", self.free_bits)
        require(self.particles >= 1, "at least 1 particle", self.particles)
        require(self.kl in ("analytic", "sampled"), "a kl that is analytic or sampled", self.kl)

    @property
    def ramp(self) -> float:
        """The length of the warm-up."""
        return self.warm_up.length

    @property
    def draws(self) -> int:
        """The particles."""
        return self.particles

    @property
    def heavy_kl(self) -> tuple[str, str] | None:
        """A beta above 1 without a capacity."""
        if self.beta <= 1 or self.capacity is not None:
            return None
        return f"beta = {self.beta:g} weighs the KL above the ELBO", "lower it, or give it a capacity"

    @property
    def takes_weights(self) -> bool:
        """Each datum's own terms count by its weight."""
        return True

    def build(self, pair: Pair, steps_per_epoch: int = 1) -> nn.Module:
        """The weighed ELBO of a pair as a module."""
        analytic = self.kl == "analytic" and pair.mean_field
        return WeighedELBO(pair, self.particles, analytic=analytic, weigh=KLWeights(self, steps_per_epoch))


class KLWeights(nn.Module):
    """From the KL of each site to its weight: beta |sum_j max(free_bits, KL_j) - C| = sum_j w_j KL_j + offset.

    ``steps`` counts the calls in training mode.
    """

    steps: Tensor

    def __init__(self, declared: BetaELBO, steps_per_epoch: int) -> None:
        super().__init__()
        self.declared = declared
        self.steps_per_epoch = steps_per_epoch
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, kl: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``(J,)`` and the offset, for KL ``(J,)`` in nats per datum."""
        factor = self.declared.warm_up.factor(self.steps.to(kl.dtype) / self.steps_per_epoch)
        if self.training:
            self.steps += 1
        free = kl < self.declared.free_bits if self.declared.free_bits else torch.zeros_like(kl, dtype=torch.bool)
        counted = torch.where(free, self.declared.free_bits, kl).sum()
        if self.declared.capacity is None:
            weight, target = self.declared.beta * factor, torch.zeros_like(factor)
        else:
            target = self.declared.capacity * factor
            weight = self.declared.beta * torch.where(counted < target, -1.0, 1.0).to(kl.dtype)
        offset = torch.where(free, self.declared.free_bits, 0.0).to(kl.dtype).sum() - target
        return torch.where(free, 0.0, weight), weight * offset
