"""Tables with named columns: from parquet files and frames, and what they have in common with csv files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ppl_vae.data.arrays import numbers, unreadable
from ppl_vae.data.missing import absent, is_absent, spellings
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.data.weights import weights_apart
from ppl_vae.memory import require_memory
from ppl_vae.types import FitWarning

__all__ = ["Frame", "is_numeric", "read_frame", "read_parquet", "table"]

INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Names that a column of row numbers or row names has: none, or what pandas makes of that."""


def read_parquet(path: Path, source: DataSource) -> Raw:
    """Numeric columns of a parquet file; null is a missing entry."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs pyarrow: pip install 'ppl_vae[parquet]'") from None
    try:
        file = parquet.ParquetFile(path)
        require_memory(8 * file.metadata.num_rows * file.metadata.num_columns, str(path))
        read = file.read()
        columns = [np.asarray(_plain(column).to_numpy()) for column in read.columns]
        index = (read.schema.pandas_metadata or {}).get("index_columns", [])
    except Exception as error:  # pyarrow's errors have no common base but Exception
        if type(error) is ValueError and str(error).startswith(str(path)):
            raise
        raise unreadable(path, error) from None
    return table(str(path), read.column_names, columns, source, index=[name for name in index if isinstance(name, str)])


@runtime_checkable
class Frame(Protocol):
    """A table of pandas, polars or the like: named columns that numpy can have."""

    columns: Any

    def __getitem__(self, name: Any) -> Any:
        """A column."""

    def to_numpy(self) -> np.ndarray:
        """All of them."""


def read_frame(frame: Frame, source: DataSource) -> Raw:
    """The columns of a frame, each as numbers; its index is not data."""
    names = [str(name) for name in frame.columns]
    _refuse_twice("frame", names)
    return table("frame", names, [np.asarray(frame[name].to_numpy()) for name in frame.columns], source)


def table(
    name: str, names: Sequence[str], columns: Sequence[np.ndarray], source: DataSource, *, index: Collection[str] = ()
) -> Raw:
    """Features ``(N, D)`` and labels ``(N,)`` from columns of numbers or text, each ``(N,)``.

    Columns that only number or name the rows are left out, as are those of the ``index``, and what has no name and no entries.

    Raises:
        ValueError: no rows, a name twice, no such label, a column that is not of numbers.
    """
    if not columns or not len(columns[0]):
        raise ValueError(f"{name}: expected rows of data, got none")
    weights, names, columns = weights_apart(name, names, columns, source.weights)
    spelled = spellings(source.missing_text)
    data = [
        place
        for place, (each, column) in enumerate(zip(names, columns, strict=True))
        if each == source.label or not (each in index or _numbers_rows(place, each, column, spelled))
    ]
    _tell_left_out(name, [each for place, each in enumerate(names) if place not in data])
    names, columns = [names[place] for place in data], [columns[place] for place in data]
    _refuse_twice(name, names)
    if source.label is not None and source.label not in names:
        told = f"expected a label column among {', '.join(names)}, got {source.label!r}"
        raise ValueError(f"{name}: {told}: name another with label (--label), or none where no labels are needed")
    label = None if source.label is None else names.index(source.label)
    features = [_numeric(name, names[place], columns[place], spelled) for place in range(len(names)) if place != label]
    if not features:
        besides = "" if source.label is None else f" besides the label {source.label!r}"
        raise ValueError(f"{name}: expected a column of numbers{besides}, got none")
    x, y = np.stack(features, axis=1), None if label is None else _label_column(columns[label], spelled)
    return Raw(x, y, columns=tuple(each for place, each in enumerate(names) if place != label), weights=weights)


def is_numeric(cell: object, spelled: Collection[str]) -> bool:
    """Whether a cell holds a number, or stands for a missing one."""
    try:
        return is_absent(cell, spelled) or (not np.iscomplexobj(cell) and float(cell) is not None)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False


def _plain(column: Any) -> Any:
    """A column of pyarrow with categories written out."""
    from pyarrow import types

    return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def _refuse_twice(name: str, names: Sequence[str]) -> None:
    twice = next((each for place, each in enumerate(names) if each in names[:place]), None)
    if twice is not None:
        raise ValueError(f"{name}: expected columns of different names, got {twice!r} twice: rename one")


def _numbers_rows(place: int, name: str, column: np.ndarray, spelled: Collection[str]) -> bool:
    """Whether a column numbers or names the rows: it is called so, and holds text, or whole numbers that rise; or nothing."""
    if not INDEX.fullmatch(name):
        return False
    if name.startswith("__") or absent(column, spelled).all():
        return True
    if place > 0 or not all(is_numeric(cell, ()) for cell in column.tolist()):
        return place == 0
    values = column.astype(np.float64)
    return bool((values == np.floor(values)).all() and (np.diff(values) > 0).all())


def _tell_left_out(name: str, left_out: Sequence[str]) -> None:
    if left_out:
        told = ", ".join(repr(each) for each in left_out)
        warnings.warn(
            f"{name}: the column {told} is left out, because it only numbers or names the rows, or is empty: rename it if it "
            "is data",
            FitWarning,
            stacklevel=2,
        )


def _numeric(name: str, column_name: str, column: np.ndarray, spelled: Collection[str]) -> np.ndarray:
    if column.dtype.kind in "biuf":
        return column
    try:
        found = np.where(absent(column, spelled), "nan", column).astype(np.float64) if column.dtype.kind == "U" else column
    except ValueError:
        found = column
    found = numbers(found) if found.dtype.kind == "O" else found
    if found.dtype.kind == "O" and absent(found, ()).all():
        return np.full(found.shape, np.nan)
    if found.dtype.kind not in "biuf":
        example = next((cell for cell in column if not is_numeric(cell, spelled)), column[0])
        raise ValueError(
            f"{name}: expected numbers in column {column_name!r}, got {str(example)[:40]!r}: {_remedy(str(example))}"
        )
    return found


def _remedy(cell: str) -> str:
    """What to do about a cell that is not a number."""
    if is_numeric(cell, ()):
        return "convert the text of this column to numbers, or drop it"
    if re.fullmatch(r"[-+\d.,' ]*\d,\d[\d.,' ]*", cell):
        return "write numbers with a decimal point and without separators of thousands"
    if re.search(r"[;\t]", cell):
        return "separate cells by commas, or all of them by semicolons or tabs and decimals by points"
    if re.fullmatch(r"[-+\d.eE]+( +[-+\d.eE]+)+", cell):
        return "separate cells by commas"
    return "drop or encode it, make it the label, or name it in missing_text if it stands for a missing entry"


def _label_column(column: np.ndarray, spelled: Collection[str]) -> np.ndarray:
    """Labels as they are, whole numbers that were text as numbers."""
    missing = absent(column, spelled)
    if column.dtype.kind != "U" or not all(_is_whole(cell) for cell in column[~missing]):
        return column
    return np.where(missing, "nan", column).astype(np.float64)


def _is_whole(cell: str) -> bool:
    return is_numeric(cell, ()) and float(cell).is_integer()
