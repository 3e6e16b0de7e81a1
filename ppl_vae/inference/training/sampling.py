"""Which training rows an epoch steps through, where that is not every row once.

    w_n ~ prod_k 1 / (Q_k(z_nk) + alpha),   mean over n of w_n = 1

Q_k(z) is the share of the rows whose k-th code lies in the same bin as z.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ppl_vae.declaration import Declaration, require
from ppl_vae.evaluate.latents import ACTIVE

__all__ = ["LatentDensity", "Sampling"]

Combined = Literal["product", "largest"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Declaration, abc.ABC):
    """How often each training row is drawn in an epoch, by its code."""

    @abc.abstractmethod
    def weights(self, codes: Tensor) -> Tensor:
        """The expected number of draws of each row ``(N,)`` in float64, their mean one, of codes ``(N, K)``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentDensity(Sampling):
    """Rows whose codes are rare are drawn more often (Amini, Soleimany, Schwarting, Bhatia and Rus 2019).

    w_n is proportional to prod_k 1 / (Q_k(z_nk) + alpha), with Q_k a histogram of the k-th posterior mean over the training
    rows, made anew before each epoch ("Uncovering and mitigating algorithmic bias through learned latent structure"). A
    dimension whose means have a variance of at most 0.01 holds nothing and is left out, so that an encoder that has learned
    nothing yet draws all rows alike.

    Args:
        alpha: what the shares are raised by: the larger, the more alike all weights are; of a small one rare codes count most.
        bins: of a histogram, of equal width between the smallest and the largest mean.
        combined: of the dimensions the ``product``, as if they were independent, as in the paper; or the ``largest`` of their
            weights, each scaled to sum to one, as in the authors' program: of many dimensions the product leaves few rows.

    Raises:
        ValueError: a number out of range.

    Examples:
        >>> codes = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
        >>> LatentDensity(alpha=0.25, bins=2).weights(codes)  # 1 / (3/4 + 1/4) three times, and 1 / (1/4 + 1/4)
        tensor([0.8000, 0.8000, 0.8000, 1.6000], dtype=torch.float64)
    """

    alpha: float = 0.01
    bins: int = 10
    combined: Combined = "product"

    def __post_init__(self) -> None:
        require(0 < self.alpha < math.inf, "a positive alpha", self.alpha)
        require(self.bins >= 2, "at least 2 bins", self.bins)
        require(self.combined in get_args(Combined), f"combined: one of {', '.join(get_args(Combined))}", self.combined)

    def weights(self, codes: Tensor) -> Tensor:
        """The expected number of draws of each row ``(N,)`` in float64, their mean one, of codes ``(N, K)``.

        Raises:
            ValueError: no such codes, or some that are not finite.
        """
        if codes.dim() != 2 or not len(codes) or not bool(codes.isfinite().all()):
            raise ValueError(f"expected finite codes (N, K) of at least one row, got {tuple(codes.shape)}")
        z = codes.double()
        shares = histogram_shares(z[:, z.var(0, correction=0) > ACTIVE], self.bins)
        logs = -(shares + self.alpha).log()
        if not logs.shape[1]:
            return torch.ones(len(z), dtype=torch.float64, device=z.device)
        if self.combined == "product":
            return logs.sum(1).softmax(0) * len(z)
        largest = logs.softmax(0).amax(1)
        return largest * (len(z) / largest.sum())


def histogram_shares(z: Tensor, bins: int) -> Tensor:
    """The share of the rows that lie in the bin of each, column by column, ``(N, K)`` of values ``(N, K)``.

    Bins are of equal width, closed to the left, the last on both sides.
    """
    low, high = z.amin(0), z.amax(0)
    inner = torch.arange(1, bins, dtype=z.dtype, device=z.device) / bins
    edges = low[:, None] + (high - low)[:, None] * inner  # (K, bins - 1)
    place = torch.searchsorted(edges, z.T.contiguous(), right=True)
    counts = torch.zeros(z.shape[1], bins, dtype=z.dtype, device=z.device).scatter_add_(1, place, torch.ones_like(z.T))
    return counts.gather(1, place).T / len(z)
