"""How well a score tells foreign data from one's own, whatever the threshold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["ROC", "roc"]


class ROC(NamedTuple):
    """A receiver operating characteristic.

    Attributes:
        auroc: the probability that a foreign datum scores higher than one's own, ties counted half: 1/2 of a score that knows
            nothing, below 1/2 of one that finds the foreign data the more familiar ones.
        se: its standard error over both sets (DeLong, DeLong and Clarke-Pearson 1988).
        false_positive_rate: share of one's own data at or above a threshold, from 0 to 1, ``(T,)``.
        true_positive_rate: share of the foreign data at or above it, ``(T,)``.
    """

    auroc: float
    se: float
    false_positive_rate: Tensor
    true_positive_rate: Tensor


def roc(own: Tensor | np.ndarray, foreign: Tensor | np.ndarray) -> ROC:
    """The curve and the area below it of scores that are to be higher of foreign data than of one's own.

    The area is the statistic of Mann and Whitney (1947) as a share of all pairs.

    Args:
        own: scores of data of the kind that was fitted ``(N,)``.
        foreign: scores of others ``(M,)``.

    Raises:
        ValueError: fewer than two of either, or scores that are no numbers.

    Examples:
        >>> roc(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([1.5, 4.0, 4.0, 1.5])).auroc
        0.75
    """
    a, b = (torch.as_tensor(scores).detach().cpu().double() for scores in (own, foreign))
    if a.dim() != 1 or b.dim() != 1 or min(len(a), len(b)) < 2:
        raise ValueError(f"expected at least 2 scores of each, (N,) and (M,), got {tuple(a.shape)} and {tuple(b.shape)}")
    if bool(a.isnan().any() or b.isnan().any()):
        raise ValueError("expected scores that are numbers, got NaN: drop those rows")
    found, mine = _below(a, b), 1.0 - _below(b, a)
    se = float((found.var() / len(b) + mine.var() / len(a)).sqrt())
    thresholds = torch.cat([a, b]).unique().flip(0)
    start = torch.zeros(1, dtype=torch.float64)
    rates = [torch.cat([start, _at_or_above(scores, thresholds)]) for scores in (a, b)]
    return ROC(float(found.mean()), se, *rates)


def _below(scores: Tensor, at: Tensor) -> Tensor:
    """The share of scores below each value, ties counted half."""
    ordered = scores.sort().values
    both = torch.searchsorted(ordered, at) + torch.searchsorted(ordered, at, right=True)
    return both.double() / (2 * len(scores))


def _at_or_above(scores: Tensor, thresholds: Tensor) -> Tensor:
    return 1.0 - torch.searchsorted(scores.sort().values, thresholds).double() / len(scores)
