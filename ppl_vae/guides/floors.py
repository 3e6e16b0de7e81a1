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

__all__ = ["NormalizedMeans", "check_standard", "floored_scale", "largest_scale"]

EPS = 1e-8  # added to the variance of the means
MEMORY = 1000  # rows that the running moments reach back, whatever the size of batches
LEAST_SCALE = 1e-6  # that a floor may ask for: below it draws of z are their means in float32


class NormalizedMeans(nn.Module):
    """The first K of an encoder's numbers, normalized over the data to deviation gamma around a location to learn.

    mu_k = gamma (m_k - E m_k) / sd(m_k) + beta_k

    (Zhu et al. 2020, "A batch normalized inference network keeps the KL vanishing away"). The moments are running ones in
    training as in evaluation, and gradients flow through those of the batch (Ioffe 2017, "Batch renormalization"): batches of
    rows of one length differ in more than chance, and what is normalized within each of them would be others in evaluation.
    Of one or two rows their own moments tell nothing, for they are normalized to the same numbers whatever they are: such a
    batch, as the last of an epoch may be, is normalized by the running ones as if they were given.

    Args:
        dimensions: K.
        deviation: gamma.
    """

    LEAST_ROWS = 3
    """Rows of a batch whose own moments tell something."""

    running_mean: Tensor
    running_variance: Tensor
    seen: Tensor
    deviation: Tensor

    def __init__(self, dimensions: int, deviation: float) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.location = nn.Parameter(torch.zeros(dimensions))
        self.register_buffer("deviation", torch.tensor(deviation), persistent=False)
        self.register_buffer("running_mean", torch.zeros(dimensions))
        self.register_buffer("running_variance", torch.ones(dimensions))
        self.register_buffer("seen", torch.zeros(()))  # the weight of all rows so far: 1 - (1 - 1 / MEMORY)^rows

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
        return self.running_mean, (self.running_variance + EPS).sqrt()

    def _trained(self, means: Tensor) -> Tensor:
        """By the running moments, this batch's in them; by the batch's own as far as gradients see."""
        variance, loc = torch.var_mean(means, 0, correction=0)
        with torch.no_grad():
            self._count(loc, variance, len(means))
            running_loc, running_scale = self.moments()
            ratio, offset = (variance + EPS).sqrt() / running_scale, (loc - running_loc) / running_scale
        if len(means) < self.LEAST_ROWS:
            return (means - running_loc) / running_scale
        return (means - loc) / (variance + EPS).sqrt() * ratio + offset

    def _count(self, loc: Tensor, variance: Tensor, rows: int) -> None:
        """Take the moments of a batch into the running ones: of both together, each weighed by its rows."""
        rate = 1 - (1 - 1 / MEMORY) ** rows
        self.seen.lerp_(torch.ones_like(self.seen), rate)
        share = rate / self.seen
        between = loc - self.running_mean
        both = (1 - share) * self.running_variance + share * variance + share * (1 - share) * between.square()
        self.running_variance.copy_(both)
        self.running_mean.add_(share * between)


def largest_scale(rate: float) -> float:
    """The scale s <= 1 of which (s^2 - 1 - log s^2) / 2 is this rate: smaller ones cost more, wherever their mean is.

    Args:
        rate: in nats of a dimension.

    Examples:
        >>> round(largest_scale((0.25 - 1 - math.log(0.25)) / 2), 6)
        0.5
    """
    low, high = 0.0, 1.0  # of s^2
    for _ in range(200):
        middle = (low + high) / 2
        enough = middle == 0 or (middle - 1 - math.log(middle)) / 2 >= rate
        low, high = (middle, high) if enough else (low, middle)
    return math.sqrt(low)


def floored_scale(min_kl: float, dimensions: int) -> float:
    """The largest scale of K dimensions that have a floor together, see :func:`largest_scale`.

    Raises:
        ValueError: a floor of more than scales of :data:`LEAST_SCALE` have.
    """
    most = (LEAST_SCALE**2 - 1 - math.log(LEAST_SCALE**2)) / 2
    if min_kl > dimensions * most:
        raise ValueError(
            f"expected a min_kl of at most {most:.3g} nats for each of K = {dimensions} latent dimensions, "
            f"{dimensions * most:.4g} in all, got {min_kl:g}, whose scales would be below {LEAST_SCALE:g}: "
            "lower it, or raise the latent dimension"
        )
    return largest_scale(min_kl / dimensions)


def check_standard(model: Any, declared: str = "another") -> None:
    """Raise ``ValueError`` unless the prior of a built model is the standard normal, as a floor of every datum's KL needs.

    Args:
        model: built.
        declared: the prior as it was declared, for the message.
    """
    prior = model.prior
    if not isinstance(prior, NormalModule) or bool((prior.loc != 0).any() | (prior.scale != 1).any()):
        raise ValueError(
            f"expected StandardNormal() as the prior of a guide with a min_kl, got {declared}: leave min_kl out, or ask for "
            "BetaELBO(free_bits=...)"
        )
