"""What a network costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["multiplications"]


def multiplications(function: Callable[..., Any], *inputs: Any) -> int:
    """The multiplications of matrix products and convolutions in one call of a function or module, forwards.

    An affine map of W takes as many as it has weights, a convolution that many at every position. Element-wise operations
    are not counted. The function is called once, without gradients.

    Example:
        >>> from ppl_vae.nn.cost import multiplications
        >>> multiplications(MLP(hidden=(50,)).build((10,), (3,)), torch.zeros(2, 10))
        1300
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops() // 2  # each goes with an addition
