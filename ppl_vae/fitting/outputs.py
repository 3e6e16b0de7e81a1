"""What leaves a fit, in the form in which rows came in."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["as_given"]


def as_given(given: Any, found: Any) -> Any:
    """A tree of tensors as arrays where rows came as an array, else as it is."""
    if not isinstance(given, np.ndarray):
        return found
    return tree_map(lambda value: value.cpu().numpy() if isinstance(value, Tensor) else value, found)
