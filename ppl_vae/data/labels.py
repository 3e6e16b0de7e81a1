"""Labels of any kind as numbers of classes, with -1 for rows that have none."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.missing import absent
from ppl_vae.types import FitWarning

__all__ = ["as_labels", "label_codes", "tell_missing_labels"]


def as_labels(
    y: np.ndarray, rows: int, name: str, classes: tuple[str, ...] | None = None, *, spelled: Collection[str] = ("",)
) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as int64 indices into class names, ``(N,)``, -1 where a row has none, and those names.

    -1 among labels from 0 on means a row without one, as in scikit-learn's ``semi_supervised``; beside other negative numbers
    it is a class as they are.

    Args:
        y: integers or strings, ``(N,)``; indices into ``classes`` where these are given, else anything that can be sorted.
        rows: N.
        name: the source, for messages.
        classes: names that integers point to.
        spelled: texts that stand for a missing label, in lower case.

    Raises:
        ValueError: another number of labels than rows, fractional labels, no label at all, or -1 beside one other number,
            which may be the second class of two.
    """
    y = y.reshape(len(y)) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (rows,):
        raise ValueError(f"{name}: expected one label for each of {rows} rows, got labels of shape {y.shape}")
    if classes is not None:
        there = ~absent(y, spelled)
        values = _whole_or_text(y[there], name)
        if len(values) and not (values.min() >= 0 and values.max() < len(classes)):
            raise ValueError(f"{name}: expected labels in 0..{len(classes) - 1}, got {values.min()}..{values.max()}")
        return _placed(values, there), classes
    codes, names = label_codes(y, rows, name, spelled=spelled)
    without = y[codes.numpy() < 0]
    tell_missing_labels(without, len(without), name)
    return codes, names


def label_codes(y: np.ndarray, rows: int, name: str, *, spelled: Collection[str] = ("",)) -> tuple[Tensor, tuple[str, ...]]:
    """The same of labels ``(n,)`` whose classes are not known, without a remark on those that are missing.

    Args:
        y: all labels of so many rows, or each different one once.
        rows: N, for messages.
        name: the source, for messages.
        spelled: texts that stand for a missing label, in lower case.
    """
    there = ~absent(y, spelled)
    values = _whole_or_text(y[there], name)
    labelled = _labelled(values, name)
    there[there] = labelled
    if rows and not there.any():
        told = f"{name}: expected a label in some of {rows} rows, got none: leave the labels away"
        raise ValueError(told) from KeyError("labels")  # whose lack new rows may afford
    names, codes = np.unique(values[labelled], return_inverse=True)
    return _placed(codes, there), tuple(map(str, names))


def _placed(codes: np.ndarray, there: np.ndarray) -> Tensor:
    """The codes in the rows that have one, -1 in the others."""
    placed = np.full(there.shape, -1, np.int64)
    placed[there] = codes
    return torch.from_numpy(placed)


def _labelled(values: np.ndarray, name: str) -> np.ndarray:
    """Which of the labels name a class, where -1 may say that there is none."""
    if values.dtype.kind != "i" or set(values[values < 0].tolist()) != {-1}:
        return np.ones(values.shape, dtype=bool)
    others = np.unique(values[values >= 0])
    if len(others) == 1:
        raise ValueError(
            f"{name}: expected labels of two classes as 0 and 1 or as names, got -1 and {others[0]}, where -1 may also stand "
            "for rows without a label: recode them, or give NaN for rows without"
        )
    return values >= 0


def tell_missing_labels(cells: np.ndarray, rows: int, name: str) -> None:
    """Remark that so many rows have no label, if some have none, with what stands there."""
    found = sorted({f"{cell:g}" if isinstance(cell, float) else repr(cell) for cell in cells.tolist()})
    if found:
        classes = "give classes by name" if "-1" in found else "say what stands for a missing label with missing_text"
        warnings.warn(
            f"{name}: {rows} rows have no label (got {', '.join(found[:4])}), and cannot be used where labels are "
            f"needed; if that is a class, {classes}",
            FitWarning,
            stacklevel=2,
        )


def _whole_or_text(y: np.ndarray, name: str) -> np.ndarray:
    if y.dtype.kind in "biuU":
        return y
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.floor(y)).all():
        return y.astype(np.int64)
    if y.dtype.kind == "O" and all(isinstance(value, str) for value in y):
        return y.astype(str)
    if y.dtype.kind == "O" and all(isinstance(value, (Integral, np.bool_)) for value in y):
        return np.array(y.tolist())
    raise ValueError(f"{name}: expected labels that are integers or strings, got dtype {y.dtype}: recode them")
