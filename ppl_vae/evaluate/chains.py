"""The chains of annealed importance sampling: Hamiltonian Monte Carlo (Neal 2011), all chains of a batch of data at once."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.evaluate.bar import Advance
from ppl_vae.evaluate.rows import apart
from ppl_vae.evaluate.schedule import AIS, PILOT, spaced
from ppl_vae.evaluate.unconstrained import Densities, Latents
from ppl_vae.program.capture import Compile
from ppl_vae.program.pair import Pair
from ppl_vae.program.replay import Replay, replay

__all__ = ["Chains", "Point", "Work"]

ACCEPTANCE = 0.65  # Neal (2011), Wu et al. (2017)
ADAPTATION = 0.3  # of log step size per unit of acceptance too much
FIRST_STEP = 0.5
JITTER = 0.2  # relative, of a step's size: chains of one length come back to where they were


class Work(NamedTuple):
    """What is annealed and how; ``elements`` of the data, once for every time that they are decoded."""

    pair: Pair
    ais: AIS
    elements: int
    compile: Compile


class Point(NamedTuple):
    """Where chains are, u ``(S, B, K)``, and the log-densities there."""

    u: Tensor
    densities: Densities


class Chains:
    """The chains of one batch.

    Attributes:
        latents: their space.
        acceptance: of the chains forwards, ``(B,)``.
    """

    def __init__(self, work: Work, batch: tuple[Tensor, ...], advance: Advance) -> None:
        self.ais = work.ais
        self.batch = batch
        self.latents = Latents(work.pair, batch, work.ais.chains)
        name = ("densities", work.ais.chains)
        self.program: Replay = replay(work.pair, name, self._densities, elements=work.elements, compile=work.compile)
        self.advance = advance
        x = batch[0] if batch[0].is_floating_point() else batch[0].float()  # tokens are integers
        self.acceptance = x.new_zeros(len(x))
        self.pilot = self.ais.powers(max(2, self.ais.temperatures // PILOT))
        self.sizes: list[Tensor] = []
        spreads = self._pilot()
        self.powers = spaced(self.pilot, spreads, self.ais) if self.ais.schedule == "adaptive" else self.ais.powers()

    def forward(self) -> Tensor:
        """Log-weights ``(S, B)`` from draws of the prior to the posterior."""
        powers = self.powers
        point = self._at(self.latents.draw(self.batch))
        log_weights = point.densities.likelihood.double() * (powers[1] - powers[0])
        for t in range(1, len(powers) - 1):
            point, accepted = self._move(point, powers[t], self._size(powers[t]))
            self.acceptance += accepted.mean(0) / (len(powers) - 2)
            log_weights += point.densities.likelihood * (powers[t + 1] - powers[t])
            self.advance(len(self.batch[0]))
        return log_weights

    def backward(self, u: Tensor) -> Tensor:
        """Log-weights ``(S, B)`` from draws of the posterior ``(S, B, K)`` to the prior: 1 / w has the mean 1 / p(x)."""
        powers = self.powers
        point = self._at(u)
        log_weights = point.densities.likelihood.double() * (powers[-1] - powers[-2])
        for t in range(len(powers) - 2, 0, -1):
            point, _ = self._move(point, powers[t], self._size(powers[t]))
            log_weights += point.densities.likelihood * (powers[t] - powers[t - 1])
            self.advance(len(self.batch[0]))
        return log_weights

    def _pilot(self) -> list[float]:
        """Find step sizes ``(B,)`` for each temperature by steering; the standard deviations of log p(x | u) on the way."""
        point = self._at(self.latents.draw(self.batch))
        size = torch.full_like(self.acceptance, FIRST_STEP)
        spreads = [_spread(point)]
        for power in self.pilot[1:-1]:
            point, accepted = self._move(point, power, size)
            size = size * (ADAPTATION * (accepted.mean(0) - ACCEPTANCE)).exp()
            self.sizes.append(size)
            spreads.append(_spread(point))
        return [*spreads, spreads[-1]]

    def _size(self, power: float) -> Tensor:
        return self.sizes[min(bisect_left(self.pilot, power, 1), len(self.sizes)) - 1]

    def _move(self, point: Point, power: float, size: Tensor) -> tuple[Point, Tensor]:
        """A Hamiltonian trajectory at one temperature, and its probability of acceptance ``(S, B)`` (Neal 2011)."""
        chains = point.u.shape[:2]
        step = (size * (1 + JITTER * (2 * torch.rand(chains, device=size.device, dtype=size.dtype) - 1))).unsqueeze(-1)
        momentum = torch.randn_like(point.u)
        energy = _energy(point, momentum, power)
        there = point
        momentum = momentum + 0.5 * step * _force(there, power)
        for i in range(self.ais.leapfrog):
            there = self._at(there.u + step * momentum)
            half = 0.5 if i == self.ais.leapfrog - 1 else 1.0
            momentum = momentum + half * step * _force(there, power)
        log_ratio = (energy - _energy(there, momentum, power)).nan_to_num(nan=-math.inf).clamp_max(0)
        accepted = torch.rand(chains, device=size.device, dtype=size.dtype).log() < log_ratio
        return Point(*_chosen(accepted, there, point)), log_ratio.exp()

    def _at(self, u: Tensor) -> Point:
        return Point(u, Densities(*self.program(*self.batch, u)))

    def _densities(self, *tensors: Tensor) -> list[Tensor]:
        batch, (u,) = apart(self.latents.pair, tensors)
        return list(self.latents.densities(u, *batch))


def _spread(point: Point) -> float:
    """Of log p(x | u) over the chains, as the root of the mean variance of all data."""
    return point.densities.likelihood.double().var(0, correction=0).mean().sqrt().item()


def _energy(point: Point, momentum: Tensor, power: float) -> Tensor:
    return 0.5 * momentum.square().sum(-1) - point.densities.prior - power * point.densities.likelihood


def _force(point: Point, power: float) -> Tensor:
    return point.densities.prior_gradient + power * point.densities.likelihood_gradient


def _chosen(accepted: Tensor, new: Point, old: Point) -> tuple[Tensor, Densities]:
    """The new point of chains that accepted it, the old one of the others."""
    wide = accepted.unsqueeze(-1)
    values = zip(new.densities, old.densities, strict=True)
    densities = [torch.where(accepted if a.dim() == 2 else wide, a, b) for a, b in values]
    return torch.where(wide, new.u, old.u), Densities(*densities)
