"""Parameters of a fit by name: numbers with labelled axes, as rows, columns, a frame or printed tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ppl_vae.fitting.table import plain
from ppl_vae.program.quantities import COLUMN

__all__ = ["Parameter", "Parameters"]

MOST = 40  # lines of a printed table


@dataclass(frozen=True, eq=False, kw_only=True)
class Parameter:
    """One quantity.

    Attributes:
        values: in the units of the source, float64.
        axes: what each axis goes over: ``column``, ``component`` or ``latent``.
        labels: the names along each axis.
        se: standard errors of the same shape, where the parameters were drawn from a posterior; else ``None``.
        note: what else has to be known.
    """

    values: np.ndarray
    axes: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    se: np.ndarray | None = None
    note: str = ""

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each number: its place along each axis by name, ``value``, and ``se``."""
        names = [name if name not in self.axes[:place] else f"other_{name}" for place, name in enumerate(self.axes)]
        for place, labels in zip(np.ndindex(*self.values.shape), product(*self.labels), strict=True):
            found: dict[str, Any] = dict(zip(names, labels, strict=True))
            yield {**found, "value": float(self.values[place]), "se": math.nan if self.se is None else float(self.se[place])}


class Parameters(Mapping[str, Parameter]):
    """All quantities of a fit by name, as ``fit.parameters()`` gives them; printed they are tables.

    Args:
        found: by name.

    Examples:
        >>> mean = Parameter(values=np.array([1.5, 2.0]), axes=("column",), labels=(("length", "width"),))
        >>> print(Parameters({"mean": mean}))
        column   mean
        length  1.500
        width   2.000
        >>> Parameters({"mean": mean}).columns()["value"]
        [1.5, 2.0]
    """

    def __init__(self, found: Mapping[str, Parameter]) -> None:
        self._found = dict(found)

    def __getitem__(self, name: str) -> Parameter:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        shapes = (
            f"{name}: {' x '.join(f'{n} {axis}s' for n, axis in zip(p.values.shape, p.axes, strict=True))}"
            for name, p in self.items()
        )
        return f"Parameters({', '.join(shapes)})"

    def rows(self) -> list[dict[str, Any]]:
        """A row for each number: the name of its ``parameter``, its place along each axis, ``value`` and ``se``."""
        rows = [{"parameter": name, **row} for name, found in self.items() for row in found.rows()]
        axes = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in ("value", "se")]
        return [{**dict.fromkeys(axes, ""), **row} for row in rows]

    def columns(self) -> dict[str, list[Any]]:
        """The rows as columns, for a csv file or any frame, such as ``pandas.DataFrame(fit.parameters().columns())``."""
        rows = self.rows()
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}

    def to_dict(self) -> dict[str, Any]:
        """Values as nested lists with their labels, for JSON."""
        found = {}
        for name, each in self.items():
            labels = [list(names) for names in each.labels]
            found[name] = {"axes": list(each.axes), "labels": labels, "values": each.values.tolist()}
            if each.se is not None:
                found[name]["se"] = each.se.tolist()
            if each.note:
                found[name]["note"] = each.note
        return found

    def __str__(self) -> str:
        of_columns = {name: each for name, each in self.items() if each.axes[:1] == (COLUMN,) and each.axes[1:] != (COLUMN,)}
        others = {name: each for name, each in self.items() if name not in of_columns}
        parts = [_by_column(of_columns)] if of_columns else []
        parts += [table for name, each in others.items() for table in _tables(name, each)]
        notes = [f"{name}: {each.note}" for name, each in self.items() if each.note]
        return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _by_column(found: dict[str, Parameter]) -> str:
    """One table of what each column of the data has."""
    head, (names,) = ["column"], {each.labels[0] for each in found.values()}
    cells: list[list[str]] = [[name] for name in names]
    for name, each in found.items():
        head += [f"{name} {latent}" for latent in each.labels[1]] if len(each.axes) > 1 else [name]
        for row, place in zip(cells, range(len(names)), strict=True):
            row += [_cell(each, (place, *inner)) for inner in np.ndindex(*each.values.shape[1:])]
    return _shown([head, *cells])


def _tables(name: str, each: Parameter) -> Iterator[str]:
    """Columns or latent dimensions downwards, components across, a matrix as it is; of matrices a table for each component."""
    if each.values.ndim == 3:
        for place, label in enumerate(each.labels[0]):
            se = None if each.se is None else each.se[place]
            part = Parameter(values=each.values[place], axes=each.axes[1:], labels=each.labels[1:], se=se)
            yield from _tables(f"{name}, {each.axes[0]} {label}", part)
        return
    if each.values.ndim == 1:
        yield _shown([[name, *each.labels[0]], ["", *(_cell(each, place) for place in np.ndindex(*each.values.shape))]])
        return
    across, down = (1, 0) if each.axes[0] in (COLUMN, each.axes[1]) else (0, 1)
    head = [name, *each.labels[across]]
    order = (lambda row, column: (row, column)) if down == 0 else (lambda row, column: (column, row))
    rows = [
        [label, *(_cell(each, order(row, column)) for column in range(len(each.labels[across])))]
        for row, label in enumerate(each.labels[down])
    ]
    yield _shown([head, *rows])


def _cell(each: Parameter, place: tuple[int, ...]) -> str:
    value = _number(each.values[place])
    return value if each.se is None else f"{value} ({_number(each.se[place])})"


def _number(value: float) -> str:
    """Four digits, in a form that stands well under others."""
    size = abs(value)
    return f"{value:.3e}" if size and not 1e-3 <= size < 1e5 else f"{value:.{3 if size < 1e3 else 1}f}"


def _shown(table: list[list[str]]) -> str:
    left_out = len(table) - 1 - MOST
    lines = plain(table[: MOST + 1])
    return f"{lines}\n... {left_out} more" if left_out > 0 else lines
