"""csv files: how cells are separated, and whether the first line names the columns."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from ppl_vae.data.arrays import unreadable
from ppl_vae.data.cells import Cells, is_numeric
from ppl_vae.data.missing import is_absent, spellings
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.data.tables import table
from ppl_vae.types import FitWarning

__all__ = ["cells_of", "read_csv"]

WHOLE = re.compile(r"[+-]?\d+")


def read_csv(path: Path, source: DataSource) -> Raw:
    """Cells in UTF-8, separated by commas, in a tsv file by tabs, with or without a line of column names.

    If the first line has no comma but tabs or semicolons, these separate the cells. Without names the columns are called ``0``,
    ``1``, ...
    """
    rows = cells_of(path, strict=True)
    named = _has_names(path, rows, source)
    names = rows[0] if named else [str(place) for place in range(len(rows[0]))]
    columns = zip(*rows[named:], strict=True) if rows[named:] else [()] * len(names)
    cells = [Cells(name, np.array(column, dtype=str)) for name, column in zip(names, columns, strict=True)]
    return table(str(path), cells, source)


def cells_of(path: Path, *, strict: bool = False) -> list[list[str]]:
    """The cells of each line that has any, as many in each; ``strict`` refuses quotation marks that are not closed."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            tabs = path.suffix.lower() == ".tsv"  # whose cells may hold quotation marks
            separator = "\t" if tabs else _separator(file.readline())
            file.seek(0)
            quotes = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
            reader = csv.reader(file, delimiter=separator, quoting=quotes, strict=strict)  # type: ignore[arg-type]
            lines = [(number, [cell.strip() for cell in row]) for number, row in enumerate(reader, start=1) if row]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, got the byte {error.object[error.start]:#x}: save it as UTF-8"
        ) from None
    except (csv.Error, OSError) as error:
        raise unreadable(path, error) from None
    zero = next((number for number, row in lines if any("\0" in cell for cell in row)), None)
    if zero is not None:
        raise ValueError(f"{path}: expected text without zero bytes, got one in line {zero}: is it a binary file?")
    if not lines:
        raise ValueError(f"{path}: expected rows of numbers, got an empty file")
    expected = len(lines[0][1])
    for number, row in lines:
        if len(row) != expected:
            raise ValueError(
                f"{path}: expected {expected} cells in line {number}, as in the first, got {len(row)}: cells are separated by "
                f"{separator!r}, and text that holds it is quoted"
            )
    return [row for _, row in lines]


def _separator(line: str) -> str:
    unquoted = re.sub(r'"[^"]*"', "", line)
    return next((mark for mark in ",\t;" if mark in unquoted), ",")


def _has_names(path: Path, rows: list[list[str]], source: DataSource) -> bool:
    """Whether the first line is declared to name the columns, or looks like it; remarked on where it might be otherwise."""
    first, below, spelled = rows[0], rows[1:], spellings(source.missing_text)
    if source.header is not None:
        return source.header
    if not all(is_numeric(cell, spelled) for cell in first):
        return True
    if source.label in first and source.label not in map(str, range(len(first))):
        return True
    if not first[0] and len(first) > 1 and all(WHOLE.fullmatch(row[0]) for row in below):
        return bool(below)
    names = _looks_like_names(first, below, spelled)
    if names or _evenly_spaced(first):
        told = ", ".join([*first[:3], "..."])
        taken, instead, value = ("column names", "a row", "false") if names else ("a row", "column names", "true")
        warnings.warn(
            f"{path}: the first line ({told}) is taken for {taken}: if it is {instead}, say --data.header {value}",
            FitWarning,
            stacklevel=2,
        )
    return names


def _looks_like_names(first: Sequence[str], below: Sequence[Sequence[str]], spelled: Collection[str]) -> bool:
    """Whether whole numbers stand above text, or, rising, above columns that are nowhere written as whole numbers."""
    if len(first) < 2 or not below or not all(WHOLE.fullmatch(cell) for cell in first) or len(set(first)) < len(first):
        return False
    there = [place for place in range(len(first)) if not all(is_absent(row[place], spelled) for row in below)]
    if not all(any(is_numeric(row[place], ()) for row in below) for place in there):
        return True
    if not all(int(left) < int(right) for left, right in pairwise(first)):
        return False
    other = sum(not any(WHOLE.fullmatch(row[place]) for row in below) for place in there)
    return other >= 2 and 2 * other > len(first)


def _evenly_spaced(first: Sequence[str]) -> bool:
    """Whether a line could hold years or numbers of columns: three numbers or more in equal steps."""
    if len(first) < 3 or not all(first):
        return False
    steps = np.diff(np.array(first, dtype=np.float64)) if all(is_numeric(cell, ()) for cell in first) else np.zeros(1)
    return bool(steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-6, atol=0.0))
