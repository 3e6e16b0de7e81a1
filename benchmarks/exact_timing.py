"""How the parts of `benchmarks.exact` take the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

__all__ = ["absence", "timed"]


def timed(work: Callable[[], Any], rounds: int) -> float:
    """Median seconds of the processor, once warm."""
    work()
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return median(seconds)


def absence(error: ImportError) -> str:
    """What to tell of a peer that cannot be imported."""
    return f"{error}: pip install 'ppl_vae[bench]'"
