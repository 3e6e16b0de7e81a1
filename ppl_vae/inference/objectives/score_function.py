"""The ELBO climbed by the score function of its draws.

grad E_q[f(z)] = E_q[grad f(z) + (f(z) - b) grad log q(z)],  z held fixed
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ppl_vae.inference.objectives.base import Estimate
from ppl_vae.inference.objectives.draws import Draws, draw, every, not_reparameterized
from ppl_vae.program.pair import Pair
from ppl_vae.program.traces import guide_sites, site_kl
from ppl_vae.program.weighing import mean_by_weight

__all__ = ["ScoreFunctionELBO"]

DECAY = 0.9


class ScoreFunctionELBO(nn.Module):
    """An ELBO per datum, each of which multiplies the scores of the datum's own draws.

    Args:
        pair: model and guide.
        particles: S, samples of the latent variables per datum.
        analytic: whether the KL of a site is in closed form where there is one.
        every: whether all draws go by the score function, or those that are not reparameterized.
        baseline: ``none``, or ``moving_average`` of the batches' ELBOs.
    """

    def __init__(self, pair: Pair, particles: int, *, analytic: bool, every: bool, baseline: str) -> None:
        super().__init__()
        self.pair = pair
        self.particles = particles
        self.analytic = analytic
        self.every = every
        self.baseline = BASELINES[baseline]()

    def forward(self, *batch: Tensor) -> Estimate:
        """Of a batch."""
        if self.pair.plates(*batch).enumerated and not self.every:
            raise ValueError(
                "this guide's discrete variables are summed out, which leaves no score function for a baseline: "
                "use baseline='none', or gradient='score_function' to sample them"
            )
        cut = every if self.every else not_reparameterized
        draws = draw(self.pair, batch, self.particles, cut, purpose="the score-function gradient")
        reconstruction = draws.reconstruction
        elbo = reconstruction - self._kl(draws)
        found = elbo.detach()
        mean = partial(mean_by_weight, mean_weight=draws.ran.plates.mean_weight)
        surrogate = mean(elbo)
        if draws.leaves:
            surrogate = surrogate + mean((found - self.baseline(mean(found))) * draws.log_q_cut)
        loss = -(surrogate + (mean(found) - surrogate).detach())
        return Estimate(loss, -loss.detach(), mean(reconstruction.detach()))

    def _kl(self, draws: Draws) -> Tensor:
        if draws.ran.plates.summed:
            return draws.log_q - (draws.log_joint - draws.reconstruction)
        names = [site["name"] for site in guide_sites(draws.guide)]
        kl = [site_kl(draws.model, draws.guide, name, draws.ran.plates, self.analytic) for name in names]
        return cast(Tensor, sum(kl))


class NoBaseline(nn.Module):
    """Zero."""

    def forward(self, elbo: Tensor) -> Tensor:
        """Before this batch's ELBO."""
        return torch.zeros_like(elbo)


class MovingAverage(nn.Module):
    """The mean of earlier ELBOs, those long ago counting less; it sees a batch in training mode after it was asked for it."""

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, elbo: Tensor) -> Tensor:
        """Before this batch's ELBO; zero before the first."""
        average = self.total / self.weight.clamp_min(1 - DECAY)
        if self.training:
            self.total.mul_(DECAY).add_(elbo, alpha=1 - DECAY)
            self.weight.mul_(DECAY).add_(1 - DECAY)
        return average


BASELINES: dict[str, type[nn.Module]] = {"none": NoBaseline, "moving_average": MovingAverage}
