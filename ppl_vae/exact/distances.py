"""Squared distances of all pairs by one matrix product, without losing those of pairs that lie close together far from zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["matched_distance", "squared_distances"]

_CLOSE = 1e-5  # of the squares that cancel: what is left has ten digits in float64
_AT_ONCE = 2**22


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_n - b_m|^2 ``(N, M)`` of rows ``(N, D)`` and ``(M, D)`` in float64.

    The square is multiplied out, |a|^2 + |b|^2 - 2 a b^T, except of pairs where its terms cancel: those are subtracted first.

    Examples:
        >>> far = torch.tensor([[1e9], [1e9 + 1]], dtype=torch.float64)
        >>> squared_distances(far, torch.cat([far, -far])).diagonal().tolist()
        [0.0, 0.0]
    """
    a, b = a.double(), b.double()
    shift = b.mean(0)
    x, y = a - shift, b - shift
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    squared = torch.addmm(norms, x, y.T, alpha=-2)
    pairs = (squared < _CLOSE * norms).nonzero()
    if 8 * len(pairs) > squared.numel():
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
    for some in pairs.split(max(1, _AT_ONCE // max(1, a.shape[1]))):
        n, m = some.unbind(1)
        squared[n, m] = (a[n] - b[m]).square().sum(1)
    return squared.clamp_min_(0)


def matched_distance(a: Tensor, b: Tensor) -> float:
    """Root mean square distance of rows ``(C, D)``, each matched with one of the other's.

    The matching is the one with the least sum of squared distances (Kuhn 1955), so the order of rows is free.

    Examples:
        >>> matched_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]]))
        0.0
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # comes with scikit-learn

    squared = squared_distances(a, b.to(a.device)).cpu().numpy()
    return math.sqrt(squared[linear_sum_assignment(squared)].mean())
