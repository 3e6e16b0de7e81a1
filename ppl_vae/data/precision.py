"""Whether float32 holds what tells the values of a feature apart, and what to keep where it does not.

A feature is *fine* if rounding to float32 moves one of its values, or its mean, by more than a thousandth of its standard
deviation over the training rows: unix seconds within a day, metres from the equator within a field.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ppl_vae.data.ragged import Ragged
from ppl_vae.data.sparse import Sparse
from ppl_vae.data.stream import Stream
from ppl_vae.data.summary import WIDE, Summary, moments_of
from ppl_vae.data.transform import CHUNK, Transform

__all__ = [
    "UNIFORM",
    "constants",
    "fine",
    "in_doubt",
    "narrowed",
    "refuse_fill",
    "refuse_fine",
    "refuse_narrow",
    "refuse_tiny",
    "rounded",
]

LOST = 1e-3
"""The share of a standard deviation that rounding may take: it changes a log-density by about LOST^2 / 6 nats."""
EPS = 64 * torch.finfo(torch.float64).eps
"""The spread, relative to the mean, below which a feature is a constant with rounding errors; of float32 it is its eps."""

UNIFORM = 1 / 12
"""The variance of dequantization noise, a uniform variable on [0, 1)."""
TINY = 1e-150
"""Below this a value's square is 0 in float64, or nearly."""
FILL = 1e15
"""From here on a value that is alone of its size is taken for what stood for a missing one; float32 has no square of it."""


def constants(found: Summary, dtype: torch.dtype) -> Tensor:
    """Which features ``(*event)`` do not vary over the training rows, but for rounding errors of their source's dtype."""
    eps = torch.finfo(dtype).eps if dtype == torch.float32 else EPS
    return found.moments.variance.sqrt() <= eps * found.moments.mean.abs()


def in_doubt(found: Summary, train: Tensor | Stream | Sparse | Ragged, *, noise: bool) -> bool:
    """Whether a feature may be fine, by its extremes and the first of its rows: then all rows are worth another look."""
    if not len(train) or not (train.dtype in WIDE or (noise and train.dtype == torch.float32)):
        return False
    some = next(iter(train.split(CHUNK)), None)
    if some is None:  # rows of different lengths, all of which are empty
        return False
    variance = moments_of(some.double()).variance * len(some) / len(train)  # at least so large is that of all rows
    return bool((_most(found) > LOST * (variance + noise * UNIFORM).sqrt()).any())


def fine(found: Summary, dtype: torch.dtype, *, noise: bool, centred: bool) -> Tensor:
    """Which features ``(*event)`` need float64 until they are scaled.

    Args:
        found: with the moments of the training rows.
        dtype: of the raw data.
        noise: whether uniform noise is added, of which float32 must keep the digits.
        centred: whether the mean is to be subtracted, and must keep its digits.
    """
    mean, variance = found.moments.mean, found.moments.variance
    lost = torch.maximum(found.lost, (mean - mean.float()).abs()) if centred else found.lost
    if not noise:
        return (lost > LOST * variance.sqrt()) & ~constants(found, dtype)
    lost = torch.maximum(lost, _most(found))
    return lost > LOST * (variance + UNIFORM).sqrt()


def _most(found: Summary) -> Tensor:
    """The most ``(*event)`` that rounding to float32 can move a value of each feature by."""
    return _largest(found) * torch.finfo(torch.float32).eps / 2


def _largest(found: Summary) -> Tensor:
    """The largest magnitude ``(*event)`` of each feature."""
    return torch.maximum(found.low.abs(), found.high.abs())


def refuse_fine(found: Summary, features: Tensor, name: str) -> None:
    """Raise ``ValueError`` if a model that sees float32 is to see such features without centring."""
    if features.any():
        first = int(features.flatten().int().argmax())
        mean, scale = (float(value.flatten()[first]) for value in (found.moments.mean, found.moments.variance.sqrt()))
        raise ValueError(
            f"{name}: expected values that float32 tells apart, got feature {first} (from 0) with mean {mean:.10g} and "
            f"standard deviation {scale:.3g}: use scale='standardize', which centres in float64 (numbers are of the source's "
            "values all the same)"
        )


def refuse_narrow(rows: Tensor, transform: Transform) -> None:
    """Raise ``ValueError`` if rows ``(n, *event)`` came as float32, which lost digits that an exact transform goes by."""
    if transform.exact is None or transform.seen or rows.dtype in WIDE or not rows.is_floating_point() or not len(rows):
        return
    lost = rows.double().abs().nan_to_num(nan=0.0).amax(0) * torch.finfo(rows.dtype).eps / 2
    share = lost / transform.constants[1].expand(lost.shape)
    if bool((share > LOST).any()):
        first = int(share.flatten().argmax())
        raise ValueError(
            f"expected rows with all digits of their source, got {str(rows.dtype).removeprefix('torch.')}, which moves feature "
            f"{first} (from 0) by up to {float(lost.flatten()[first]):.3g} where one standard deviation is "
            f"{float(transform.constants[1].expand(lost.shape).flatten()[first]):.3g}: give them as a float64 tensor, or load "
            "float64 values with scale='standardize'"
        )


def refuse_fill(parts: Sequence[Tensor | Stream | Sparse | Ragged], found: Summary, name: str) -> None:
    """Raise ``ValueError`` if a feature holds a huge value and otherwise values a billion times smaller."""
    huge = _largest(found).flatten()
    for feature in (huge >= FILL).nonzero().flatten().tolist():
        value, count, rest = float(huge[feature]), 0, -1.0
        for rows in (rows for part in parts if len(part) for rows in part.split(CHUNK)):
            column = rows.flatten(1)[:, feature].double().abs().nan_to_num(nan=-1.0)
            filled = column > 1e-3 * value
            count, rest = count + int(filled.sum()), max(rest, float(column.masked_fill(filled, -1.0).max()))
        if 0 <= rest < 1e-9 * value:
            raise ValueError(
                f"{name}: expected measured values, got {value:g} in {count} rows of feature {feature} (from 0), all others of "
                f"which are at most {rest:.3g}: probably it stands for missing entries: replace it by NaN and load with "
                "missing='ignore', or drop these rows"
            )


def refuse_tiny(found: Summary, name: str) -> None:
    """Raise ``ValueError`` if a feature's values are so small that their squares are 0, and their deviation with them."""
    largest = _largest(found).flatten()
    if bool((tiny := (largest > 0) & (largest < TINY)).any()):
        first = int(tiny.int().argmax())
        raise ValueError(
            f"{name}: expected values of at least {TINY:g} in each feature, got up to {largest[first]:.3g} in feature {first} "
            "(from 0), whose squares are 0 in float64: give it in other units"
        )


def narrowed(part: Tensor | Stream | Sparse | Ragged, found: Summary, *, exact: bool) -> Tensor | Stream | Sparse | Ragged:
    """Raw rows as float32, int32 or uint8 where these hold them; fine ones, ``exact``, as float64 or int64."""
    if part.dtype == torch.float64 and not exact:
        return part.to(dtype=torch.float32)
    least, most = torch.iinfo(torch.int32).min, torch.iinfo(torch.int32).max
    small = bool((found.low >= least).all() and (found.high <= most).all())
    return part.to(dtype=torch.int32) if part.dtype == torch.int64 and small else part


def rounded(found: Summary, dtype: torch.dtype) -> Summary:
    """The same facts about these rows as float32."""
    if dtype not in WIDE:
        return found
    low, high = (value.float().double() for value in (found.low, found.high))
    return found._replace(low=low, high=high, whole=found.rounded_whole)
