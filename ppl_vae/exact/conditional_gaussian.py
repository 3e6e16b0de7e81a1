"""Normal variables that hang linearly on each other, in every configuration c of some discrete ones.

    x_i = b_ci + sum over j < i of W_cij x_j + Normal(0, v_ci)      x given c is Normal(m_c, S_c)

Lauritzen (1992), "Propagation of probabilities, means and variances in mixed graphical association models". Rows may have
entries that are missing (NaN), which are integrated out; rows with the same ones missing are handled together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Moments", "System", "completed", "log_density", "moments", "regression", "second_moments"]

CUTOFF = 1e-12  # of the largest eigenvalue: directions of the parents in which the data do not vary have the slope 0


class System(NamedTuple):
    """The equations: intercepts b ``(..., C, d)``, strictly lower weights W ``(C, d, d)``, variances v ``(C, d)``."""

    intercepts: Tensor
    weights: Tensor
    variances: Tensor


class Moments(NamedTuple):
    """Means m ``(..., C, d)`` and covariances S ``(C, d, d)``."""

    mean: Tensor
    covariance: Tensor


class Pattern(NamedTuple):
    """Rows with the same columns observed: their places, and the places of the columns."""

    rows: Tensor
    seen: Tensor
    missing: Tensor


def moments(system: System) -> Moments:
    """Those of x given each configuration.

    Examples:
        >>> weights = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])  # x_2 = 1 + 2 x_1 + noise
        >>> moments(System(torch.tensor([[3.0, 1.0]]), weights, torch.ones(1, 2)))
        Moments(mean=tensor([[3., 7.]]), covariance=tensor([[[1., 2.],
                 [2., 5.]]]))
    """
    identity = torch.eye(system.weights.shape[-1]).to(system.weights)
    root = torch.linalg.solve_triangular(identity - system.weights, identity.expand_as(system.weights), upper=False)
    mean = (root @ system.intercepts.unsqueeze(-1)).squeeze(-1)
    return Moments(mean, root @ (system.variances.unsqueeze(-1) * root.mT))


def log_density(of: Moments, x: Tensor) -> Tensor:
    """Log p(observed entries of x | c) of rows x ``(n, d)``, ``(n, C)``; means may be ``(n, C, d)``, each row's own."""
    parts, places = [], []
    for pattern in _patterns(x):
        mean, seen = _mean_of(of, pattern), pattern.seen
        L = torch.linalg.cholesky(of.covariance[:, seen][:, :, seen])
        gaps = (x[pattern.rows][:, None, seen] - mean[..., seen]).unsqueeze(-1)
        distance = torch.linalg.solve_triangular(L, gaps, upper=False).square().sum((-2, -1))
        constant = L.diagonal(dim1=-2, dim2=-1).log().sum(-1) + len(seen) / 2 * math.log(2 * math.pi)
        parts.append(-distance / 2 - constant)
        places.append(pattern.rows)
    return torch.cat(parts)[torch.cat(places).argsort()]


def completed(of: Moments, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """By pattern the places of rows ``(m,)``, E[x | observed, c] ``(m, C, d)`` and Cov[x | observed, c] ``(C, d, d)``."""
    for pattern in _patterns(x):
        mean, seen, missing = _mean_of(of, pattern), pattern.seen, pattern.missing
        values = x[pattern.rows][:, None].expand(-1, of.covariance.shape[0], -1).clone()
        covariance = torch.zeros_like(of.covariance)
        if len(missing):
            S = of.covariance
            across = S[:, seen][:, :, missing]
            gain = torch.linalg.solve(S[:, seen][:, :, seen], across).mT if len(seen) else across.mT
            gaps = values[..., seen] - mean[..., seen]
            values[..., missing] = mean[..., missing] + (gain @ gaps.unsqueeze(-1)).squeeze(-1)
            left = S[:, missing][:, :, missing] - gain @ across
            covariance[:, missing[:, None], missing] = (left + left.mT) / 2
        yield pattern.rows, values, covariance


def second_moments(weight: Tensor, values: Tensor, columns: list[int], covariance: Tensor | None = None) -> Tensor:
    """Sum over rows of w z z^T with z = (1, x of these columns), for each configuration, ``(C, p + 1, p + 1)``.

    Args:
        weight: of each row and configuration, ``(m, C)``.
        values: x, or its expectations, ``(m, C, d)``; ``(m, 1, d)`` where they are the same for all configurations.
        columns: p of them.
        covariance: of x in a row, ``(C, d, d)``, where it is not known.
    """
    z = torch.cat([torch.ones_like(values[..., :1]), values[..., columns]], -1)
    if z.shape[1] == 1:
        z = z[:, 0]
        total = torch.einsum("mc,mi,mj->cij", weight, z, z)
    else:
        total = torch.einsum("mc,mci,mcj->cij", weight, z, z)
    if covariance is not None:
        part = covariance[:, columns][:, :, columns] * weight.sum(0)[:, None, None]
        total = total + torch.nn.functional.pad(part, (1, 0, 1, 0))
    return total


def regression(total: Tensor, floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """The likeliest intercept and slopes ``(C, p)``, and variances ``(C,)``, of the last column given those before it.

    The variance is the maximum-likelihood one: the sum of squares divided by the number of rows. A configuration without rows
    has the intercept 0 and the variance 1; columns that do not vary have the slope 0.

    Args:
        total: of :func:`second_moments`, ``(C, p + 1, p + 1)``, the last column what is explained.
        floor: the least variance.

    Examples:
        >>> x = torch.tensor([[[0.0, 1.0]], [[1.0, 3.0]], [[2.0, 5.0]]], dtype=torch.float64)
        >>> coefficients, variance = regression(second_moments(torch.ones(3, 1).double(), x, [0, 1]), 1e-6)
        >>> coefficients.round(), variance
        (tensor([[1., 2.]], dtype=torch.float64), tensor([1.0000e-06], dtype=torch.float64))
    """
    rows = total[:, 0, 0]
    A, r, t = total[:, :-1, :-1], total[:, :-1, -1], total[:, -1, -1]
    size = A.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(A.dtype).tiny).rsqrt()
    inverse = torch.linalg.pinv(size[:, :, None] * A * size[:, None], hermitian=True, rtol=CUTOFF)
    coefficients = size * (inverse @ (size * r).unsqueeze(-1)).squeeze(-1)
    left = t - 2 * (coefficients * r).sum(-1) + (coefficients * (A @ coefficients.unsqueeze(-1)).squeeze(-1)).sum(-1)
    variance = torch.where(rows > 0, left / rows.clamp_min(torch.finfo(A.dtype).tiny), 1.0)
    return coefficients, torch.maximum(variance, torch.as_tensor(floor).to(variance))


def _mean_of(of: Moments, pattern: Pattern) -> Tensor:
    return of.mean[pattern.rows] if of.mean.dim() == 3 else of.mean


def _patterns(x: Tensor) -> Iterator[Pattern]:
    found, which = x.isnan().unique(dim=0, return_inverse=True)
    for number, missing in enumerate(found):
        yield Pattern((which == number).nonzero()[:, 0], (~missing).nonzero()[:, 0], missing.nonzero()[:, 0])
