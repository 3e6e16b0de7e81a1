"""Levels of a category, such as the batches that cells came in: texts by which its entries, their places, are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.missing import absent

__all__ = ["as_levels", "coded", "is_text", "recoded"]

SHOWN = 20  # levels that a message lists


def is_text(values: np.ndarray) -> bool:
    """Whether these are texts, some of them perhaps missing."""
    return values.dtype.kind == "U" or (
        values.dtype.kind == "O" and bool(values.size) and all(isinstance(cell, str) for cell in values[~absent(values, ("",))])
    )


def as_levels(values: np.ndarray, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Texts, whole numbers or booleans ``(N,)`` as places ``(N,)`` int32 among their levels, which are sorted, and these.

    Args:
        values: of a category.
        name: its name, for messages.

    Raises:
        ValueError: more than one entry a row, or rows without one.

    Examples:
        >>> import numpy as np
        >>> from ppl_vae.data.levels import as_levels
        >>> as_levels(np.array(["b", "a", "b"]), "batch")
        (tensor([1, 0, 1], dtype=torch.int32), ('a', 'b'))
    """
    if values.ndim != 1:
        raise ValueError(f"expected one level of {name} for each row, got an array of shape {values.shape}: give a column")
    missing = absent(values, ("",))
    if missing.any():
        raise ValueError(
            f"expected a level of {name} for each row, got none in {int(missing.sum())} rows, first in row "
            f"{int(missing.argmax())} (from 0): drop these rows, or give them a level of their own"
        )
    names, places = np.unique(values.astype(str) if values.dtype.kind == "O" else values, return_inverse=True)
    return torch.from_numpy(places.reshape(len(values)).astype(np.int32)), tuple(map(str, names.tolist()))


def recoded(column: Tensor, levels: tuple[str, ...], known: tuple[str, ...], name: str) -> Tensor:
    """Places among ``levels``, or without levels whole numbers that are their own names, as places among the ``known`` ones.

    Raises:
        ValueError: a level that is not known.
    """
    if levels == known:
        return column
    if levels:
        used = column.unique().tolist()
        texts = {place: levels[place] for place in used}
    else:
        texts = {value: str(value) for value in column.unique().tolist()}
    places = {value: _place(text, known, name) for value, text in texts.items()}
    found = torch.zeros(column.shape, dtype=torch.int32, device=column.device)
    for value, place in places.items():
        found[column == value] = place
    return found


def coded(values: Any, known: tuple[str, ...], name: str) -> Tensor:
    """Texts, one or several, as places ``(n,)`` among known levels.

    Raises:
        ValueError: a level that is not known.
    """
    texts = [values] if isinstance(values, str | int | bool | np.generic) else list(values)
    return torch.tensor([_place(str(text), known, name) for text in texts], dtype=torch.int64)


def _place(text: str, known: tuple[str, ...], name: str) -> int:
    if text not in known:
        listed = ", ".join(known[:SHOWN]) + (f", ... ({len(known)})" if len(known) > SHOWN else "")
        raise ValueError(f"expected {name} among the levels {listed}, got {text!r}: fit again with rows of it, or name another")
    return known.index(text)
