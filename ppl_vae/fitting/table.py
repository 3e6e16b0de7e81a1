"""Tables of declarations and numbers: Markdown whose columns are aligned as text too."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

from ppl_vae.declaration import Declaration
from ppl_vae.types import Record

__all__ = ["COLUMNS", "aligned", "cell", "plain", "short"]

COLUMNS = {
    "train_log_likelihood": "train log-lik.",
    "test_log_likelihood": "test log-lik.",
    "elbo": "ELBO",
    "seconds_to_best": "s to best",
    "seconds": "s",
}
DIGITS = {"distance": 4, "iterations": 0, "seconds": 3, "seconds_to_best": 3}


def short(value: Any) -> str:
    """A declaration's class and the fields that are not its defaults; a function's name."""
    if not isinstance(value, Declaration):
        return value.__name__ if inspect.isroutine(value) or inspect.isclass(value) else repr(value)
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if not _is_default(field, value)}
    inner = ", ".join(f"{name}={_short_field(held)}" for name, held in fields.items())
    return f"{type(value).__name__}({inner})" if inner else type(value).__name__


def _short_field(value: Any) -> str:
    """What a field holds, several declarations each in short."""
    if isinstance(value, tuple) and value and all(isinstance(one, Declaration) for one in value):
        return f"({', '.join(map(short, value))}{',' if len(value) == 1 else ''})"
    return short(value) if isinstance(value, Declaration) else repr(value)


def _is_default(field: dataclasses.Field[Any], value: Declaration) -> bool:
    return field.default is not dataclasses.MISSING and getattr(value, field.name) == field.default


def cell(row: Record, name: str) -> str:
    """A number of a row with its spread over the seeds, marked where it is only a bound."""
    value, spread = row[name], row.get(f"{name}_sd")
    if value is None or isinstance(value, str):
        return value or "-"
    digits = DIGITS.get(name, 3)
    mark = "" if row["exact"] or "likelihood" not in name else ">= "
    return f"{mark}{value + 0.0:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def aligned(table: Sequence[Sequence[str]], *, words: int) -> str:
    """Cells as a Markdown table that is aligned as text too, the heads first: so many columns of words, then numbers."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = [f"{'-' * (width - 1)}{'-' if place < words else ':'}" for place, width in enumerate(widths)]
    padded = [
        [
            cell.ljust(width) if place < words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in table
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def plain(table: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Cells in columns, so many of words and then numbers, without rules."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place < words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
    return "\n".join(map(str.rstrip, lines))
