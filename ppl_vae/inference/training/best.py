"""The best epoch of a training by its validation rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["Best"]


class Best(NamedTuple):
    """The highest value of the pair's score on validation rows so far.

    Attributes:
        value: in nats per datum.
        epoch: of it; 0 before there is one.
        weights: the pair's as they were then, where they are asked for.
    """

    value: float = -math.inf
    epoch: int = 0
    weights: Mapping[str, Tensor] = {}

    def after(self, value: float, epoch: int, pair: nn.Module | None) -> Best:
        """The best when this epoch is counted; with copies of the weights of ``pair`` if there is one."""
        if not value > self.value:
            return self
        weights = {} if pair is None else {name: tensor.clone() for name, tensor in pair.state_dict().items()}
        return Best(value, epoch, weights)
