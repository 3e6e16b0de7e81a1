"""From whatever array came in to tensors that the rest may rely on: few dtypes, one layout, finite values, coded labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppl_vae.text import as_line, denied

if TYPE_CHECKING:
    from ppl_vae.data.stream import Stream

__all__ = [
    "Raw",
    "arranged",
    "as_array",
    "as_labels",
    "as_tensor",
    "refuse_infinite",
    "refuse_missing",
    "smallest",
    "unreadable",
]


class Raw(NamedTuple):
    """What a reader gives: arrays as they came.

    ``x`` is ``(N, *event)``, or a stream of it. ``y`` is ``(N,)`` or ``None``. ``levels`` is the number of values an image can
    take where that is not 256. A source with its own test set gives ``test_x``, ``test_y``, and the names of the ``classes``
    that labels point to. ``fields`` are what came beside x, by name, and ``name`` is x's own among them.
    """

    x: np.ndarray | Stream
    y: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    levels: int | None = None
    test_x: np.ndarray | None = None
    test_y: np.ndarray | None = None
    fields: Mapping[str, Any] | None = None
    name: str = "x"


def as_array(values: Any, what: str) -> np.ndarray:
    """A numpy array of numbers, labels or text in memory: an array (masked entries as NaN), a tensor, nested lists.

    Raises:
        ValueError: rows of different lengths, or a tensor that numpy has no array for.
    """
    try:
        if isinstance(values, Tensor):
            values = values.detach().cpu()
            return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        if isinstance(values, np.ma.MaskedArray):
            return np.ma.filled(values.astype(np.float64), np.nan)
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        told = f"got {type(values).__name__}: {as_line(error, 120)}"
        raise ValueError(f"expected {what} as one dense array, every row of one shape, {told}") from None


def as_tensor(x: np.ndarray, name: str, *, missing: bool = False) -> Tensor:
    """Raw data ``(N, *event)`` as uint8 (images and bytes), int32 or float32, images with their channels first.

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
    small = smallest(x)
    _refuse_overflow(x, small, name)
    return arranged(small)


def arranged(x: np.ndarray) -> Tensor:
    """Rows of the smallest dtype as a tensor ``(N, *event)``, images with their channels first."""
    tensor = torch.from_numpy(np.require(x, requirements=["C", "W"]))
    return _channels_first(tensor[:, None] if tensor.ndim == 1 else tensor)


def smallest(x: np.ndarray) -> np.ndarray:
    """Numbers as uint8 (booleans and bytes), int32 or float32, whether they fit or not."""
    if x.dtype.kind == "b" or x.dtype == np.uint8:
        return x.astype(np.uint8, copy=False)
    with np.errstate(over="ignore"):
        return x.astype(np.float32 if x.dtype.kind == "f" else np.int32)


def as_labels(y: np.ndarray, rows: int, name: str, classes: tuple[str, ...] | None = None) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as int64 indices into class names, ``(N,)``, and those names.

    Args:
        y: integers or strings, ``(N,)``; indices into ``classes`` where these are given, else anything that can be sorted.
        rows: N.
        name: the source, for messages.
        classes: names that integers point to.

    Raises:
        ValueError: another number of labels than rows, missing or fractional labels.
    """
    y = y.reshape(len(y)) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (rows,):
        raise ValueError(f"{name}: expected one label for each of {rows} rows, got labels of shape {y.shape}")
    y = _whole_or_text(y, name)
    if classes is None:
        values, codes = np.unique(y, return_inverse=True)
        return torch.from_numpy(codes.astype(np.int64)), tuple(map(str, values))
    if rows and not (y.min() >= 0 and y.max() < len(classes)):
        raise ValueError(f"{name}: expected labels in 0..{len(classes) - 1}, got {y.min()}..{y.max()}")
    return torch.from_numpy(y.astype(np.int64)), classes


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


def _refuse_overflow(x: np.ndarray, small: np.ndarray, name: str) -> None:
    if small.dtype == np.float32 and np.isinf(small).any():
        raise ValueError(f"{name}: expected values that fit float32, got {np.nanmax(np.abs(x)):.3g}: rescale them")
    if small.dtype == np.int32:
        low, high = int(x.min()), int(x.max())
        if low < -(2**31) or high >= 2**31:
            raise ValueError(
                f"{name}: expected integers that fit int32, got {low}..{high}: subtract an offset or convert to float"
            )


def _channels_first(x: Tensor) -> Tensor:
    """Images, which are uint8 and not flat: ``(N, H, W)`` and ``(N, H, W, C)`` become ``(N, C, H, W)``."""
    if x.dtype != torch.uint8:
        return x
    if x.ndim == 3:
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


def _whole_or_text(y: np.ndarray, name: str) -> np.ndarray:
    if y.dtype.kind in "biuU":
        return y
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.floor(y)).all():
        return y.astype(np.int64)
    if y.dtype.kind == "O" and all(isinstance(value, str) for value in y):
        return y.astype(str)
    raise ValueError(f"{name}: expected labels that are integers or strings, none missing, got dtype {y.dtype}")
