"""What scaling needs to know of all rows, found in one pass over them, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.data.ragged import Ragged
from ppl_vae.data.sparse import Sparse
from ppl_vae.data.stream import Stream
from ppl_vae.data.transform import CHUNK

__all__ = ["WIDE", "Moments", "Summary", "all_whole", "moments_of", "summarized"]

WIDE = (torch.float64, torch.int32, torch.int64)
"""Dtypes of which float32 does not hold every value."""


class Moments(NamedTuple):
    """Number, mean and sum of squared deviations of the entries that are there, each ``(*event)`` float64."""

    number: Tensor
    mean: Tensor
    squares: Tensor

    @property
    def variance(self) -> Tensor:
        """Of each feature, ``(*event)``; 0 where nothing is there."""
        return self.squares / self.number.clamp(min=1)

    def __or__(self, other: Moments) -> Moments:
        """The moments of both: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm"."""
        number = self.number + other.number
        share = other.number / number.clamp(min=1)
        delta = other.mean - self.mean
        return Moments(number, self.mean + delta * share, self.squares + other.squares + delta**2 * self.number * share)


class Summary(NamedTuple):
    """Facts about raw rows.

    ``low`` and ``high`` are the extremes of each feature, ``(*event)`` float64, 0 where all are missing, and ``lost`` is the
    most that float32 would move one of its training values by; ``present`` tells whether anything is there, ``missing`` whether
    something is not, ``whole`` whether all are integers, ``rounded_whole`` whether they are as float32, ``two_valued`` whether
    all are 0 or the top level. ``lost`` and ``moments``, which are those of the training rows, are 0 where not asked for.
    """

    low: Tensor
    high: Tensor
    lost: Tensor
    present: bool
    missing: bool
    whole: bool
    rounded_whole: bool
    two_valued: bool
    moments: Moments


def summarized(parts: Sequence[Tensor | Stream | Sparse | Ragged], *, top: int, moments: bool) -> Summary:
    """The facts about all parts.

    Args:
        parts: raw train, valid and test data, each ``(N, *event)``.
        top: the highest level of uint8 data.
        moments: whether those of the training rows are wanted, and what they would lose.
    """
    event = parts[0].shape[1:]
    low, high = (torch.full(event, end, dtype=torch.float64) for end in (torch.inf, -torch.inf))
    lost = torch.zeros(event, dtype=torch.float64)
    missing, whole, rounded_whole, two_valued = False, True, True, True
    wide = parts[0].dtype in WIDE
    total = Moments(*torch.zeros(3, *event, dtype=torch.float64))
    for index, part in enumerate(parts):
        for rows in part.split(CHUNK) if len(part) else ():
            low = torch.minimum(low, _filled(rows, torch.inf).amin(dim=0).double())
            high = torch.maximum(high, _filled(rows, -torch.inf).amax(dim=0).double())
            missing = missing or (rows.is_floating_point() and bool(rows.isnan().any()))
            whole = whole and all_whole(rows)
            rounded_whole = rounded_whole and all_whole(rows.float() if wide else rows)
            two_valued = two_valued and bool(((rows == 0) | (rows == top)).all())
            if moments and index == 0:
                total = total | moments_of(rows.double())
                lost = torch.maximum(lost, _filled(rows.double() - rows.float(), 0.0).abs().amax(dim=0))
    absent = low > high
    low, high = low.masked_fill(absent, 0.0), high.masked_fill(absent, 0.0)
    return Summary(low, high, lost, not bool(absent.all()), missing, whole, rounded_whole, two_valued, total)


def moments_of(x: Tensor) -> Moments:
    """The moments of rows x ``(n, *event)`` in float64."""
    number = (~x.isnan()).sum(dim=0).double()
    mean = x.nansum(dim=0) / number.clamp(min=1)
    return Moments(number, mean, ((x - mean) ** 2).nansum(dim=0))


def all_whole(x: Tensor) -> bool:
    """Whether all that is there are whole numbers."""
    return not x.is_floating_point() or bool(((x == x.floor()) | x.isnan()).all())


def _filled(x: Tensor, value: float) -> Tensor:
    return x.nan_to_num(nan=value) if x.is_floating_point() else x
