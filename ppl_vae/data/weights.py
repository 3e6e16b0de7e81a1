"""How often each row counts: weights as they come in, checked, and what they say of the number of rows.

mean = sum_n w_n l_n / W,   W = sum_n w_n,   effective number of rows = W^2 / sum_n w_n^2
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.missing import absent

__all__ = ["as_numbers", "as_weights", "check_parts", "effective_number", "on_device", "weights_apart"]

FLOAT64_MISSING = ("mps",)
"""Types of devices that have no float64."""


def as_weights(values: np.ndarray, rows: int, name: str, *, spelled: Collection[str] = ("",)) -> Tensor:
    """Weights ``(N,)`` in float64.

    Args:
        values: numbers, or text that spells them.
        rows: N.
        name: the source, for messages.
        spelled: texts that stand for a missing number, in lower case.

    Raises:
        ValueError: another number of weights than rows, no numbers, one that is missing, infinite or negative, or all 0.

    Examples:
        >>> as_weights(np.array([1, 0, 2]), 3, "survey")
        tensor([1., 0., 2.], dtype=torch.float64)
    """
    if values.shape != (rows,):
        raise ValueError(f"{name}: expected one weight for each of {rows} rows, got weights of shape {values.shape}")
    missing = absent(values, spelled)
    if missing.any():
        raise ValueError(
            f"{name}: expected a weight for each row, got none for {missing.sum()} of {rows}, first in row {missing.argmax()} "
            "(from 0): give 0 to rows that are not to count"
        )
    found = as_numbers(values, name)
    bad = ~(np.isfinite(found) & (found >= 0))
    if bad.any():
        raise ValueError(
            f"{name}: expected weights that are finite and not negative, got {found[bad][0]:g} in row {bad.argmax()} (from 0): "
            "give 0 to rows that are not to count"
        )
    if not found.any():
        raise ValueError(f"{name}: expected some weight above zero, got 0 for all {rows} rows: no row would count")
    return torch.from_numpy(found)


def as_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """Weights, of which none is missing, in float64.

    Raises:
        ValueError: text that spells none, dates, or other objects.
    """
    try:
        if values.dtype.kind not in "mM":  # of which numpy would count the nanoseconds
            return values.astype(np.float64)
    except (ValueError, TypeError):
        pass
    raise ValueError(f"{name}: expected weights as numbers, got dtype {values.dtype}: recode them")


def check_parts(parts: Sequence[Tensor | None], name: str) -> None:
    """Raise ``ValueError`` if no row of a split that has rows counts."""
    for part, split in zip(parts, ("train", "valid", "test"), strict=True):
        if part is not None and len(part) and not bool(part.any()):
            raise ValueError(
                f"{name}: expected a weight above 0 in each split, got 0 for all {len(part)} rows of {split}: set valid or "
                "test to 0, draw the splits by another seed, or leave rows of weight 0 out"
            )


class _Column(Protocol):
    """A column of a table: its name, and an entry for each row ``(N,)``."""

    @property
    def name(self) -> str: ...

    @property
    def values(self) -> np.ndarray: ...


C = TypeVar("C", bound=_Column)


def weights_apart(name: str, columns: Sequence[C], declared: str | None) -> tuple[np.ndarray | None, Sequence[C]]:
    """The entries of the column of the weights, and the other columns.

    Args:
        name: the source, for messages.
        columns: of a table.
        declared: the name of the column; ``None`` if all rows count alike.

    Raises:
        ValueError: there is none of that name, or more than one.
    """
    if declared is None:
        return None, columns
    found = [column for column in columns if column.name == declared]
    if not found:
        known = ", ".join(column.name for column in columns)
        raise ValueError(
            f"{name}: expected a column of weights among {known}, got {declared!r}: name another with weights "
            "(--data.weights), or none where all rows count alike"
        )
    if len(found) > 1:
        raise ValueError(f"{name}: expected one column of weights, got {declared!r} twice: rename one")
    return found[0].values, [column for column in columns if column is not found[0]]


def effective_number(weights: Tensor) -> float:
    """How many rows of equal weight tell as much (Kish 1965): (sum w)^2 / sum w^2.

    Examples:
        >>> effective_number(torch.tensor([2.0, 2.0, 0.0]))
        2.0
    """
    if not bool(weights.any()):
        return 0.0
    w = weights.double() / weights.max()  # so that no square overflows
    return float(w.sum().square() / w.square().sum())


def on_device(weights: Tensor | None, device: Any) -> Tensor | None:
    """The weights on a device, in the widest floats that it has."""
    if weights is None or device is None:
        return weights
    narrow = torch.device(device).type in FLOAT64_MISSING
    return weights.to(device=device, dtype=torch.float32 if narrow else None)
