"""The columns of data as a table to read: what each holds, what it is taken for, and what its values are."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ppl_vae.data.native import decoded
from ppl_vae.data.split import Split
from ppl_vae.types import Column

__all__ = ["ColumnSummary", "TableSummary", "summary_of"]

MOST = 40  # columns that are told one by one
LEVELS, LONGEST = 4, 16  # categories that are named, and letters of each


class ColumnSummary(NamedTuple):
    """A column in words, of the training rows.

    Args:
        column: its name.
        kind: what it is taken for: real, count, binary or category.
        dtype: what it holds.
        levels: the number of different values of binary columns and categories, else nothing.
        missing: how many entries are missing.
        values: the smallest and the largest, or the categories.
    """

    column: str
    kind: str
    dtype: str
    levels: str
    missing: str
    values: str


class TableSummary:
    """The columns of a table, printed as a table of their own.

    Args:
        columns: a row for each.
        title: what stands above them.
    """

    def __init__(self, columns: Sequence[ColumnSummary], title: str) -> None:
        self.columns = tuple(columns)
        self.title = title

    @property
    def _shown(self) -> list[ColumnSummary]:
        return list(self.columns[:MOST])

    @property
    def _rest(self) -> str:
        """What the columns are that are not shown."""
        rest = self.columns[MOST:]
        counted = ", ".join(f"{number} {kind}" for kind, number in Counter(row.kind for row in rest).items())
        return f"and {len(rest)} more: {counted}" if rest else ""

    def __str__(self) -> str:
        rows = [ColumnSummary._fields, *self._shown] if self.columns else []
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self.title, *lines, *filter(None, [self._rest])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self._shown]
        head = "".join(f"<th>{name}</th>" for name in ColumnSummary._fields)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
        return f"<p>{html.escape(self.title)}</p>{table}" + (f"<p>{self._rest}</p>" if self._rest else "")


def summary_of(title: str, train: Split, table: Sequence[Column]) -> TableSummary:
    """The summary of a table's training rows; of data without one their title alone."""
    rows = zip(table, *_extremes(train), strict=True) if table else ()
    return TableSummary([_row(column, low, high, missing) for column, low, high, missing in rows], title)


def _extremes(train: Split) -> tuple[list[float], list[float], list[int]]:
    """The smallest and the largest entry of each column, inf and -inf where there is none, and how many are missing."""
    low, high, missing = (torch.full(train.event_shape, start, dtype=torch.float64) for start in (torch.inf, -torch.inf, 0.0))
    for rows in train.chunks():
        x = rows.double().cpu()
        absent = x.isnan()
        low = torch.minimum(low, x.masked_fill(absent, torch.inf).amin(0))
        high = torch.maximum(high, x.masked_fill(absent, -torch.inf).amax(0))
        missing += absent.sum(0)
    return low.tolist(), high.tolist(), missing.long().tolist()


def _row(column: Column, low: float, high: float, missing: int) -> ColumnSummary:
    levels = str(len(column.categories) or 2) if column.kind in ("binary", "category") else ""
    values = _values(column, low, high)
    return ColumnSummary(column.name, column.kind, column.dtype, levels, str(missing) if missing else "", values)


def _values(column: Column, low: float, high: float) -> str:
    """The first categories, or the extremes."""
    if column.categories:
        named = [text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..." for text in column.categories[:LEVELS]]
        return ", ".join([*named, "..."] if len(column.categories) > LEVELS else named)
    if low > high:
        return ""
    least, most = decoded(np.array([low, high]), column).tolist()
    return f"{_text(least)} to {_text(most)}"


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
