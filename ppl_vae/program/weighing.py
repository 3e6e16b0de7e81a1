"""Rows of a batch that do not count alike, while its objective is computed.

    L = (1 / W) (N / B sum_b w_b l_b + l),   W = sum of the weights of all N training data,   l of what all data share

A plate over the N data scales the terms of a batch by N / B already, and objectives divide by N. So the terms of a datum count
w_b N / W times, and what all data share N / W times: beside parameters with priors a row of weight w is as good as w rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

__all__ = ["Weighing", "batch_weights", "mean_by_weight", "weighing"]

_WEIGHTS: ContextVar[Tensor | None] = ContextVar("weights", default=None)


@contextlib.contextmanager
def weighing(weights: Tensor | None) -> Iterator[None]:
    """Inside, the rows of the batch that an objective is called with have these weights ``(B,)``; ``None``: all count once."""
    token = _WEIGHTS.set(weights)
    try:
        yield
    finally:
        _WEIGHTS.reset(token)


def batch_weights() -> Tensor | None:
    """The weights of the rows of the batch in progress ``(B,)``, if they have any."""
    return _WEIGHTS.get()


def mean_by_weight(values: Tensor, mean_weight: float) -> Tensor:
    """The share of a batch's values ``(..., B)`` in the mean over all data, a scalar; their mean where all count once.

    Args:
        values: of each datum.
        mean_weight: W / N, over the training data.
    """
    weights = _WEIGHTS.get()
    return values.mean() if weights is None else (values * (weights.to(values) / mean_weight)).mean()


class Weighing(Messenger):
    """Sites count by the weights of their rows.

    Args:
        weights: w, ``(B,)``.
        of_data: the plate over the data that a site stands in, if it stands in one.
        dim: of that plate, counted from the right.
        mean_weight: W / N, over the training data.
    """

    def __init__(self, weights: Tensor, of_data: Callable[[Any], Any], dim: int, mean_weight: float) -> None:
        super().__init__()
        self.weights = weights.reshape(-1, *(1 for _ in range(-dim - 1)))
        self.of_data = of_data
        self.mean_weight = mean_weight

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        share = self.weights if self.of_data(msg) else 1.0
        msg["scale"] = msg["scale"] * (share / self.mean_weight)
