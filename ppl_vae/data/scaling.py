"""Shift and scale: fit the transform to the data, and tell what kind of values the model will see."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.data.pens import END_OF_DRAWING, offset_scale
from ppl_vae.data.precision import UNIFORM, constants, fine, in_doubt, narrowed, refuse_fill, refuse_fine, refuse_tiny, rounded
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.source import DataSource
from ppl_vae.data.sparse import Sparse
from ppl_vae.data.stream import Stream
from ppl_vae.data.summary import Summary, summarized
from ppl_vae.data.transform import Transform
from ppl_vae.types import BINARY, COUNT, REAL, STROKES, UNIT_INTERVAL, Kind

__all__ = ["Scaled", "drawings", "scaled"]


class Scaled(NamedTuple):
    """Raw train, valid and test ``(N, *event)``, what was found in them, their transform, and the kind of what a model sees."""

    parts: list[Tensor | Stream | Sparse | Ragged]
    found: Summary
    transform: Transform
    kind: Kind


def scaled(source: DataSource, parts: list[Tensor | Stream | Sparse | Ragged], levels: int, *, exact: bool = False) -> Scaled:
    """Fit the declared scaling, in one pass over the rows.

    Args:
        source: the declaration.
        parts: raw train, valid and test data, each ``(N, *event)``; of rows of different lengths the elements are scaled.
        levels: number of values that uint8 data can take.
        exact: whether all digits of the source are kept, whatever they are good for.

    Raises:
        ValueError: nothing but missing entries, or dequantization of values that are not integers.
    """
    how, dtype = _how(source, parts[0]), parts[0].dtype
    noise, centred = bool(source.dequantize), how == "standardize"
    found = summarized(parts, top=levels - 1, moments=centred)
    if not centred and in_doubt(found, parts[0], noise=noise):
        found = summarized(parts, top=levels - 1, moments=True)
    if not found.present:
        if isinstance(parts[0], Ragged):
            raise ValueError(f"{source.source}: expected values, got {sum(map(len, parts))} rows that are empty or all NaN")
        entries = sum(map(len, parts)) * found.low.numel()
        raise ValueError(f"{source.source}: expected values, got NaN in {entries} entries, which is all: give the data")
    refuse_fill(parts, found, source.source)
    refuse_tiny(found, source.source)
    if noise and not found.whole:
        raise ValueError(f"{source.source}: expected integers for dequantize, got fractions: use dequantize='none'")
    features = fine(found, dtype, noise=noise, centred=centred)
    exact = exact or bool(features.any())
    # One row has no deviation that could tell which of its digits matter: a fit that it is shown to knows.
    wide = exact or (len(parts[0]) == 1 and bool((found.lost > 0).any()))
    parts = [narrowed(part, found, exact=wide) for part in parts]
    found = found if exact else rounded(found, dtype)
    if centred:
        loc, scale = _standard(found, dtype, noise=noise)
        return Scaled(parts, found, _transform(source, found, loc, scale, exact=exact), REAL)
    if how == "unit" and dtype == torch.uint8:
        return _unit_by_levels(source, parts, found, levels)
    if how == "unit" and (noise or bool((found.low < 0).any() or (found.high > 1).any())):
        return Scaled(parts, found, _unit_by_extremes(source, found, exact=exact), UNIT_INTERVAL)
    refuse_fine(found, features, source.source)
    return Scaled(parts, found, _transform(source, found), REAL if noise else _kind_of(found))


def drawings(source: DataSource, parts: list[Tensor | Stream | Sparse | Ragged]) -> Scaled:
    """Points (dx, dy, pen) of drawings over the standard deviation of the training rows' offsets, unless they are left alone.

    One number serves both offsets, and none is subtracted, so that a drawing keeps its shape and a line that ends where it
    began still does. The pen stays as it is.
    """
    found = summarized(parts, top=END_OF_DRAWING, moments=True)
    parts = [narrowed(part, found, exact=False) for part in parts]
    scale = 1.0 if source.scale == "none" else offset_scale(found.moments)
    return Scaled(parts, found, _transform(source, found, 0.0, scale), STROKES)


def _how(source: DataSource, train: Tensor | Stream | Sparse | Ragged) -> str:
    if source.scale != "auto":
        return source.scale
    image = train.dtype == torch.uint8 and len(train.shape) > 2
    return "unit" if image and source.kind not in ("count", "categorical") else "none"


def _transform(
    source: DataSource, found: Summary, loc: Tensor | float = 0.0, scale: Tensor | float = 1.0, *, exact: bool = False
) -> Transform:
    return Transform(tuple(found.low.shape), loc, scale, dequantize=bool(source.dequantize), exact=exact)


def _unit_by_levels(source: DataSource, parts: list[Tensor | Stream | Sparse | Ragged], found: Summary, levels: int) -> Scaled:
    if found.two_valued or found.high.max() <= 1:
        # Black and white need no scale, and as {0, 1} their probabilities need no Jacobian.
        parts, levels = [_black_and_white(part) for part in parts], 2
        found = found._replace(high=(found.high > 0).double())
    scale = levels if source.dequantize else levels - 1
    kind = BINARY if levels == 2 and not source.dequantize else UNIT_INTERVAL
    return Scaled(parts, found, _transform(source, found, 0.0, float(scale)), kind)


def _black_and_white(part: Tensor | Stream | Sparse | Ragged) -> Tensor | Stream | Sparse | Ragged:
    if isinstance(part, Ragged | Sparse):
        return part.mapped(lambda values: (values > 0).to(torch.uint8))
    return part.black_and_white() if isinstance(part, Stream) else (part > 0).to(torch.uint8)


def _unit_by_extremes(source: DataSource, found: Summary, *, exact: bool) -> Transform:
    width = found.high - found.low + float(bool(source.dequantize))
    return _transform(source, found, found.low, width.masked_fill(width == 0, 1.0), exact=exact)


def _standard(found: Summary, dtype: torch.dtype, *, noise: bool) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each training feature, ``(*event)``; with dequantization noise if asked."""
    loc, variance = found.moments.mean, found.moments.variance
    if noise:
        return loc + 1 / 2, (variance + UNIFORM).sqrt()
    # A constant's spread is rounding error, which must not be blown up to 1.
    return loc, variance.sqrt().masked_fill(constants(found, dtype), 1.0)


def _kind_of(found: Summary) -> Kind:
    low, high = float(found.low.min()), float(found.high.max())
    if low >= 0 and high <= 1:
        return BINARY if found.whole else UNIT_INTERVAL
    return COUNT if found.whole and low >= 0 else REAL
