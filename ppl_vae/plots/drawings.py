"""Drawings of a pen, side by side, as figures and as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from ppl_vae.plots.canvas import new_figure

__all__ = ["Drawings", "drawings", "drawings_table", "lines_of", "svg"]


class Drawings(Protocol):
    """Drawings, each points (dx, dy, pen) ``(T, 3)``: a list of arrays, tensors or lists, or :class:`~ppl_vae.Ragged`."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Any: ...


MARGIN = 0.08  # of the side of a cell, left empty around a drawing


def lines_of(points: Any, known: int = 0) -> list[tuple[np.ndarray, bool]]:
    """The strokes of a drawing as places ``(n, 2)`` of the pen on the paper, y downwards, and whether each is known.

    Args:
        points: rows (dx, dy, pen) ``(T, 3)``; a pen other than 0 lifts it after the point.
        known: how many of the points were given; a stroke that goes on after these is cut in two there.

    Raises:
        ValueError: no points ``(T, 3)``.

    Examples:
        >>> [line.tolist() for line, _ in lines_of([[1, 0, 0], [2, 0, 1], [0, 5, 2]])]
        [[[1.0, 0.0], [3.0, 0.0]], [[3.0, 5.0]]]
    """
    rows = np.asarray(points.detach().cpu() if isinstance(points, Tensor) else points, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise ValueError(f"expected a drawing as rows (dx, dy, pen), got an array of shape {rows.shape}")
    places = rows[:, :2].cumsum(0)
    ends = np.flatnonzero(rows[:, 2]) + 1
    lines = []
    for start, end in zip([0, *ends], [*ends, len(rows)], strict=True):
        if start < known < end:
            lines += [(places[start:known], True), (places[known - 1 : end], False)]
        elif start < end:
            lines.append((places[start:end], end <= known))
    return lines


def drawings(rows: Drawings, *, columns: int | None = None, title: str | None = None) -> Figure:
    """Drawings at a glance, each as large as its cell allows.

    Args:
        rows: drawings, each points (dx, dy, pen) ``(T, 3)``.
        columns: drawings in a row, about the square root of their number by default.
        title: a line above the picture.

    Raises:
        ValueError: no drawings, or something that is none.
    """
    cells = _listed(rows)
    columns = max(1, math.ceil(math.sqrt(len(cells)))) if columns is None else columns
    if columns < 1 or not cells:
        raise ValueError(f"expected at least one drawing and one column, got {len(cells)} and {columns}")
    return _figure([cells[start : start + columns] for start in range(0, len(cells), columns)], title=title)


def drawings_table(
    rows: Sequence[Drawings],
    names: Sequence[str] = (),
    *,
    known: Sequence[int] | None = None,
    title: str | None = None,
    heads: Sequence[str] = (),
) -> Figure:
    """Rows of drawings with a name at the side of each, such as data and their reconstructions at several temperatures.

    Args:
        rows: of drawings, as :func:`drawings` takes them.
        names: of the rows.
        known: how many points of the drawings of each column were given; these are drawn in black, what was added in colour.
        title: a line above the picture.
        heads: names of the columns.

    Raises:
        ValueError: rows of different numbers of drawings, or other numbers of names.
    """
    cells = [_listed(row) for row in rows]
    width = len(cells[0]) if cells else 0
    if not width or any(len(row) != width for row in cells):
        raise ValueError(f"expected rows of one number of drawings, got {[len(row) for row in cells]}")
    for what, told, size in (("rows", names, len(cells)), ("columns", heads, width), ("known parts", known or (), width)):
        if told and len(told) != size:
            raise ValueError(f"expected {size} names of {what}, one for each, got {len(told)}")
    return _figure(cells, names=names, heads=heads, known=known, title=title)


def svg(rows: Drawings, *, columns: int | None = None, size: int = 96) -> str:
    """Drawings as the text of an SVG file.

    Args:
        rows: drawings, as :func:`drawings` takes them.
        columns: in a row, about the square root of their number by default.
        size: of a cell, in pixels.

    Raises:
        ValueError: no drawings, or something that is none.

    Examples:
        >>> print(svg([[[0, 0, 0], [1, 1, 1]]], size=10))
        <svg xmlns="http://www.w3.org/2000/svg" width="10" height="10" viewBox="0 0 10 10">
        <g fill="none" stroke="black" stroke-width="1" stroke-linecap="round" stroke-linejoin="round">
        <polyline points="0.8,0.8 9.2,9.2"/>
        </g>
        </svg>
    """
    cells = _listed(rows)
    columns = max(1, math.ceil(math.sqrt(len(cells)))) if columns is None else columns
    if columns < 1 or not cells:
        raise ValueError(f"expected at least one drawing and one column, got {len(cells)} and {columns}")
    width, height = size * min(columns, len(cells)), size * math.ceil(len(cells) / columns)
    lines = []
    for place, points in enumerate(cells):
        corner = np.array([place % columns, place // columns])
        for line, _ in _in_cell(points):
            places = size * (np.repeat(line, 2, axis=0) if len(line) == 1 else line) + size * corner
            lines.append(f'<polyline points="{" ".join(f"{x:.4g},{y:.4g}" for x, y in places)}"/>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    style = '<g fill="none" stroke="black" stroke-width="1" stroke-linecap="round" stroke-linejoin="round">'
    return "\n".join([head, style, *lines, "</g>", "</svg>"])


def _listed(rows: Drawings) -> list[Any]:
    """The drawings one by one, of whatever holds them."""
    return [rows[place] for place in range(len(rows))]


def _in_cell(points: Any, known: int = 0) -> list[tuple[np.ndarray, bool]]:
    """The strokes in the square from 0 to 1, its shape kept and in the middle."""
    lines = lines_of(points, known)
    if not lines:
        return []
    places = np.concatenate([line for line, _ in lines])
    low, high = places.min(0), places.max(0)
    extent = max(float((high - low).max()), 1e-9)
    return [((line - (low + high) / 2) / extent * (1 - 2 * MARGIN) + 0.5, told) for line, told in lines]


def _figure(
    cells: Sequence[Sequence[Any]],
    *,
    names: Sequence[str] = (),
    heads: Sequence[str] = (),
    known: Sequence[int] | None = None,
    title: str | None = None,
) -> Figure:
    columns = max(map(len, cells))
    inches = min(1.0, 12.0 / max(columns, len(cells)))
    figure, (ax,) = new_figure(
        max(2.0, columns * inches) + 0.12 * max(map(len, names), default=0) + 0.3, len(cells) * inches + 0.6
    )
    for colour, wanted in (("black", True), ("tab:red", False)):
        lines = [
            (np.repeat(line, 2, axis=0) if len(line) == 1 else line) + [column, row]
            for row, drawn in enumerate(cells)
            for column, points in enumerate(drawn)
            for line, told in _in_cell(points, known[column] if known else len(points))
            if told == wanted
        ]
        ax.add_collection(LineCollection(lines, colors=colour, linewidths=1.0, capstyle="round"))
    ax.set(xlim=(0, columns), ylim=(len(cells), 0), xticks=[], yticks=[], aspect="equal")
    if any(names):
        ax.set_yticks(np.arange(len(cells)) + 0.5, list(names))
    if any(heads):
        ax.set_xticks(np.arange(columns) + 0.5, list(heads))
        ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.vlines(np.arange(1, columns), 0, len(cells), colors="gainsboro", linewidths=0.5)
    ax.hlines(np.arange(1, len(cells)), 0, columns, colors="gainsboro", linewidths=0.5)
    if title is not None:
        figure.suptitle(title)
    return figure
