"""Points on a simplex that keep their logarithms.

    s = softmax(t),   log s = t - logsumexp(t)

At a low temperature most entries of s underflow: they are exact zeros, of whose logarithms nothing is left, while log s is an
ordinary number. So a point that is made from logarithms carries them along, and densities read them from it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["log_coordinates", "moved", "of_logarithms", "remembered"]

MEMORY = "_ppl_vae_logarithms"


def of_logarithms(log: Tensor) -> Tensor:
    """The points ``(..., K)`` whose logarithms, normalized along the last axis, are ``log``; they remember them.

    Examples:
        >>> point = of_logarithms(torch.tensor([0.0, -500.0]).log_softmax(-1))
        >>> point, log_coordinates(point)
        (tensor([1., 0.]), tensor([   0., -500.]))
    """
    point = log.softmax(-1)  # sums to one up to a rounding, which exp(log) of a large K does not
    setattr(point, MEMORY, log)
    return point


def log_coordinates(point: Tensor) -> Tensor:
    """The logarithms of points ``(..., K)``: those they remember; else of their entries, where a zero is the least number."""
    log = remembered(point)
    return point.clamp_min(torch.finfo(point.dtype).tiny).log() if log is None else log


def remembered(point: Tensor) -> Tensor | None:
    """The logarithms that points were made from, if they were."""
    return vars(point).get(MEMORY)


def moved(points: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Points that were picked, copied or arranged anew by ``move``, their logarithms with them."""
    there, log = move(points), remembered(points)
    if log is not None:
        setattr(there, MEMORY, move(log))
    return there
