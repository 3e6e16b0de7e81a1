"""Tables with named columns, from files, frames and arrays of objects: which columns are data, and what they hold."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from ppl_vae.data.arrays import unreadable
from ppl_vae.data.cells import Cells, Encoded, encoded, is_numeric, looks_like_an_identifier
from ppl_vae.data.frames import cells_of_frame
from ppl_vae.data.missing import absent, spellings
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.memory import require_memory
from ppl_vae.text import did_you_mean
from ppl_vae.types import FitWarning

__all__ = ["chosen_columns", "of_objects", "read_parquet", "table"]

INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Names that a column of row numbers or row names has: none, or what pandas makes of that."""


def read_parquet(path: Path, source: DataSource) -> Raw:
    """The columns of a parquet file; null is a missing entry."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs pyarrow: pip install 'ppl_vae[parquet]'") from None
    try:
        file = parquet.ParquetFile(path)
        require_memory(8 * file.metadata.num_rows * file.metadata.num_columns, str(path))
        read = file.read()
        index = (read.schema.pandas_metadata or {}).get("index_columns", [])
    except Exception as error:  # pyarrow's errors have no common base but Exception
        if type(error) is ValueError and str(error).startswith(str(path)):
            raise
        raise unreadable(path, error) from None
    return table(str(path), cells_of_frame(read, str(path)), source, index=[name for name in index if isinstance(name, str)])


def of_objects(values: np.ndarray, source: DataSource) -> Raw:
    """Rows ``(N, D)`` of objects or text: a table whose columns are called 0, 1, ..."""
    return table("array", [Cells(str(place), column) for place, column in enumerate(values.T)], source)


def table(name: str, columns: Sequence[Cells], source: DataSource, *, index: Collection[str] = ()) -> Raw:
    """Features ``(N, D)`` and labels ``(N,)`` from columns, each ``(N,)``.

    Columns that only number or name the rows are left out, as are those of the ``index``, and what has no name and no entries;
    but not those that the source names in ``columns``.

    Raises:
        ValueError: no rows, a name twice, no such label or column, a column that no numbers stand for.
    """
    if not columns or not len(columns[0].values):
        raise ValueError(f"{name}: expected rows of data, got none")
    spelled, label = spellings(source.missing_text), source.label
    asked = {label, *source.columns}
    left = {
        place
        for place, cells in enumerate(columns)
        if cells.name not in asked and (cells.name in index or _numbers_rows(place, cells, spelled))
    }
    _tell_left_out(name, [columns[place].name for place in sorted(left)], "it only numbers or names the rows, or is empty")
    data = [cells for place, cells in enumerate(columns) if place not in left]
    names = [cells.name for cells in data]
    _refuse_twice(name, names)
    if label is not None and label not in names:
        told = f"expected a label column among {', '.join(names)}, got {label!r}"
        raise ValueError(f"{name}: {told}: name another with label (--label), or none where no labels are needed")
    wanted = chosen_columns(name, [each for each in names if each != label], source)
    features = _features(name, [data[names.index(each)] for each in wanted], source, spelled)
    if not features:
        besides = "" if label is None else f" besides the label {label!r}"
        raise ValueError(f"{name}: expected a column of data{besides}, got none")
    x, described = np.stack([each.values for each in features], axis=1), tuple(each.column for each in features)
    y = None if label is None else _label_column(data[names.index(label)], spelled)
    return Raw(x, y, columns=tuple(column.name for column in described), table=described)


def chosen_columns(name: str, names: Sequence[str], source: DataSource) -> list[str]:
    """The names of the columns of data: those that the source names, or all, without those that it drops.

    Raises:
        ValueError: a name that the table does not have, with those that look alike.
    """
    for field in ("columns", "drop"):
        for wanted in getattr(source, field):
            if wanted not in names and wanted != source.label:
                near = did_you_mean(wanted, names)
                raise ValueError(f"{name}: expected {field} among {_listed(names)}, got {wanted!r}{near and ': '}{near}")
    chosen = [each for each in source.columns if each != source.label] or names
    return [each for each in chosen if each not in source.drop]


def _refuse_twice(name: str, names: Sequence[str]) -> None:
    """Raise ``ValueError`` if two columns have one name."""
    twice = next((each for place, each in enumerate(names) if each in names[:place]), None)
    if twice is not None:
        raise ValueError(f"{name}: expected columns of different names, got {twice!r} twice: rename one")


def _features(name: str, columns: Iterable[Cells], source: DataSource, spelled: Collection[str]) -> list[Encoded]:
    """The columns as numbers, without identifiers that nobody asked for."""
    features, identifiers = [], []
    for cells in columns:
        try:
            found = encoded(cells, spelled)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        identifies = cells.name not in source.columns and looks_like_an_identifier(found.column, found.values)
        identifiers.append(cells.name) if identifies else features.append(found)
    _tell_left_out(name, identifiers, "nearly every row has another text", remedy="name it in columns")
    return features


def _numbers_rows(place: int, cells: Cells, spelled: Collection[str]) -> bool:
    """Whether a column numbers or names the rows: it is called so, and holds text, or whole numbers that rise; or nothing."""
    name, column = cells.name, cells.values
    if not INDEX.fullmatch(name):
        return False
    if name.startswith("__") or absent(column, spelled).all():
        return True
    if place > 0 or not all(is_numeric(cell, ()) for cell in column.tolist()):
        return place == 0
    values = column.astype(np.float64)
    return bool((values == np.floor(values)).all() and (np.diff(values) > 0).all())


def _tell_left_out(name: str, left_out: Sequence[str], why: str, *, remedy: str = "rename it") -> None:
    if left_out:
        told = ", ".join(repr(each) for each in left_out)
        warnings.warn(f"{name}: the column {told} is left out, because {why}: {remedy} if it is data", FitWarning, stacklevel=2)


def _label_column(cells: Cells, spelled: Collection[str]) -> np.ndarray:
    """Labels as they are, whole numbers that were text as numbers."""
    column = cells.values
    missing = absent(column, spelled)
    if column.dtype.kind != "U" or not all(_is_whole(cell) for cell in column[~missing]):
        return column
    return np.where(missing, "nan", column).astype(np.float64)


def _is_whole(cell: str) -> bool:
    return is_numeric(cell, ()) and float(cell).is_integer()


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")
