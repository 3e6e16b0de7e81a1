"""The words that a training is declared in: how its rate falls, and what is done where it does not stay finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

__all__ = ["SCHEDULES", "OnNonFinite"]


OnNonFinite = Literal["stop", "skip", "rewind"]

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda part: 1.0,
    "cosine": lambda part: (1 + math.cos(math.pi * part)) / 2,
    "exponential": lambda part: 0.01**part,
}
"""The factor of the learning rate when so large a part of the epochs is over."""
