"""New data of a diffusion: its steps back, one after the other, from pure noise.

With guidance w the denoised data are x'_w = (1 + w) x'(z_t, y) - w x'(z_t), which is at one z_t what Ho and Salimans (2022)
write of noise: epsilon_w = (1 + w) epsilon(z_t, y) - w epsilon(z_t). At w = 0 it is the model given y itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.models.diffusion.steps import AT_ONCE, Step, alpha, sigma

__all__ = ["CONTINUOUS", "Chain", "Drawn"]

CONTINUOUS = 1000  # steps by which continuous time is drawn


class Chain:
    """The steps back of a diffusion, given a class and guided by it, if at all.

    Args:
        model: the program.
        known: columns of y ``(n, C)`` of all data that will be drawn, ``(1, C)`` or nothing.
        guidance: w.
    """

    def __init__(self, model: Any, known: tuple[Tensor, ...], guidance: float) -> None:
        self.model = model
        self.known = known
        self.guidance = guidance

    def of(self, rows: slice) -> Chain:
        """That of some of the data."""
        return Chain(self.model, tuple(c[rows] if len(c) > 1 else c for c in self.known), self.guidance)

    def back(self, z: Tensor, t: Tensor, step: Step) -> Any:
        """p(z_s | z_t, y) as that of u."""
        p = self.model.back(z, t, step, *self.known)
        if not self.guidance:
            return p
        without = self.model.back(z, t, step, *(torch.zeros_like(c) for c in self.known))
        loc, of_none = p.base_dist.loc, without.base_dist.loc
        return dist.Normal(loc + self.guidance * (loc - of_none), p.base_dist.scale).to_event(self.model.event_dim)

    def drawn(self, z: Tensor, steps: int) -> Tensor:
        """z_0 from z_1, each of T steps drawn."""
        noise = self.model.noise
        for place in torch.arange(steps, 0, -1, device=z.device).to(z):
            step, t = Step(noise((place - 1) / steps), noise(place / steps)), place / steps
            z = step.back(z, self.back(z, t, step).sample(), self.model.event_dim)
        return z

    def straight(self, z: Tensor, times: Tensor) -> Tensor:
        """z_0 from z_1 by way of falling times, without noise of their own: DDIM (Song, Meng and Ermon 2021).

        Each goes from t to any s < t: z_s = alpha_s x' + sigma_s epsilon', with the noise epsilon' that goes with x' at z_t.
        """
        for t, before in itertools.pairwise(times):
            gamma, end = self.model.noise(t), self.model.noise(before)
            x = self.back(z, t, Step(end, gamma)).base_dist.loc
            z = alpha(end) * x + sigma(end) * (z - alpha(gamma) * x) / sigma(gamma)
        return z


class Drawn:
    """New data ``(n, *event)`` of a chain, in pieces that fit."""

    def __init__(self, model: Any, chain: Chain) -> None:
        self.model = model
        self.chain = chain

    @torch.no_grad()
    def __call__(self, n: int, steps: int | None) -> Tensor:
        """In all steps, each drawn, or in so many without noise of their own.

        Raises:
            ValueError: fewer than one step, or more than there are.
        """
        model, run = self.model, self._run(steps)
        most = max(1, AT_ONCE // model.width)
        pieces = [slice(start, min(start + most, n)) for start in range(0, n, most)]
        noise = ((self.chain.of(rows), model.standard.sample((rows.stop - rows.start,))) for rows in pieces)
        return torch.cat([model.likelihood_at(run(chain, z)).sample() for chain, z in noise])

    def _run(self, steps: int | None) -> Callable[[Chain, Tensor], Tensor]:
        model, of_chain = self.model, CONTINUOUS if self.model.continuous else self.model.steps
        if steps is None:
            return lambda chain, z: chain.drawn(z, of_chain)
        if steps < 1 or (steps > of_chain and not model.continuous):
            raise ValueError(f"expected from 1 to {of_chain} steps, which this diffusion has, got {steps}")
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        times = times if model.continuous else (times * of_chain).round() / of_chain
        return lambda chain, z: chain.straight(z, times.to(z))
