"""Shift and scale: fit the transform to the data, and tell what kind of values the model will see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.data.source import DataSource
from ppl_vae.data.transform import CHUNK, Transform
from ppl_vae.types import Kind

__all__ = ["Scaled", "extremes", "scaled"]


class Scaled(NamedTuple):
    """Raw train, valid and test ``(N, *event)``, their transform, and the narrowest kind of what a model sees."""

    parts: list[Tensor]
    transform: Transform
    kind: Kind


def scaled(source: DataSource, parts: list[Tensor], levels: int) -> Scaled:
    """Fit the declared scaling.

    Args:
        source: the declaration.
        parts: raw train, valid and test data, each ``(N, *event)``.
        levels: number of values that uint8 data can take.

    Raises:
        ValueError: dequantization of values that are not integers.
    """
    if source.dequantize and not all(_whole(part) for part in parts):
        raise ValueError(f"{source.source}: expected integers for dequantize, got fractions: use dequantize=False")
    how = _how(source, parts[0])
    if how == "standardize":
        return Scaled(parts, _transform(source, parts, *_moments(parts[0], noise=source.dequantize)), "real")
    if how == "none":
        return Scaled(parts, _transform(source, parts), "real" if source.dequantize else _kind_of(parts))
    if parts[0].dtype == torch.uint8:
        return _unit_by_levels(source, parts, levels)
    return _unit_by_extremes(source, parts)


def extremes(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each feature over all parts, ``(*event)`` float32; 0 where all are missing."""
    full = [part for part in parts if len(part)]
    low = torch.stack([_filled(part, torch.inf).amin(dim=0) for part in full]).amin(dim=0).float()
    high = torch.stack([_filled(part, -torch.inf).amax(dim=0) for part in full]).amax(dim=0).float()
    absent = low > high
    return low.masked_fill(absent, 0.0), high.masked_fill(absent, 0.0)


def _how(source: DataSource, train: Tensor) -> str:
    if source.scale != "auto":
        return source.scale
    image = train.dtype == torch.uint8 and train.ndim > 2
    return "unit" if image and source.kind not in ("count", "categorical") else "none"


def _transform(source: DataSource, parts: list[Tensor], loc: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Transform:
    return Transform(tuple(parts[0].shape[1:]), loc, scale, dequantize=source.dequantize)


def _unit_by_levels(source: DataSource, parts: list[Tensor], levels: int) -> Scaled:
    top = levels - 1
    two_valued = all(bool(((part == 0) | (part == top)).all()) for part in parts)
    if two_valued or max(int(part.max()) for part in parts if len(part)) <= 1:
        # Black and white need no scale, and as {0, 1} their probabilities need no Jacobian.
        parts, levels = [(part > 0).to(torch.uint8) for part in parts], 2
    scale = levels if source.dequantize else levels - 1
    kind: Kind = "binary" if levels == 2 and not source.dequantize else "unit_interval"
    return Scaled(parts, _transform(source, parts, 0.0, float(scale)), kind)


def _unit_by_extremes(source: DataSource, parts: list[Tensor]) -> Scaled:
    low, high = extremes(parts)
    if not source.dequantize and bool((low >= 0).all() and (high <= 1).all()):
        return Scaled(parts, _transform(source, parts), _kind_of(parts))
    width = high - low + float(source.dequantize)
    return Scaled(parts, _transform(source, parts, low, width.masked_fill(width == 0, 1.0)), "unit_interval")


def _moments(train: Tensor, *, noise: bool) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, ``(*event)``, of what is there; with dequantization noise if asked."""
    count, total = torch.zeros(2, *train.shape[1:], dtype=torch.float64)
    for rows in train.split(CHUNK):
        count += _present(rows).sum(dim=0)
        total += rows.double().nansum(dim=0)
    loc = total / count.clamp(min=1)
    variance = torch.zeros_like(loc)
    for rows in train.split(CHUNK):
        variance += ((rows.double() - loc) ** 2).nansum(dim=0)
    variance /= count.clamp(min=1)
    if noise:
        loc, variance = loc + 1 / 2, variance + 1 / 12  # of a uniform variable on [0, 1)
    scale = variance.sqrt()
    # A constant's spread is rounding error, which must not be blown up to 1.
    constant = scale <= torch.finfo(torch.float32).eps * loc.abs()
    return loc, scale.masked_fill(constant, 1.0)


def _kind_of(parts: list[Tensor]) -> Kind:
    low, high = (float(bound) for bound in _range(parts))
    whole = all(_whole(part) for part in parts)
    if low >= 0 and high <= 1:
        return "binary" if whole else "unit_interval"
    return "count" if whole and low >= 0 else "real"


def _range(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    low, high = extremes(parts)
    return low.min(), high.max()


def _whole(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(((x == x.floor()) | x.isnan()).all())


def _present(x: Tensor) -> Tensor:
    return ~x.isnan() if x.is_floating_point() else torch.ones_like(x, dtype=torch.bool)


def _filled(x: Tensor, value: float) -> Tensor:
    return x.nan_to_num(nan=value) if x.is_floating_point() else x
