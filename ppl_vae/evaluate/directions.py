"""Directions among codes along which data of two kinds differ, and how well these tell the kinds apart."""

from __future__ import annotations

import math
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from ppl_vae.declaration import require
from ppl_vae.types import DirectionBy

__all__ = ["Held", "direction_between", "halves", "told_apart"]


LEAST = 2  # codes of a kind whose spread is taken


class Held(NamedTuple):
    """How well a direction tells two kinds apart, on data that it was not found from.

    Attributes:
        accuracy: the mean of the two kinds' shares on their side of the middle; 1/2 is guessing.
        accuracy_se: its binomial standard error.
        separation: d', the distance of the kinds' mean projections in units of their pooled standard deviation.
        n: how many data of the two kinds there were.
    """

    accuracy: float
    accuracy_se: float
    separation: float
    n: tuple[int, int]


def direction_between(positive: Tensor, negative: Tensor, *, by: DirectionBy = "means") -> Tensor:
    r"""The direction ``(K,)`` from codes of one kind to those of another, as long as their means are apart along it.

    .. math:: d = \bar z_+ - \bar z_-, \qquad d = w \, \frac{w \cdot (\bar z_+ - \bar z_-)}{w \cdot w}

    by means (Larsen et al. 2016, "Autoencoding beyond pixels"), or along the normal w of a linear classifier's boundary
    (Denton et al. 2019, "Image counterfactual sensitivity analysis"), which leaves out what differs by correlation alone.

    Args:
        positive: codes ``(N, K)``.
        negative: codes ``(M, K)``.
        by: ``means``, or ``probe`` for the logistic regression of :func:`~ppl_vae.evaluate.probes.probe`.

    Raises:
        ValueError: fewer than two codes of a kind, another ``by``, or kinds of one mean.

    Examples:
        >>> direction_between(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.zeros(2, 2))
        tensor([2., 2.])
    """
    require(by in get_args(DirectionBy), f"a direction by {', '.join(get_args(DirectionBy))}", by)
    _check(positive, negative)
    difference = positive.mean(0) - negative.mean(0)
    if by == "probe":
        w = _boundary(positive, negative).to(difference)
        difference = w * (difference @ w) / (w @ w).clamp_min(torch.finfo(w.dtype).tiny)
    if not bool(difference.norm() > 0):
        raise ValueError("expected data of two kinds whose codes differ, got codes of one mean: has the posterior collapsed?")
    return difference


def told_apart(direction: Tensor, middle: Tensor, positive: Tensor, negative: Tensor) -> Held:
    """How well a direction tells codes apart that it was not found from.

    Args:
        direction: ``(K,)``.
        middle: ``(K,)``, through which the boundary goes, at a right angle to the direction.
        positive: codes ``(N, K)`` of one kind.
        negative: codes ``(M, K)`` of the other.

    Raises:
        ValueError: fewer than two codes of a kind.

    Examples:
        >>> one = torch.tensor([[0.0], [2.0]])
        >>> round(told_apart(torch.ones(1), torch.tensor([3.5]), one + 4.0, one).separation, 4)  # 4 / sqrt(2)
        2.8284
    """
    _check(positive, negative)
    scores = [(codes - middle).double() @ direction.double() for codes in (positive, negative)]
    rates = [float((scores[0] > 0).double().mean()), float((scores[1] < 0).double().mean())]
    n = (len(positive), len(negative))
    pooled = sum(float((each - each.mean()).square().sum()) for each in scores) / (sum(n) - 2)
    apart = float(scores[0].mean() - scores[1].mean())
    error = math.sqrt(sum(rate * (1 - rate) / size for rate, size in zip(rates, n, strict=True))) / 2
    return Held(sum(rates) / 2, error, apart / math.sqrt(pooled) if pooled else math.copysign(math.inf, apart), n)


def halves(rows: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Places of rows to find a direction from, and of the share that is held out for its numbers.

    Raises:
        ValueError: fewer than two rows in either.
    """
    require(0 < share < 1, "a share held out between 0 and 1", share)
    held = max(LEAST, round(share * rows))
    if rows - held < LEAST:
        raise ValueError(f"expected at least {2 * LEAST} data of each kind, got {rows}: give more, or others as test=(...)")
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return order[held:], order[:held]


def _boundary(positive: Tensor, negative: Tensor) -> Tensor:
    """The normal ``(K,)`` of the boundary of a logistic regression on standardized codes, in the units of the codes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    z = torch.cat([positive, negative]).double().cpu().numpy()
    y = [1] * len(positive) + [0] * len(negative)
    scaler = StandardScaler()
    classifier = LogisticRegression(max_iter=2000).fit(scaler.fit_transform(z), y)
    return torch.from_numpy(classifier.coef_[0] / scaler.scale_)


def _check(positive: Tensor, negative: Tensor) -> None:
    fits = positive.dim() == negative.dim() == 2 and positive.shape[1] == negative.shape[1]
    if not fits or min(len(positive), len(negative)) < LEAST:
        told = f"{tuple(positive.shape)} and {tuple(negative.shape)}"
        raise ValueError(f"expected codes (N, K) and (M, K) of at least {LEAST} data of each kind, got {told}")
