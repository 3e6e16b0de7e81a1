"""What stands for a missing entry: one rule for values and labels, in csv and parquet files, frames and arrays.

Missing is what is empty, null, NaN, ``None`` or pandas' ``NA`` and ``NaT``, and a text that is spelled as
:data:`SPELLINGS` are, in any case, or as ``DataSource.missing_text`` says instead.
"""

from __future__ import annotations

from collections.abc import Collection
from numbers import Number

import numpy as np

__all__ = ["SPELLINGS", "absent", "is_absent", "spellings"]

SPELLINGS = ("NA", "N/A", "#N/A", "NaN", "null", "None", "<NA>")


def spellings(declared: tuple[str, ...] | None) -> frozenset[str]:
    """The texts that stand for a missing entry, the empty one included, as they are compared: in lower case."""
    return frozenset({"", *(text.strip().lower() for text in (SPELLINGS if declared is None else declared))})


def is_absent(cell: object, spelled: Collection[str]) -> bool:
    """Whether a cell stands for a missing entry.

    Examples:
        >>> [is_absent(cell, spellings(None)) for cell in (None, float("nan"), " ", "n/a", "nano", 0)]
        [True, True, True, True, False, False]
    """
    if isinstance(cell, str):
        return cell.strip().lower() in spelled
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, Number) and cell != cell)


def absent(values: np.ndarray, spelled: Collection[str]) -> np.ndarray:
    """Which entries are missing, as booleans of the shape of ``values``."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind == "M":
        return np.isnat(values)
    if values.dtype.kind == "U":
        return np.isin(np.char.lower(np.char.strip(values)), list(spelled))
    if values.dtype.kind == "O":
        cells = values.ravel().tolist()
        try:
            known = {cell: is_absent(cell, spelled) for cell in set(cells)}  # text has few different cells, often
            found = [known[cell] for cell in cells]
        except TypeError:  # lists, which have no hash
            found = [is_absent(cell, spelled) for cell in cells]
        return np.array(found, dtype=bool).reshape(values.shape)
    return np.zeros(values.shape, dtype=bool)
