"""csv files: how cells are separated, and whether the first line names the columns."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ppl_vae.data.arrays import unreadable
from ppl_vae.data.cells import WHOLE, Cells, is_numeric
from ppl_vae.data.missing import is_absent, spellings
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.data.tables import table
from ppl_vae.types import FitWarning

__all__ = ["Written", "cells_of", "has_names", "lines_of", "read_csv"]


def read_csv(path: Path, source: DataSource) -> Raw:
    """Cells in UTF-8, separated by commas, in a tsv file by tabs, with or without a line of column names.

    If the first line has no comma but tabs or semicolons, these separate the cells. Without names the columns are called ``0``,
    ``1``, ...
    """
    rows = cells_of(path, strict=True)
    spelled = spellings(source.missing_text)
    named = has_names(path, rows[0], lambda: [Written.of(column, spelled) for column in zip(*rows[1:], strict=True)], source)
    names = rows[0] if named else [str(place) for place in range(len(rows[0]))]
    columns = zip(*rows[named:], strict=True) if rows[named:] else [()] * len(names)
    cells = [Cells(name, np.array(column, dtype=str)) for name, column in zip(names, columns, strict=True)]
    return table(str(path), cells, source)


def cells_of(path: Path, *, strict: bool = False) -> list[list[str]]:
    """The cells of each line that has any, as many in each; ``strict`` refuses quotation marks that are not closed."""
    return list(lines_of(path, strict=strict))


def lines_of(path: Path, *, strict: bool = False) -> Iterator[list[str]]:
    """The same, line by line.

    Raises:
        ValueError: text that is not UTF-8 or has zero bytes, lines of different numbers of cells, or none.
    """
    expected = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            tabs = path.suffix.lower() == ".tsv"  # whose cells may hold quotation marks
            separator = "\t" if tabs else _separator(file.readline())
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL, strict=strict)
            for number, cells in enumerate(reader, start=1):
                if not cells:
                    continue
                row = [cell.strip() for cell in cells]
                expected = expected or len(row)
                _check_line(path, number, row, expected, separator)
                yield row
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, got the byte {error.object[error.start]:#x}: save it as UTF-8"
        ) from None
    except (csv.Error, OSError) as error:
        raise unreadable(path, error) from None
    if not expected:
        raise ValueError(f"{path}: expected rows of numbers, got an empty file")


def _check_line(path: Path, number: int, row: list[str], expected: int, separator: str) -> None:
    if any("\0" in cell for cell in row):
        raise ValueError(f"{path}: expected text without zero bytes, got one in line {number}: is it a binary file?")
    if len(row) != expected:
        raise ValueError(
            f"{path}: expected {expected} cells in line {number}, as in the first, got {len(row)}: cells are separated by "
            f"{separator!r}, and text that holds it is quoted"
        )


def _separator(line: str) -> str:
    unquoted = re.sub(r'"[^"]*"', "", line)
    return next((mark for mark in ",\t;" if mark in unquoted), ",")


class Written(NamedTuple):
    """How the cells of a column below the first line are written.

    ``absent`` tells whether all stand for missing entries, ``numeric`` whether one is a number, ``whole`` whether one is
    written as a whole number, ``all_whole`` whether all are.
    """

    absent: bool
    numeric: bool
    whole: bool
    all_whole: bool

    @classmethod
    def of(cls, cells: Collection[str], spelled: Collection[str]) -> Written:
        """Of some cells, each different one once at least."""
        return cls(
            all(is_absent(cell, spelled) for cell in cells),
            any(is_numeric(cell, ()) for cell in cells),
            any(WHOLE.fullmatch(cell) for cell in cells),
            all(WHOLE.fullmatch(cell) for cell in cells),
        )

    def __or__(self, other: Written) -> Written:
        return Written(
            self.absent and other.absent,
            self.numeric or other.numeric,
            self.whole or other.whole,
            self.all_whole and other.all_whole,
        )


def has_names(path: Path, first: list[str], below: Callable[[], Sequence[Written]], source: DataSource) -> bool:
    """Whether the first line is declared to name the columns, or looks like it; remarked on where it might be otherwise.

    Args:
        path: of the file, for messages.
        first: the cells of the first line.
        below: of each column how the cells of the others are written; none if there are no others.
        source: the declaration.
    """
    spelled = spellings(source.missing_text)
    if source.header is not None:
        return source.header
    if not all(is_numeric(cell, spelled) for cell in first):
        return True
    if source.label in first and source.label not in map(str, range(len(first))):
        return True
    columns = below() if len(first) > 1 and (not first[0] or _could_be_names(first)) else ()
    if not first[0] and len(first) > 1 and (not columns or columns[0].all_whole):
        return bool(columns)
    names = _looks_like_names(first, columns)
    if names or _evenly_spaced(first):
        told = ", ".join([*first[:3], "..."])
        taken, instead, value = ("column names", "a row", "false") if names else ("a row", "column names", "true")
        warnings.warn(
            f"{path}: the first line ({told}) is taken for {taken}: if it is {instead}, say --data.header {value}",
            FitWarning,
            stacklevel=2,
        )
    return names


def _looks_like_names(first: Sequence[str], columns: Iterable[Written]) -> bool:
    """Whether whole numbers stand above text, or, rising, above columns that are nowhere written as whole numbers."""
    there = [column for column in columns if not column.absent]
    if not _could_be_names(first):
        return False
    if not all(column.numeric for column in there):
        return True
    if not all(int(left) < int(right) for left, right in pairwise(first)):
        return False
    other = sum(not column.whole for column in there)
    return other >= 2 and 2 * other > len(first)


def _could_be_names(first: Sequence[str]) -> bool:
    """Whether these are different whole numbers, several."""
    return len(first) > 1 and all(WHOLE.fullmatch(cell) for cell in first) and len(set(first)) == len(first)


def _evenly_spaced(first: Sequence[str]) -> bool:
    """Whether a line could hold years or numbers of columns: three numbers or more in equal steps."""
    if len(first) < 3 or not all(first):
        return False
    steps = np.diff(np.array(first, dtype=np.float64)) if all(is_numeric(cell, ()) for cell in first) else np.zeros(1)
    return bool(steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-6, atol=0.0))
