"""One seed of a declaration, many uses of it that know nothing of each other."""

from __future__ import annotations

import numpy as np
from torch import Generator

__all__ = ["seeded_generator"]


def seeded_generator(seed: int, stream: int) -> Generator:
    """A CPU generator for one use of a seed: 0 the order of rows, 1 to 3 the noise of train, valid and test."""
    return Generator().manual_seed(int(np.random.SeedSequence([seed, stream]).generate_state(1)[0]))
