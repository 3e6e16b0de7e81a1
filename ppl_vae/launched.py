"""How many processes torchrun started together, as it tells each of them: asked before torch is imported."""

from __future__ import annotations

import os

__all__ = ["LostProcessError", "launched"]

TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class LostProcessError(RuntimeError):
    """Another process of the group is gone or cannot be reached: nothing can be computed together any more."""


def launched() -> int:
    """The number of processes; one where nothing is told.

    Examples:
        >>> launched()
        1
    """
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in TOLD) else 1
