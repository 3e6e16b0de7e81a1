"""Floors of variances, relative to the data, so that a fit does not depend on the units that a column is measured in.

Without a floor the likelihood has no maximum: a constant column, a column that the factors explain entirely (a Heywood case)
or a component without spread in some direction has an infinite density. A floor is a share of each column's own standard
deviation; a constant column, which has none, takes the geometric mean of the others'.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DEFAULT", "columns_named", "common", "constant", "units", "variance_floor"]

DEFAULT = 1e-3
_ROUNDING = 2.0**-40  # of a mean: the spread that summing a constant in float64 may leave
_WIDEST = 1e-8  # common floor / largest floor: below, float64 moments of the widest column hold no digits of the noise


def constant(mean: Tensor, variance: Tensor) -> Tensor:
    """Which columns have no spread but rounding, ``(D,)``, whatever their units."""
    return variance.sqrt() <= _ROUNDING * mean.abs()


def units(mean: Tensor, variance: Tensor) -> Tensor:
    """Standard deviation of each column, ``(D,)``; of a constant one the geometric mean of the others', 1 if there are none."""
    still = constant(mean, variance)
    log_scale = torch.where(still, 1.0, variance).log() / 2
    middle = log_scale.sum() / (~still).sum().clamp_min(1)
    return torch.where(still, middle, log_scale).exp()


def variance_floor(mean: Tensor, variance: Tensor, floor: float = DEFAULT) -> Tensor:
    """Least variance of each column, ``(floor * unit)^2``, ``(D,)``.

    Examples:
        >>> variance_floor(torch.zeros(2), torch.tensor([4.0, 64.0]), floor=0.5)
        tensor([ 1., 16.])
    """
    return (floor * units(mean, variance)).square()


def common(floor: Tensor) -> Tensor:
    """The floor of one variance for all columns, ``()``: the least of theirs, so that no wide column hides what is narrow."""
    return floor.min().clamp_min(_WIDEST * floor.max())


def columns_named(which: Tensor, limit: int = 8) -> str:
    """Indices of a mask ``(D,)`` in parentheses, the first few of them."""
    columns = which.nonzero().flatten().tolist()
    return "(" + ", ".join(map(str, columns[:limit])) + (", ..." if len(columns) > limit else "") + ")"
