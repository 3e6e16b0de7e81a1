"""Tables of numbers with named columns: csv and parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from numbers import Number
from pathlib import Path

import numpy as np

from ppl_vae.data.arrays import Raw, unreadable
from ppl_vae.data.source import DataSource
from ppl_vae.memory import require_memory

__all__ = ["read_csv", "read_parquet"]


def read_csv(path: Path, source: DataSource) -> Raw:
    """Comma-separated numbers in UTF-8, with or without a line of column names; an empty cell is a missing entry.

    Without names the columns are called ``0``, ``1``, ...
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(file), start=1) if row]
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
    first = lines[0][1]
    for number, row in lines:
        if len(row) != len(first):
            raise ValueError(f"{path}: expected {len(first)} cells in line {number}, as in the first, got {len(row)}")
    named = not all(_is_number(cell) for cell in first)
    names = first if named else [str(index) for index in range(len(first))]
    rows = lines[1:] if named else lines
    return _table(path, names, [np.array(column, dtype=str) for column in zip(*(row for _, row in rows), strict=True)], source)


def read_parquet(path: Path, source: DataSource) -> Raw:
    """Numeric columns of a parquet file; null is a missing entry."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs pyarrow: pip install 'ppl_vae[parquet]'") from None
    try:
        file = parquet.ParquetFile(path)
        require_memory(8 * file.metadata.num_rows * file.metadata.num_columns, str(path))
        table = file.read()
        columns = [np.asarray(column.to_numpy()) for column in table.columns]
    except Exception as error:  # pyarrow's errors have no common base but Exception
        if type(error) is ValueError and str(error).startswith(str(path)):
            raise
        raise unreadable(path, error) from None
    return _table(path, table.column_names, columns, source)


def _table(path: Path, names: Sequence[str], columns: Sequence[np.ndarray], source: DataSource) -> Raw:
    if not columns or not len(columns[0]):
        raise ValueError(f"{path}: expected rows of data, got none")
    if source.label is not None and source.label not in names:
        told = f"expected a label column among {', '.join(names)}, got {source.label!r}"
        raise ValueError(f"{path}: {told}: name another with label (--label), or none where no labels are needed")
    label = None if source.label is None else names.index(source.label)
    features = [_numeric(path, names[i], column) for i, column in enumerate(columns) if i != label]
    if not features:
        raise ValueError(f"{path}: expected a column of numbers besides the label {source.label!r}, got none")
    x, y = np.stack(features, axis=1), None if label is None else _label_column(path, names[label], columns[label])
    return Raw(x, y, columns=tuple(name for i, name in enumerate(names) if i != label))


def _numeric(path: Path, name: str, column: np.ndarray) -> np.ndarray:
    if column.dtype.kind in "biuf":
        return column
    try:
        return np.where(column == "", "nan", column).astype(np.float64) if column.dtype.kind == "U" else _nullable(column)
    except (ValueError, TypeError):
        example = next((cell for cell in column if not _is_number(cell)), column[0])
        raise ValueError(
            f"{path}: expected numbers in column {name!r}, got {str(example)[:40]!r}: drop or encode it, or make it the label"
        ) from None


def _nullable(column: np.ndarray) -> np.ndarray:
    if not all(cell is None or isinstance(cell, Number) for cell in column):
        raise TypeError
    return np.array([np.nan if cell is None else cell for cell in column], dtype=np.float64)


def _label_column(path: Path, name: str, column: np.ndarray) -> np.ndarray:
    if column.dtype.kind == "U":
        if (column == "").any():
            raise ValueError(f"{path}: expected a label in every row, got an empty cell in column {name!r}")
        return column.astype(np.float64) if all(_is_whole(cell) for cell in column) else column
    return column


def _is_number(cell: object) -> bool:
    """Whether a cell holds a number or, being empty, a missing one."""
    try:
        float("nan" if cell is None or cell == "" else cell)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False
    return True


def _is_whole(cell: str) -> bool:
    return _is_number(cell) and float(cell).is_integer()
