"""Points of drawings: which rows are such, where a drawing ends, and one scale for its offsets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from ppl_vae.data.ragged import Ragged
from ppl_vae.data.summary import Moments

__all__ = ["COLUMNS", "END_OF_DRAWING", "ended", "is_drawn", "offset_scale", "thinned"]

COLUMNS = ("dx", "dy", "pen")
END_OF_DRAWING = 2
"""The state of the pen at the last point; before it 0, on the paper, and 1, lifted after the point."""

SHORT = (torch.uint8, torch.int8, torch.int16, torch.uint16)
WIDER = dict.fromkeys(SHORT, torch.int32) | dict.fromkeys((torch.float16, torch.bfloat16), torch.float32)


def is_drawn(rows: Any) -> bool:
    """Whether rows of different lengths hold points whose third number is 0 or 1, as files of drawings do."""
    if not isinstance(rows, Ragged) or tuple(rows.event_shape) != (3,) or not rows.total:
        return False
    return all(bool(((points[:, 2] == 0) | (points[:, 2] == 1)).all()) for points in rows.split(2**20))


def ended(rows: Any, name: str) -> Ragged:
    """The same drawings, the pen at the last point of each :data:`END_OF_DRAWING`, so that their end is part of the data.

    Args:
        rows: points (dx, dy, pen) with a pen of 0 and 1; or such as this gave already.
        name: of the source, for messages.

    Raises:
        ValueError: no drawings: other shapes, an empty one, another state of the pen, a pen that never ends.
    """
    if not isinstance(rows, Ragged) or tuple(rows.event_shape) != (3,):
        shape = tuple(rows.shape)
        raise ValueError(
            f"{name}: expected drawings, rows of different lengths of (dx, dy, pen), got data of shape {shape}: give "
            "Ragged.from_list(drawings)"
        )
    held = rows.compact()
    if not held.total or not bool((held.lengths > 0).all()):
        raise ValueError(
            f"{name}: expected drawings of at least one point, got none in row {_first(held.lengths == 0)}: drop it"
        )
    last = held.offsets[1:] - 1
    pen = held.values[:, 2]
    inside = torch.ones_like(pen, dtype=torch.bool).index_fill_(0, last, False)
    strange = (pen != 0) & (pen != 1) & (inside | (pen != END_OF_DRAWING))
    if bool(strange.any()):
        raise ValueError(
            f"{name}: expected a pen of 0 (on the paper) or 1 (lifted after the point), got {float(pen[strange][0]):g} in row "
            f"{_row(held, strange)}: convert it, or load the points as numbers (kind='real')"
        )
    if bool((open_ := pen[last] == 0).any()):
        raise ValueError(
            f"{name}: expected the pen to be lifted (1) after the last point of every drawing, got {int(open_.sum())} that "
            f"never end, first row {_first(open_)}: complete or drop them, or set their last pen to 1"
        )
    values = held.values.clone()
    values[last, 2] = END_OF_DRAWING
    return held.with_values(values)


def offset_scale(found: Moments) -> Tensor:
    """What points are divided by, ``(3,)``: the standard deviation of all offsets of dx and dy together, and 1 for the pen."""
    loc, variance = found.mean[:2], found.variance[:2]
    pooled = ((variance + loc.square()).mean() - loc.mean().square()).sqrt()
    return torch.stack([pooled, pooled, torch.ones_like(pooled)]) if pooled > 0 else torch.ones_like(found.mean)


def thinned(rows: Ragged, probability: float, generator: Generator | None = None) -> Ragged:
    """The same drawings with points inside their strokes left out at random, the next point's offset leading past them.

    Where strokes begin and end stays, and so does the place of every other point (Ha and Eck 2018). Offsets that were merged
    may be longer than a narrow dtype holds: short integers come as int32, half precision as float32.

    Args:
        rows: drawings, as :func:`ended` gives them.
        probability: of each such point.
        generator: of the draws, on the device of the rows.
    """
    held = rows.compact()
    points = held.values
    pen = points[:, 2]
    inside = (pen == 0) & (torch.cat([pen.new_ones(1), pen[:-1]]) == 0)  # no first point: the one before it ends a drawing
    kept = ~(inside & (torch.rand(len(pen), generator=generator, device=pen.device) < probability))
    places = points[:, :2].double().cumsum(0)[kept]
    offsets = places.diff(dim=0, prepend=places.new_zeros(1, 2))
    offsets = offsets if points.is_floating_point() else offsets.round()
    ends = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])[held.offsets]
    dtype = WIDER.get(points.dtype, points.dtype)
    values = torch.cat([offsets.to(dtype), points[kept, 2:].to(dtype)], dim=1)
    return held._with(values=values, starts=ends[:-1], lengths=ends.diff())


def _first(rows: Tensor) -> str:
    return f"{int(rows.int().argmax())} (from 0)"


def _row(rows: Ragged, points: Tensor) -> str:
    """The first row that has one of these points."""
    return f"{int(torch.searchsorted(rows.offsets, int(points.int().argmax()), right=True)) - 1} (from 0)"
