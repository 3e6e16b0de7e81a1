"""One seed of a declaration, many uses of it that know nothing of each other."""

from __future__ import annotations

import numpy as np
from torch import Generator

__all__ = ["derived_seed", "seeded_generator"]


def seeded_generator(seed: int, stream: int) -> Generator:
    """A CPU generator for one use of a seed: 0 the order of rows, 1 to 3 the noise of train, valid and test."""
    return Generator().manual_seed(derived_seed(seed, stream))


def derived_seed(seed: int, *streams: int) -> int:
    """A seed for one use of a seed, or for one part of it, that has nothing to do with those of others.

    Examples:
        >>> derived_seed(0, 1) == derived_seed(0, 1) != derived_seed(0, 2)
        True
    """
    return int(np.random.SeedSequence([seed, *streams]).generate_state(1)[0])
