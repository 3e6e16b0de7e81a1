"""What a network costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ppl_vae.program.dispatch import DispatchMode

__all__ = ["multiplications"]


def multiplications(function: Callable[..., Any], *inputs: Any, gradients: bool = False) -> int:
    """The multiplications of matrix products and convolutions in one call of a function or module, forwards.

    An affine map of W takes as many as it has weights, a convolution that many at every position. Element-wise operations
    are not counted. The function is called once, without ``gradients`` unless it asks for some itself.

    Examples:
        >>> from ppl_vae.nn.cost import multiplications
        >>> multiplications(MLP(hidden=(50,)).build((10,), (3,)), torch.zeros(2, 10))
        1300
    """
    with torch.set_grad_enabled(gradients), _Counter() as counter:
        function(*inputs)
    return counter.flops // 2  # each goes with an addition


class _Counter(DispatchMode):
    """Torch's formulas without its ``FlopCounterMode``, whose hooks on modules disturb parameters that a call creates."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # which takes its time

        super().__init__()
        self.flops = 0
        self.formulas = flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        formula = self.formulas.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=found)
        return found
