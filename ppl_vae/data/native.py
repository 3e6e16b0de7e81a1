"""Numbers of x as what they stand for, and as columns of pandas, polars or pyarrow with the dtypes of their source."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppl_vae.types import Column

__all__ = ["BACKENDS", "FILLED", "MEANS", "decoded", "frame_of", "series_of", "with_fractions"]

BACKENDS = ("pandas", "polars", "pyarrow")
DAY = np.timedelta64(1, "D")
MEANS = ("integer", "boolean")  # columns between whose values means lie
FILLED = ("integer",)  # and what is filled in, whose spread rounding would widen; of two states the more probable one is


def with_fractions(table: Sequence[Column], columns: Mapping[str, Any], dtypes: Sequence[str]) -> tuple[Column, ...]:
    """The table, in which columns of these dtypes are of numbers where some of their values lie between two whole ones.

    Examples:
        >>> age = Column(name="age", kind="real", dtype="integer")
        >>> with_fractions([age], {"age": np.array([59.7, 61.0])}, MEANS)[0].dtype
        'float'
    """
    between = {
        column.name
        for column in table
        if column.dtype in dtypes and not column.categories and np.any(np.rint(known := _known(columns[column.name])) != known)
    }
    return tuple(dataclasses.replace(column, dtype="float") if column.name in between else column for column in table)


def _known(values: Any) -> np.ndarray:
    """The numbers of a column that are there."""
    found = np.asarray(values, dtype=np.float64)
    return found[~np.isnan(found)]


def decoded(values: np.ndarray, column: Column) -> np.ndarray:
    """What numbers ``(n,)`` of a column stand for: text, booleans, whole numbers, dates; ``None``, NaN or NaT where NaN is.

    Numbers between two codes, two booleans or two whole numbers stand for the nearest one; datetimes are in microseconds, UTC.

    Examples:
        >>> decoded(np.array([1.0, float("nan")]), Column(name="sex", kind="binary", dtype="text", categories=("f", "m")))
        array(['m', None], dtype=object)
    """
    values = np.asarray(values, dtype=np.float64)
    missing = np.isnan(values)
    if column.dtype in ("date", "datetime"):
        unit, per_day = ("D", 1) if column.dtype == "date" else ("us", DAY // np.timedelta64(1, "us"))
        times = np.rint(np.where(missing, 0.0, values * per_day)).astype(np.int64).astype(f"datetime64[{unit}]")
        times[missing] = np.datetime64("NaT")
        return times
    if column.dtype == "float":
        return values
    whole = np.rint(np.where(missing, 0.0, values)).astype(np.int64)
    if column.dtype != "integer":
        whole = whole.clip(0, max(len(column.categories), 1 + (column.dtype == "boolean")) - 1)
    found: np.ndarray = whole.astype(bool) if column.dtype == "boolean" else whole
    if column.categories:
        found = np.array(column.categories, dtype=object)[whole]
    if missing.any():
        found = found.astype(object)
        found[missing] = None
    return found


def series_of(backend: str, name: str, values: Any, column: Column | None, dtype: Any) -> Any:
    """A column of a library: what ``values`` stand for if it is a table's, with the dtype of its source where that is known."""
    cells = values if column is None else decoded(values, column)
    categories = column.categories if column is not None and column.dtype == "category" else ()
    truths = column is not None and dtype is None and set(column.categories) == {"True", "False"}
    if truths or (column is not None and column.coded and str(dtype).lower().startswith("bool")):  # the fit's rows held text
        cells = np.array([None if cell is None else cell == "True" for cell in cells], dtype=object)
    if not _holds(dtype, cells):
        dtype = "Float64" if backend == "pandas" and not isinstance(dtype, np.dtype) else None
    make = {"pandas": _of_pandas, "polars": _of_polars, "pyarrow": _of_pyarrow}[backend]
    return make(name, cells, categories, dtype)


def frame_of(backend: str, columns: Mapping[str, Any], index: Any, labels: Sequence[Any]) -> Any:
    """A frame of a library from its own columns; ``index`` is one of pandas, or none, and ``labels`` call its columns."""
    library = _library(backend)
    if backend == "pandas":
        frame = library.DataFrame({name: column.array for name, column in columns.items()}, index=index)
        frame.columns = library.Index(labels) if labels else frame.columns
        return frame
    if backend == "polars":
        return library.DataFrame(list(columns.values()))
    return library.table(dict(columns))


def _library(backend: str) -> Any:
    try:
        return importlib.import_module(backend)
    except ImportError:
        raise ValueError(f"expected {backend} for frames of it, got none installed: pip install {backend}") from None


def _of_pandas(name: str, cells: Any, categories: tuple[str, ...], dtype: Any) -> Any:
    pandas = _library("pandas")
    if isinstance(dtype, pandas.CategoricalDtype):
        own = {str(category): category for category in dtype.categories}
        return pandas.Series(pandas.Categorical([own.get(cell, cell) for cell in cells], dtype=dtype), name=name)
    if categories and dtype is None:
        return pandas.Series(pandas.Categorical(cells, categories=list(categories)), name=name)
    if dtype is str:
        return pandas.Series(
            [str(cell) if cell == cell and cell is not None else None for cell in _plain(cells)], name=name, dtype=object
        )
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return pandas.Series(_plain(cells), name=name, dtype=object)
    series = pandas.Series(cells, name=name)
    if isinstance(dtype, pandas.DatetimeTZDtype):
        series = series.dt.tz_localize("UTC")
    lacking = isinstance(dtype, np.dtype) and dtype.kind in "biu" and bool(series.isna().any())
    if lacking:
        return series.astype(object if dtype.kind == "b" else float)
    return series if dtype is None else series.astype(dtype)


def _of_polars(name: str, cells: Any, categories: tuple[str, ...], dtype: Any) -> Any:
    polars = _library("polars")
    series = polars.Series(name, _listed(cells), nan_to_null=True)
    if categories and dtype is None:
        dtype = polars.Enum(list(categories))
    if dtype is not None and isinstance(dtype, polars.Datetime) and dtype.time_zone is not None:
        return series.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone).cast(dtype)
    return series if dtype is None else series.cast(dtype)


def _of_pyarrow(name: str, cells: Any, categories: tuple[str, ...], dtype: Any) -> Any:
    pyarrow = _library("pyarrow")
    array = pyarrow.array(_listed(cells), from_pandas=True)
    if categories and dtype is None:
        dtype = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    if dtype is not None and pyarrow.types.is_dictionary(dtype):
        places = {text: place for place, text in enumerate(categories)}
        codes = pyarrow.array([places.get(cell) for cell in cells], dtype.index_type)
        return pyarrow.DictionaryArray.from_arrays(
            codes, pyarrow.array(list(categories), dtype.value_type), ordered=dtype.ordered
        )
    if dtype is not None and pyarrow.types.is_timestamp(dtype) and dtype.tz is not None:
        array = importlib.import_module("pyarrow.compute").assume_timezone(array, "UTC")
    return array if dtype is None else array.cast(dtype)


def _holds(dtype: Any, cells: Any) -> bool:
    """Whether a column of whole numbers or booleans has a place for all of these numbers, as it has none for most means."""
    if not (isinstance(cells, np.ndarray) and cells.dtype.kind == "f"):
        return True
    name, known = str(dtype).lower(), cells[np.isfinite(cells)]
    if re.match(r"u?int\d", name):
        return bool((known == np.floor(known)).all())
    return not name.startswith("bool") or bool(((known == 0) | (known == 1)).all())


def _listed(cells: Any) -> Any:
    """Objects as a list, whose ``None`` every library takes for null; numpy's numbers as they are."""
    return cells.tolist() if isinstance(cells, np.ndarray) and cells.dtype.kind == "O" else cells


def _plain(cells: Any) -> Any:
    """Objects of Python in place of numpy's times."""
    if not (isinstance(cells, np.ndarray) and cells.dtype.kind == "M"):
        return cells
    return [None if np.isnat(cell) else cell.item() for cell in cells]
