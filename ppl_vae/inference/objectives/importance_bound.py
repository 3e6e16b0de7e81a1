"""Importance-weighted bounds as a module, and gradients that follow the draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ppl_vae.inference.objectives.base import Estimate
from ppl_vae.inference.objectives.draws import Draws, draw, every, not_reparameterized
from ppl_vae.program.pair import Pair
from ppl_vae.program.weighing import mean_by_weight

__all__ = ["ImportanceBound"]


class ImportanceBound(nn.Module):
    """The bound of order alpha.

    With normalized weights v_s ~ w_s^(1 - alpha) its gradient is E[sum_s v_s grad log w_s]. That of the guide's parameters, the
    draws followed and q's own parameters held fixed, is E[sum_s (alpha v_s + (1 - alpha) v_s^2) grad log w_s] (Tucker et al.
    2019); with v_s in place of its coefficient the landing is stuck to.
    """

    def __init__(self, pair: Pair, samples: int, *, alpha: float, gradient: str) -> None:
        super().__init__()
        self.pair = pair
        self.samples = samples
        self.alpha = alpha
        self.gradient = gradient

    def forward(self, *batch: Tensor) -> Estimate:
        """Of a batch."""
        pathwise = self.gradient == "pathwise"
        cut = not_reparameterized if pathwise else every
        draws = draw(self.pair, batch, self.samples, cut, purpose="an importance-weighted bound")
        self._check(draws)
        log_joint = draws.log_joint
        log_w = log_joint - draws.log_q
        bound = self.bound(log_w)
        weight = draws.ran.plates.mean_weight
        surrogate = mean_by_weight(bound, weight)
        if torch.is_grad_enabled() and draws.leaves:
            surrogate = self._scored(draws, log_w, bound) if pathwise else self._followed(draws, log_joint, log_w)
        loss = -(surrogate + (mean_by_weight(bound, weight) - surrogate).detach())
        parts = (mean_by_weight(part.detach(), weight) for part in (log_w, draws.reconstruction))
        return Estimate(loss, *parts)

    def _check(self, draws: Draws) -> None:
        parts = draws.ran.plates.subsampled
        if parts and self.alpha != 1:
            raise ValueError(
                f"an importance-weighted bound needs all of log p(x, z), of which the plates {', '.join(parts)} show a sample: "
                "use objective=ELBO(), or plates without subsampling"
            )

    def bound(self, log_w: Tensor) -> Tensor:
        """Of log w ``(S, ...)``, the bound of each datum ``(...)``."""
        if self.alpha == 1:
            return log_w.mean(0)
        order = 1 - self.alpha
        return ((order * log_w).logsumexp(0) - math.log(len(log_w))) / order

    def _scored(self, draws: Draws, log_w: Tensor, bound: Tensor) -> Tensor:
        """The bound, and what it makes of the scores of the draws that were cut off."""
        advantage = (bound - self._without_each(log_w)).detach()
        weight = draws.ran.plates.mean_weight
        return mean_by_weight(bound, weight) + mean_by_weight((advantage * draws.log_q_cut).sum(0), weight)

    def _without_each(self, log_w: Tensor) -> Tensor:
        """The bound ``(S, B)`` with each sample's log w replaced by the mean of the others', zero for a single sample."""
        if self.samples == 1:
            return torch.zeros_like(log_w)
        others = (log_w.sum(0) - log_w) / (self.samples - 1)
        itself = torch.eye(self.samples, dtype=torch.bool, device=log_w.device).unsqueeze(-1)
        return self.bound(torch.where(itself, others, log_w.unsqueeze(1)))

    def _followed(self, draws: Draws, log_joint: Tensor, log_w: Tensor) -> Tensor:
        """Log p(x, z) weighed at fixed draws, for the model, and the weighed log w followed through the draws."""
        fixed = [site for site in draws.leaves if not_reparameterized(draws.guide.nodes[site]["fn"])]
        if fixed:
            raise ValueError(
                f"the gradient {self.gradient} needs reparameterized draws, which {', '.join(fixed)} has not: use "
                "gradient='pathwise', or a guide whose draws are reparameterized"
            )
        weights = ((1 - self.alpha) * log_w).softmax(0).detach()
        doubly = self.alpha * weights + (1 - self.alpha) * weights.square()
        coefficients = doubly if self.gradient == "doubly_reparameterized" else weights
        weight = draws.ran.plates.mean_weight
        leaves, values = list(draws.leaves.values()), list(draws.values.values())
        followed = _through(leaves, values, mean_by_weight((coefficients * log_w).sum(0), weight))
        return mean_by_weight((weights * log_joint).sum(0), weight) + followed


def _through(leaves: list[Tensor], values: list[Tensor], objective: Tensor) -> Tensor:
    """A number whose gradient is that of ``objective``, a function of the leaves, through the values they were cut off from.

    A later draw may hang on earlier ones, so the last is followed first.
    """
    slopes = list(torch.autograd.grad(objective, leaves, retain_graph=True))
    total = torch.zeros_like(objective)
    for last in reversed(range(len(leaves))):
        part = (slopes[last] * values[last]).sum()
        total = total + part
        if last and part.requires_grad:
            earlier = torch.autograd.grad(part, leaves[:last], retain_graph=True, allow_unused=True)
            slopes[:last] = [a if b is None else a + b for a, b in zip(slopes[:last], earlier, strict=True)]
    return total
