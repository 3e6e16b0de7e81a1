"""The evidence lower bound.

log p(x) >= ELBO = E_q[log p(x | z)] - KL(q(z | x) || p(z))
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from torch import nn

from ppl_vae.declaration import require
from ppl_vae.inference.objectives.base import Objective
from ppl_vae.inference.objectives.importance_bound import ImportanceBound
from ppl_vae.inference.objectives.pyro_elbo import PyroELBO
from ppl_vae.inference.objectives.score_function import ScoreFunctionELBO
from ppl_vae.program.pair import Pair

__all__ = ["ELBO"]

Gradient = Literal["pathwise", "sticking_the_landing", "score_function"]
Baseline = Literal["none", "moving_average"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ELBO(Objective):
    """E_q[log p(x | z)] - KL(q(z | x) || p(z)), through Pyro's ``TraceMeanField_ELBO`` or ``Trace_ELBO``.

    Its gradients are unbiased in every case; they differ in variance.

    Args:
        particles: S, samples of the latent variables per datum and step.
        kl: ``analytic`` where a closed form exists (less noise), or ``sampled``.
        gradient: ``pathwise``, through the draws where they are reparameterized, by the score function elsewhere;
            ``sticking_the_landing`` (Roeder et al. 2017), which leaves out the score of q, whose mean is zero, so that no noise
            is left where q is the posterior (the KL is then sampled); ``score_function`` (REINFORCE, Williams 1992), for all
            draws, reparameterized or not: noisy, and instructive.
        baseline: what is taken from the ELBO of a datum where it multiplies a score function: nothing, or a
            ``moving_average`` of earlier batches.

    Raises:
        ValueError: fewer than one particle, an unknown choice, or a baseline without a score function; when first called,
            latent variables that do not belong to a datum, or draws that are not reparameterized where the gradient needs it.

    Examples:
        >>> ELBO(gradient="score_function", baseline="moving_average").particles
        1
    """

    particles: int = 1
    kl: Literal["analytic", "sampled"] = "analytic"
    gradient: Gradient = "pathwise"
    baseline: Baseline = "none"

    def __post_init__(self) -> None:
        require(self.particles >= 1, "at least 1 particle", self.particles)
        require(self.kl in ("analytic", "sampled"), "a kl that is analytic or sampled", self.kl)
        require(self.gradient in get_args(Gradient), f"a gradient of {', '.join(get_args(Gradient))}", self.gradient)
        require(self.baseline in get_args(Baseline), f"a baseline of {', '.join(get_args(Baseline))}", self.baseline)
        unused = self.gradient == "sticking_the_landing" and self.baseline != "none"
        require(not unused, "baseline='none' with gradient='sticking_the_landing', which has no score function", self.baseline)

    @property
    def draws(self) -> int:
        """The particles."""
        return self.particles

    @property
    def takes_weights(self) -> bool:
        """Each datum's own terms count by its weight."""
        return True

    @property
    def adds_up(self) -> bool:
        """But for a baseline, which is a mean over batches."""
        return self.baseline == "none"

    def build(self, pair: Pair, steps_per_epoch: int = 1) -> nn.Module:
        """The ELBO of a pair as a module."""
        analytic = self.kl == "analytic" and pair.mean_field
        if self.gradient == "sticking_the_landing":
            return ImportanceBound(pair, self.particles, alpha=1.0, gradient=self.gradient)
        if self.gradient == "score_function" or self.baseline != "none":
            every = self.gradient == "score_function"
            return ScoreFunctionELBO(pair, self.particles, analytic=analytic, every=every, baseline=self.baseline)
        return PyroELBO(pair, self.particles, analytic=analytic)
