"""Snapshots as they were written before their files had a format: other names for the same."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["of_format_0"]

TENSORS = ((r"optimizer\.(\d+)\.", r"optimizers.\1.moments."), (r"best\.", "best.weights."), (r"(\d+\.\d+)$", r"starts.\1"))
SVI = {"planned": "planned_epochs", "taken": "batch_index", "turn": "active_optimizer", "damping": "rate_factor"}
EM = {"steps": "cursor.steps", "judged": "cursor.reference_value", "gained": "cursor.gained", "rate": "cursor.rate"}
WITHOUT = {"cursor.gained": math.inf, "cursor.rate": 0.0, "max_iterations": math.inf}  # the oldest ones of EM tell none


def of_format_0(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain values of such a snapshot under the names of now.

    Examples:
        >>> of_format_0({}, {"judged": -1.5, "steps": 2, "seconds": 0.1})[1]["cursor.reference_value"]
        -1.5
    """
    if "judged" in metadata:
        told = WITHOUT | {EM.get(name, name): value for name, value in metadata.items()}
    else:
        told = {SVI.get(name, name): value for name, value in metadata.items() if name not in ("steps", "best")}
        told |= {f"optimizers.{place}.steps": steps for place, steps in enumerate(metadata.get("steps", ()))}
        told |= dict(zip(("best.value", "best.epoch"), metadata.get("best", ()), strict=False))
    return {_renamed(name): value for name, value in tensors.items()}, told


def _renamed(name: str) -> str:
    for before, now in TENSORS:
        name, found = re.subn(f"^{before}", now, name)
        if found:
            break
    return name
