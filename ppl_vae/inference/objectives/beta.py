"""The ELBO with a weighed KL: beta, capacity, warm-up and free bits.

E_q[log p(x | z)] - beta KL(q(z | x) || p(z))
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

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
        warm_up: how the weight, or with a capacity the target, rises from zero at the start of training; several are those of
            the latent sites, in the order in which the guide draws them.
        capacity: C in nats per datum.
        free_bits: in nats per datum and latent site; several are those of the sites, in the same order.
        particles: S, samples of the latent variables per datum and step.
        kl: ``analytic`` where a closed form exists (less noise), or ``sampled``.

    Raises:
        ValueError: a number out of range, or an unknown kind of KL; several warm-ups with a capacity, which is one target; in
            training, another number of them, or of free bits, than there are latent sites.

    Examples:
        >>> BetaELBO(beta=4.0, warm_up=LinearWarmUp(epochs=5)).ramp
        5
    """

    beta: float = 1.0
    warm_up: WarmUp | tuple[WarmUp, ...] = NoWarmUp()
    capacity: float | None = None
    free_bits: float | tuple[float, ...] = 0.0
    particles: int = 1
    kl: Literal["analytic", "sampled"] = "analytic"

    def __post_init__(self) -> None:
        for name in ("warm_up", "free_bits"):
            if isinstance(several := getattr(self, name), (list, tuple)):
                require(len(several) > 0, f"{name} of at least one latent site", several)
                object.__setattr__(self, name, tuple(several))
        require(0 <= self.beta < math.inf, "a beta of at least 0", self.beta)
        require(self.capacity is None or 0 <= self.capacity < math.inf, "a capacity of at least 0", self.capacity)
        require(all(0 <= bits < math.inf for bits in _each(self.free_bits)), "free_bits of at least 0", self.free_bits)
        single = self.capacity is None or not isinstance(self.warm_up, tuple)
        require(single, "one warm_up with a capacity, which is one target for all sites", self.warm_up)
        require(self.particles >= 1, "at least 1 particle", self.particles)
        require(self.kl in ("analytic", "sampled"), "a kl that is analytic or sampled", self.kl)

    @property
    def ramp(self) -> float:
        """The length of the warm-up, of several the longest."""
        longest: float = max(warm_up.length for warm_up in _each(self.warm_up))
        return longest

    @property
    def frees(self) -> bool:
        """Whether some nats of a KL cost nothing."""
        return any(_each(self.free_bits))

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

    @property
    def adds_up(self) -> bool:
        """Unless the KL of a batch is held against a number: a capacity, or free bits."""
        return self.capacity is None and not self.frees

    def build(self, pair: Pair, steps_per_epoch: int = 1) -> nn.Module:
        """The weighed ELBO of a pair as a module."""
        analytic = self.kl == "analytic" and pair.mean_field
        return WeighedELBO(pair, self.particles, analytic=analytic, weigh=KLWeights(self, steps_per_epoch))


class KLWeights(nn.Module):
    """From the KL of each site to its weight: beta |sum_j max(free_bits_j, KL_j) - C| = sum_j w_j KL_j + offset.

    ``steps`` counts the calls in training mode.
    """

    steps: Tensor
    free_bits: Tensor

    def __init__(self, declared: BetaELBO, steps_per_epoch: int) -> None:
        super().__init__()
        self.declared = declared
        self.steps_per_epoch = steps_per_epoch
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # Of the shape of the sites (J,) or (); no part of what is kept, for it is declared.
        self.register_buffer("free_bits", torch.tensor(declared.free_bits, dtype=torch.float64), persistent=False)

    def forward(self, kl: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``(J,)`` and the offset, for KL ``(J,)`` in nats per datum."""
        factor, free_bits = self._factor(kl), self.free_bits.to(kl.dtype)
        if self.training:
            self.steps += 1
        for name, given in (("warm_up", factor), ("free_bits", free_bits)):
            if given.dim() and len(given) != len(kl):
                raise ValueError(f"expected {name} of each of {len(kl)} latent sites, or one for all, got {len(given)}")
        free = (kl < free_bits) & (free_bits > 0)  # a sampled KL may be negative
        counted = torch.where(free, free_bits, kl).sum()
        if self.declared.capacity is None:
            weight, target = self.declared.beta * factor, None
        else:
            target = self.declared.capacity * factor
            weight = self.declared.beta * torch.where(counted < target, -1.0, 1.0).to(kl.dtype)
        offset = (weight * torch.where(free, free_bits, 0.0)).sum()
        return torch.where(free, 0.0, weight), offset if target is None else offset - weight * target

    def _factor(self, kl: Tensor) -> Tensor:
        """That of each site ``(J,)``, or one for all of them ``()``."""
        warm_up, epoch = self.declared.warm_up, self.steps.to(kl.dtype) / self.steps_per_epoch
        if isinstance(warm_up, WarmUp):
            return warm_up.factor(epoch)
        return torch.stack([each.factor(epoch) for each in warm_up])


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
