"""What keeps a normal posterior away from its prior whatever is climbed, so that the KL cannot fall to zero.

Of q = Normal(mu, Sigma) against p = Normal(0, I), both floors are parts of

    KL(q || p) = |mu|^2 / 2 + (tr Sigma - log det Sigma - K) / 2
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.priors.normal import NormalModule

__all__ = ["NormalizedMeans", "check_standard", "largest_scale"]

EPS = 1e-8  # added to the variance of the means
RATE = 0.05  # weight of a batch in the running moments


class NormalizedMeans(nn.Module):
    """The first K of an encoder's numbers, normalized over the data to deviation gamma around a location to learn.

    mu_k = gamma (m_k - E m_k) / sd(m_k) + beta_k

    (Zhu et al. 2020, "A batch normalized inference network keeps the KL vanishing away"). The moments are running ones in
    training as in evaluation, and gradients flow through those of the batch (Ioffe 2017, "Batch renormalization"): batches of
    rows of one length differ in more than chance, and what is normalized within each of them would be others in evaluation.

    Args:
        dimensions: K.
        deviation: gamma.
    """

    first: Tensor
    second: Tensor
    seen: Tensor
    deviation: Tensor

    def __init__(self, dimensions: int, deviation: float) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.location = nn.Parameter(torch.zeros(dimensions))
        self.register_buffer("deviation", torch.tensor(deviation), persistent=False)
        self.register_buffer("first", torch.zeros(dimensions))
        self.register_buffer("second", torch.zeros(dimensions))
        self.register_buffer("seen", torch.zeros(()))  # the weight of all batches so far: 1 - (1 - RATE)^t

    def forward(self, numbers: Tensor) -> Tensor:
        """Of numbers ``(..., P)``, P >= K, the others as they are."""
        means, others = numbers.split([self.dimensions, numbers.shape[-1] - self.dimensions], dim=-1)
        if self.training:
            found = self._trained(means.reshape(-1, self.dimensions)).reshape(means.shape)
        else:
            loc, scale = self.moments()
            found = (means - loc) / scale
        return torch.cat([self.deviation * found + self.location, others], dim=-1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """The running mean and deviation of the means, ``(K,)`` each; 0 and 1 before any batch."""
        known = self.seen > 0
        weight = torch.where(known, self.seen, 1.0)
        loc = self.first / weight
        variance = torch.where(known, self.second / weight - loc.square(), 1.0)
        return loc, (variance.clamp_min(0) + EPS).sqrt()

    def _trained(self, means: Tensor) -> Tensor:
        """By the running moments, this batch's in them; by the batch's own as far as gradients see."""
        variance, loc = torch.var_mean(means, 0, correction=0)
        with torch.no_grad():
            self.first.lerp_(loc, RATE)
            self.second.lerp_(variance + loc.square(), RATE)
            self.seen.lerp_(torch.ones_like(self.seen), RATE)
            running_loc, running_scale = self.moments()
            ratio, offset = (variance + EPS).sqrt() / running_scale, (loc - running_loc) / running_scale
        return (means - loc) / (variance + EPS).sqrt() * ratio + offset


def largest_scale(rate: float) -> float:
    """The scale s <= 1 of which (s^2 - 1 - log s^2) / 2 is this rate: smaller ones cost more, wherever their mean is.

    Args:
        rate: in nats of a dimension.

    Example:
        >>> round(largest_scale((0.25 - 1 - math.log(0.25)) / 2), 6)
        0.5
    """
    low, high = 0.0, 1.0  # of s^2
    for _ in range(200):
        middle = (low + high) / 2
        enough = middle == 0 or (middle - 1 - math.log(middle)) / 2 >= rate
        low, high = (middle, high) if enough else (low, middle)
    return math.sqrt(low)


def check_standard(model: Any) -> None:
    """Raise ``ValueError`` unless the prior of a built model is the standard normal, as a floor of every datum's KL needs."""
    prior = model.prior
    if not isinstance(prior, NormalModule) or bool((prior.loc != 0).any() | (prior.scale != 1).any()):
        raise ValueError(
            f"expected StandardNormal() as the prior of a guide with a min_kl, got {type(prior).__name__}: leave min_kl out, "
            "or ask for BetaELBO(free_bits=...)"
        )
