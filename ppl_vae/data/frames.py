"""Frames of pandas, polars and pyarrow, through narwhals: in as columns of cells, and rows back in the form they had."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import narwhals as nw
import numpy as np
import torch
from narwhals.typing import IntoDataFrame
from torch import Tensor

from ppl_vae.data.cells import Cells
from ppl_vae.data.native import BACKENDS, decoded, frame_of, series_of
from ppl_vae.types import Column

__all__ = ["Form", "Frame", "cells_of_frame", "is_frame", "is_table", "with_others_of", "with_times_of"]

Frame = IntoDataFrame
"""A table of pandas, polars or pyarrow in memory."""


def is_frame(values: Any) -> bool:
    """Whether these are a table of pandas, polars or pyarrow, or of another library that narwhals knows."""
    return bool(nw.dependencies.is_into_dataframe(values))


def is_table(values: Any) -> bool:
    """Whether these are a frame, or an array of objects or text whose columns may be numbers, text, booleans or dates."""
    return is_frame(values) or (isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind in "OU")


def cells_of_frame(frame: Frame, name: str = "frame") -> list[Cells]:
    """The columns of a frame, which messages call by this name; its index is not data.

    Raises:
        ValueError: two columns of one name, or one that holds lists, structures or durations.
    """
    try:
        return [_cells(str(column.name), column) for column in _narwhals(frame).iter_columns()]
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """In which form rows came, and the way back into it.

    Args:
        kind: ``tensor``; ``array`` of numpy; ``objects``, an array that holds text, booleans, dates as such; or ``frame``.
        backend: of a frame: ``pandas``, ``polars`` or ``pyarrow``.
        index: of a frame of pandas, which rows of that number keep.
        dtypes: the dtypes of a frame's columns, as its library tells them, by name.
        labels: of a frame of pandas what its columns are called, which may be no text, by the text of it.
        unseen: columns of a frame that have no value at all, whose dtypes tell nothing of what belongs there.

    Raises:
        ValueError: a frame without a backend.

    Examples:
        >>> Form.of(np.zeros((2, 3))).rows(torch.ones(2, 3)).shape
        (2, 3)
    """

    kind: Literal["tensor", "array", "objects", "frame"] = "tensor"
    backend: Literal["pandas", "polars", "pyarrow"] | None = None
    index: Any = None
    dtypes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unseen: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if (self.kind == "frame") != (self.backend in BACKENDS):
            raise ValueError(f"expected a backend of {', '.join(BACKENDS)} for a frame alone, got {self.kind}, {self.backend}")

    @classmethod
    def of(cls, given: Any) -> Self:
        """The form of what came in; a tensor for all that is neither a frame nor an array."""
        if is_frame(given):
            return cls._of_frame(given)
        if isinstance(given, np.ndarray):
            return cls(kind="objects" if given.dtype.kind in "OU" else "array")
        return cls()

    @classmethod
    def _of_frame(cls, given: Any) -> Self:
        frame = _narwhals(given)
        backend: Any = (
            "polars" if frame.implementation.is_polars() else "pyarrow" if frame.implementation.is_pyarrow() else "pandas"
        )
        dtypes = {str(column.name): _own_dtype(column) for column in frame.iter_columns()}
        unseen = frozenset(str(column.name) for column in frame.iter_columns() if len(column) and _is_empty(column))
        if backend != "pandas":
            return cls(kind="frame", backend=backend, dtypes=dtypes, unseen=unseen)
        labels = {str(column.name): label for column, label in zip(frame.iter_columns(), given.columns, strict=True)}
        return cls(kind="frame", backend=backend, index=given.index, dtypes=dtypes, labels=labels, unseen=unseen)

    def rows(self, x: Tensor, names: Sequence[str] = (), table: Sequence[Column] = ()) -> Any:
        """Rows x ``(n, *event)`` in this form.

        Args:
            x: in the units of the source.
            names: of the columns of x ``(n, D)``; of a table they are its own. By default 0, 1, ...
            table: what the columns hold: codes become text again, 0 and 1 booleans, days dates.
        """
        if self.kind == "tensor":
            return x
        values = x.detach().cpu().numpy()
        if self.kind == "array" or (self.kind == "objects" and not table):
            return values
        names = [column.name for column in table] or list(names) or [str(place) for place in range(values.shape[1])]
        return self.columns(dict(zip(names, values.T, strict=True)), table)

    def columns(self, columns: Mapping[str, Any], table: Sequence[Column] = ()) -> Any:
        """Columns by name, each ``(n,)``, as a frame; as an array or a tensor ``(n, C)`` of this form otherwise.

        Args:
            columns: arrays, tensors or lists; those that the ``table`` knows are numbers of x, others go as they are.
            table: what columns hold.
        """
        known = {column.name: column for column in table}
        values = {name: each.detach().cpu().numpy() if isinstance(each, Tensor) else each for name, each in columns.items()}
        if self.kind == "tensor":
            return torch.stack([torch.as_tensor(each) for each in columns.values()], dim=1)
        if self.kind != "frame":
            as_objects = self.kind == "objects"
            cells = [decoded(v, known[n]).astype(object) if as_objects and n in known else v for n, v in values.items()]
            return np.stack([np.asarray(each) for each in cells], axis=1)
        backend = str(self.backend)
        made = {n: series_of(backend, n, v, known.get(n), self._dtype(n, known.get(n))) for n, v in values.items()}
        labels = [self.labels.get(name, name) for name in made]
        return frame_of(backend, made, self._index(len(next(iter(values.values()), ()))), labels)

    def column(self, name: str, values: Any, table: Sequence[Column] = ()) -> Any:
        """One column ``(n,)``: a series of the frame's library under its index, an array or a tensor."""
        if self.kind == "tensor":
            return values
        if self.kind != "frame":
            return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        found = self.columns({name: values}, table)
        return found[self.labels.get(name, name)]

    def _dtype(self, name: str, column: Column | None) -> Any:
        """The dtype of a column of the source, which another of the same name that is not the table's does not get."""
        numbers = column is not None and column.dtype in ("float", "integer") and _is_numeric(self.dtypes.get(name))
        return None if column is None or (name in self.unseen and not numbers) else self.dtypes.get(name)

    def _index(self, rows: int) -> Any:
        return self.index if self.index is not None and len(self.index) == rows else None


def with_times_of(given: Any, filled: Any) -> Any:
    """A frame whose dates and times are those of another of the same rows where that has some, to its own precision.

    In between they are days in float64, which tell microseconds of this century apart, and no nanoseconds.

    Examples:
        >>> import pandas as pd
        >>> given = pd.DataFrame({"t": pd.to_datetime(["2021-05-05 00:00:00.000000001", None])})
        >>> filled = pd.DataFrame({"t": pd.to_datetime(["2021-05-05", "2021-05-06"]).astype("datetime64[ns]")})
        >>> with_times_of(given, filled)["t"].dt.nanosecond.tolist()
        [1, 0]
    """
    theirs, ours = _narwhals(given), _narwhals(filled)
    times = [name for name, dtype in ours.schema.items() if dtype == nw.Datetime and theirs.schema.get(name) == dtype]
    columns = [theirs[name].zip_with(~theirs[name].is_null(), ours[name]) for name in times]
    return ours.with_columns(*columns).to_native() if times else filled


def with_others_of(given: Any, filled: Any) -> Any:
    """A frame with the columns of another of the same rows, in their order: those that it has, and the others as they are.

    Examples:
        >>> import pandas as pd
        >>> given = pd.DataFrame({"id": [7, 8], "b": [1.0, None], "a": [2, 3]})
        >>> with_others_of(given, pd.DataFrame({"a": [2, 3], "b": [1.0, 4.0]})).to_dict("list")
        {'id': [7, 8], 'b': [1.0, 4.0], 'a': [2, 3]}
    """
    theirs, ours = _narwhals(given), _narwhals(filled)
    others = [theirs[name] for name in theirs.columns if name not in ours.columns]
    order = [*theirs.columns, *(name for name in ours.columns if name not in theirs.columns)]
    return filled if order == ours.columns else ours.with_columns(*others).select(order).to_native()


def _narwhals(frame: Any) -> nw.DataFrame[Any]:
    try:
        found: nw.DataFrame[Any] = nw.from_native(frame, eager_only=True)
        list(found.iter_columns())
        return found
    except nw.exceptions.DuplicateError as error:
        twice = re.findall(r"- (.*) \d+ times", str(error))
        raise ValueError(f"expected columns of different names, got {', '.join(twice)} twice: rename one") from None


def _is_empty(column: nw.Series[Any]) -> bool:
    """Whether all of it is missing: its dtype tells nothing of what belongs there."""
    return bool(column.is_null().all() or (column.dtype.is_float() and column.is_nan().all()))


def _is_numeric(dtype: Any) -> bool:
    return re.match(r"u?int|float|double|halffloat", str(dtype).lower()) is not None


def _own_dtype(column: nw.Series[Any]) -> Any:
    """The dtype as the library tells it; ``str`` of text among a frame of pandas' objects."""
    native = column.to_native()
    if column.implementation.is_pyarrow():
        return native.type
    return str if native.dtype == object and isinstance(column.dtype, nw.String) else native.dtype


def _cells(name: str, column: nw.Series[Any]) -> Cells:
    """The cells of a column, with what its dtype says of them."""
    dtype = column.dtype
    if isinstance(dtype, nw.Categorical | nw.Enum):
        return Cells(name, _objects(column), categories=_categories(column))
    if isinstance(dtype, nw.Decimal | nw.Int128 | nw.UInt128):
        column, dtype = column.cast(nw.Float64), nw.Float64()
    if dtype.is_numeric():
        return Cells(name, np.asarray(column.to_numpy()), dtype="integer" if dtype.is_integer() else None)
    if isinstance(dtype, nw.Boolean):
        return Cells(name, _objects(column) if column.null_count() else np.asarray(column.to_numpy()))
    if isinstance(dtype, nw.Date | nw.Datetime):
        return Cells(name, np.asarray(column.to_numpy()), dtype="date" if isinstance(dtype, nw.Date) else None)
    if isinstance(dtype, nw.String | nw.Object | nw.Unknown):
        return Cells(name, _objects(column), dtype="text")
    raise ValueError(f"expected numbers, text, booleans or dates in column {name!r}, got {dtype}: convert it, or leave it out")


def _objects(column: nw.Series[Any]) -> np.ndarray:
    """Cells as Python has them: ``to_numpy`` fills what is missing of pyarrow's categories with another category."""
    cells = column.to_list()
    objects = np.empty(len(cells), dtype=object)
    objects[:] = cells
    return objects


def _categories(column: nw.Series[Any]) -> tuple[str, ...]:
    """The categories in their own order where the library has one, else sorted, those that no row has included."""
    native = column.to_native()
    if column.implementation.is_pyarrow():
        unified = native.unify_dictionaries()
        own = unified.chunk(0).dictionary.to_pylist() if unified.num_chunks else []
    elif column.implementation.is_pandas_like() and type(native.dtype).__name__ == "CategoricalDtype":
        own = native.cat.categories.tolist()
    elif isinstance(column.dtype, nw.Enum):
        own = list(column.dtype.categories)
    else:
        own = sorted(column.drop_nulls().unique().to_list())
    texts = [str(category) for category in own]
    if twice := sorted({text for text in texts if texts.count(text) > 1}):
        raise ValueError(
            f"expected categories of different texts in column {column.name!r}, got {twice[0]!r} twice: rename one"
        )
    return tuple(texts)
