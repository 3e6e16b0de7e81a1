"""How many CPU threads a fit uses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["cpu_threads"]

# Multiplications in one step below which a second thread costs more in waiting than it saves: about a millisecond's worth.
WORTH_SHARING = 2**24


@contextlib.contextmanager
def cpu_threads(multiplications: int) -> Iterator[None]:
    """One thread for a step of so few multiplications, torch's own number for more; as it was afterwards.

    Threads that share a small matrix product spend their time waiting for each other, the more so on a busy machine.
    """
    threads = torch.get_num_threads()
    try:
        if multiplications < WORTH_SHARING:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
