"""From whatever array came in to tensors that the rest may rely on: few dtypes, one layout, finite values."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.missing import absent
from ppl_vae.text import as_line, denied

__all__ = [
    "arranged",
    "as_array",
    "as_tensor",
    "numbers",
    "refuse_infinite",
    "refuse_missing",
    "unreadable",
]


def as_array(values: Any, what: str) -> np.ndarray:
    """A numpy array of numbers, labels or text in memory: an array, a tensor, nested lists.

    Entries that are masked, ``None`` or pandas' ``NA`` among numbers are NaN.

    Raises:
        ValueError: rows of different lengths, a sparse matrix, or a tensor that numpy has no array for.
    """
    if type(values).__module__.startswith("scipy.sparse"):
        raise ValueError(f"expected {what} as one dense array, got a sparse {type(values).__name__}: give its .toarray()")
    try:
        if isinstance(values, Tensor):
            values = values.detach().cpu()
            return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        if isinstance(values, np.ma.MaskedArray):
            return np.ma.filled(values.astype(np.float64), np.nan)
        array = np.asarray(values)
        return numbers(array) if array.dtype.kind == "O" else array
    except (ValueError, TypeError, RuntimeError) as error:
        told = f"got {type(values).__name__}: {as_line(error, 120)}"
        if isinstance(values, Sequence) and "inhomogeneous" in told:
            told = "got rows of different lengths: give sequences as pv.Ragged.from_list(rows)"
        raise ValueError(f"expected {what} as one dense array, every row of one shape, {told}") from None


def numbers(cells: np.ndarray) -> np.ndarray:
    """Objects that are numbers or missing as float64 with NaN; others, and those that are all missing, as they are."""
    missing = absent(cells, ())
    if missing.all() or not all(isinstance(cell, Number) for cell in cells[~missing]):
        return cells
    filled = np.full(cells.shape, np.nan)
    filled[~missing] = cells[~missing].astype(np.float64)
    return filled


def as_tensor(x: np.ndarray, name: str, *, missing: bool = False) -> Tensor:
    """Raw data ``(N, *event)`` as uint8 (images and bytes), int32, int64, float32 or float64, images with their channels first.

    Args:
        x: numbers, or booleans; one number a row is taken for an event of shape ``(1,)``.
        name: the source, for messages.
        missing: whether NaN may stand for a missing entry.

    Raises:
        ValueError: no rows, no numbers, complex numbers, values that do not fit, infinite or (unless allowed) missing ones.
    """
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected real numbers, got an array of dtype {x.dtype}: convert it, for example to float32")
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"{name}: expected at least one row of at least one value, got an array of shape {x.shape}")
    if x.dtype.kind == "f":
        refuse_infinite(x, name)
        if not missing:
            refuse_missing(x, name)
    _refuse_overflow(x, name)
    return arranged(x)


def arranged(x: np.ndarray) -> Tensor:
    """Rows of numbers as a tensor ``(N, *event)`` of a dtype that holds each of them, images with their channels first."""
    tensor = torch.from_numpy(np.require(x.astype(_holding(x.dtype), copy=False), requirements=["C", "W"]))
    return _channels_first(tensor[:, None] if tensor.ndim == 1 else tensor)


def _holding(dtype: np.dtype) -> type[np.generic]:
    """The dtype, of those that are worked with, that holds numbers of this one."""
    if dtype.kind == "b" or dtype == np.uint8:
        return np.uint8
    if dtype.kind == "f":
        return np.float32 if dtype.itemsize <= 4 else np.float64
    return np.int32 if np.can_cast(dtype, np.int32) else np.int64


def unreadable(path: Path, error: Exception) -> ValueError:
    """The error for a file that its format's library gave up on."""
    if isinstance(error, PermissionError):
        return denied(path, error)
    if ("allow_pickle" in str(error) and "Object arrays" in str(error)) or "Python objects" in str(error):
        return ValueError(
            f"{path}: expected an array of numbers, got pickled objects, which are not loaded: save it as numbers"
        )
    return ValueError(
        f"{path}: expected a readable {path.suffix} file, got a damaged one ({as_line(error, 200)}): make or fetch it again"
    )


def _refuse_overflow(x: np.ndarray, name: str) -> None:
    if x.dtype.kind == "f" and x.dtype.itemsize > 4:
        largest = max(np.nanmax(x, initial=0.0), -np.nanmin(x, initial=0.0))
        if largest > np.finfo(np.float32).max:
            raise ValueError(f"{name}: expected values that fit float32, got {largest:.3g}: rescale them")
    if x.dtype == np.uint64 and (high := int(x.max())) >= 2**63:
        raise ValueError(f"{name}: expected integers that fit int64, got {high}: subtract an offset or convert to float")


def _channels_first(x: Tensor) -> Tensor:
    """Images: ``(N, H, W)`` of uint8, and ``(N, H, W, C)`` of any numbers, become ``(N, C, H, W)``."""
    if x.ndim == 3 and x.dtype == torch.uint8:
        return x[:, None]
    channels = (1, 3, 4)
    last = x.ndim == 4 and x.shape[3] in channels and x.shape[1] not in channels
    return x.movedim(3, 1).contiguous() if last else x


def refuse_infinite(x: np.ndarray, name: str) -> None:
    """Raise ``ValueError`` if a number is infinite."""
    infinite = np.isinf(x)
    if infinite.any():
        raise ValueError(f"{name}: expected finite values, got inf in {_where(infinite)}: drop these rows or cap the values")


def refuse_missing(x: np.ndarray, name: str) -> None:
    """Raise ``ValueError`` if a number is missing."""
    absent = np.isnan(x)
    if absent.any():
        raise ValueError(
            f"{name}: expected complete data, got NaN in {_where(absent)}: drop or fill them, or load with missing='ignore' "
            "for a model that supports missing entries"
        )


def _where(bad: np.ndarray) -> str:
    rows = bad.reshape(len(bad), -1).any(axis=1)
    return f"{bad.sum()} entries of {rows.sum()} rows, first in row {rows.argmax()} (from 0)"
