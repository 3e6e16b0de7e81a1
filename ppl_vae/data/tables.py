"""Tables with named columns, from files, frames and arrays of objects: which columns are data, and what they hold."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppl_vae.data.arrays import unreadable
from ppl_vae.data.cells import Cells, Encoded, encoded, is_numeric, looks_like_an_identifier
from ppl_vae.data.frames import cells_of_frame
from ppl_vae.data.missing import absent, spellings
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.data.weights import weights_apart
from ppl_vae.memory import require_memory
from ppl_vae.text import did_you_mean
from ppl_vae.types import FitWarning

__all__ = [
    "INDEX",
    "Roles",
    "as_field",
    "chosen_columns",
    "index_of",
    "label_column",
    "of_objects",
    "opened_parquet",
    "read_parquet",
    "refuse_no_data",
    "roles",
    "table",
    "tell_identifiers",
]

INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Names that a column of row numbers or row names has: none, or what pandas makes of that."""


def opened_parquet(path: Path) -> Any:
    """A parquet file, of which nothing but its description is read.

    Raises:
        ValueError: pyarrow is not installed, or a damaged file.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs pyarrow: pip install 'ppl_vae[parquet]'") from None
    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # pyarrow's errors have no common base but Exception
        raise unreadable(path, error) from None


def index_of(schema: Any) -> list[str]:
    """The names of the columns that pandas stored as the index of a parquet file."""
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    return [name for name in index if isinstance(name, str)]


def read_parquet(path: Path, source: DataSource) -> Raw:
    """The columns of a parquet file; null is a missing entry."""
    file = opened_parquet(path)
    require_memory(8 * file.metadata.num_rows * file.metadata.num_columns, str(path))
    try:
        read = file.read()
        index = index_of(read.schema)
    except Exception as error:  # pyarrow's errors have no common base but Exception
        raise unreadable(path, error) from None
    return table(str(path), cells_of_frame(read, str(path)), source, index=index)


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
    spelled = spellings(source.missing_text)
    weights, columns = weights_apart(name, columns, source.weights)
    found = roles(
        name,
        [cells.name for cells in columns],
        source,
        index=index,
        numbers_rows=lambda place: _numbers_rows(place, columns[place], spelled),
    )
    features = _features(name, [columns[place] for place in found.data], source, spelled)
    refuse_no_data(name, len(features), source)
    x, described = np.stack([each.values for each in features], axis=1), tuple(each.column for each in features)
    y = None if found.label is None else label_column(columns[found.label], spelled)
    fields = {each: as_field(columns[place], spelled) for each, place in found.fields.items()} or None
    return Raw(x, y, columns=tuple(column.name for column in described), table=described, fields=fields, weights=weights)


class Roles(NamedTuple):
    """The places of the columns that are data, in the order of x, of the labels, and of the fields by name."""

    data: list[int]
    label: int | None
    fields: dict[str, int]


def roles(
    name: str, names: Sequence[str], source: DataSource, *, index: Collection[str], numbers_rows: Callable[[int], bool]
) -> Roles:
    """Which of a table's columns are data, labels and fields, by their names; tells which are left out.

    Args:
        name: of the table, for messages.
        names: of its columns, but that of the weights.
        source: which of them are asked for.
        index: names of those that are no data.
        numbers_rows: whether a column, by its place, only numbers or names the rows.

    Raises:
        ValueError: a name twice, or no such label, field or column.
    """
    label = source.label
    asked = {label, *source.columns, *source.fields}
    left = {place for place, each in enumerate(names) if each not in asked and (each in index or numbers_rows(place))}
    _tell_left_out(name, [names[place] for place in sorted(left)], "it only numbers or names the rows, or is empty")
    known = [each for place, each in enumerate(names) if place not in left]
    _refuse_twice(name, known)
    places = {each: place for place, each in enumerate(names) if place not in left}
    if label is not None and label not in places:
        told = f"expected a label column among {', '.join(known)}, got {label!r}"
        remedy = "name another with label (--label), or none where no labels are needed"
        raise ValueError(f"{name}: {told}: {remedy}") from KeyError(label)
    if unknown := [each for each in source.fields if each not in places]:
        near = did_you_mean(unknown[0], known)
        raise ValueError(f"{name}: expected a column for the field {unknown[0]!r}, got {_listed(known)}{near and ': '}{near}")
    wanted = chosen_columns(name, [each for each in known if each != label and each not in source.fields], source)
    fields = {each: places[each] for each in source.fields}
    return Roles([places[each] for each in wanted], None if label is None else places[label], fields)


def refuse_no_data(name: str, columns: int, source: DataSource) -> None:
    """Raise ``ValueError`` if no column of data is there."""
    if not columns:
        besides = "" if source.label is None else f" besides the label {source.label!r}"
        raise ValueError(f"{name}: expected a column of data{besides}, got none")


def as_field(cells: Cells, spelled: Collection[str]) -> np.ndarray:
    """A column as a field beside x: text, booleans, whole numbers, or real ones, NaN and empty text where it is missing."""
    values, column = encoded(cells, spelled)
    there = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, dtype=bool)
    if column.coded:
        return np.array([*column.categories, ""])[np.where(there, values, len(column.categories)).astype(int)]
    if there.all() and column.dtype in ("boolean", "integer"):
        return values.astype(bool if column.dtype == "boolean" else np.int64)
    return values


def chosen_columns(name: str, names: Sequence[str], source: DataSource) -> list[str]:
    """The names of the columns of data: those that the source names, or all, without those that it drops.

    Raises:
        ValueError: a name that the table does not have, with those that look alike.
    """
    for field in ("columns", "drop"):
        for wanted in getattr(source, field):
            if wanted not in (*names, source.label, source.weights):
                near = did_you_mean(wanted, names)
                raise ValueError(f"{name}: expected {field} among {_listed(names)}, got {wanted!r}{near and ': '}{near}")
    chosen = [each for each in source.columns if each not in (source.label, source.weights)] or names
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
        there = int(np.count_nonzero(~np.isnan(found.values)))
        identifies = cells.name not in source.columns and looks_like_an_identifier(found.column, there)
        identifiers.append(cells.name) if identifies else features.append(found)
    tell_identifiers(name, identifiers)
    return features


def tell_identifiers(name: str, columns: Sequence[str]) -> None:
    """Remark on columns that are left out, if some are, because they tell the rows apart."""
    _tell_left_out(name, columns, "nearly every row has another text", remedy="name it in columns")


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


def label_column(cells: Cells, spelled: Collection[str]) -> np.ndarray:
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
