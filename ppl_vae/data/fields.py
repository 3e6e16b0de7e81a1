"""Fields: what a program reads of a datum besides x, such as a target, a length, a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.arrays import as_array, refuse_infinite, refuse_missing
from ppl_vae.types import DataSpec, Field

__all__ = ["NO_FIELDS", "Fields", "beside", "described", "given", "named", "taken"]

KINDS = {"b": "boolean", "u": "integer", "i": "integer", "f": "real"}
AN_EXAMPLE = "(x, y) to call the programs by position, or {'x': x, 'y': y} to call them by name"


class Fields:
    """The fields of the rows besides x.

    Args:
        columns: by name ``(N, ...)``: booleans, integers in their smallest dtype, floats.
        partial: the one field that some rows lack, if there is one; its values there mean nothing.
        seen: which rows have it ``(N,)``.
    """

    def __init__(self, columns: Mapping[str, Tensor], partial: str = "", seen: Tensor | None = None) -> None:
        self.columns = dict(columns)
        self.partial = partial
        self.seen = seen

    def __repr__(self) -> str:
        return f"Fields({', '.join(self.columns)})"

    def __getitem__(self, rows: slice | Tensor) -> Fields:
        """The fields of the chosen rows."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Fields(columns, self.partial, None if self.seen is None else self.seen[rows])

    def followed_by(self, others: Sequence[Fields]) -> Fields:
        """These rows and, after them, those of others with the same fields."""
        parts = [self, *others]
        columns = {name: torch.cat([part.columns[name] for part in parts]) for name in self.columns}
        seen = [part.seen for part in parts if part.seen is not None]
        return Fields(columns, self.partial, torch.cat(seen) if seen else None)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Fields:
        """These fields on another device, floats in another dtype."""
        columns = {
            name: column.to(device=device, dtype=dtype if column.is_floating_point() else None)
            for name, column in self.columns.items()
        }
        return Fields(columns, self.partial, None if self.seen is None else self.seen.to(device=device))


NO_FIELDS = Fields({})


def taken(block: Iterable[Tensor], rows: Tensor | slice) -> list[Tensor]:
    """Some rows of a block: of x as they lie, of the fields beside it as a program is to get them.

    Integers become int64, the only dtype that indexes, and that torch's and Pyro's own functions take everywhere.
    """
    x, *columns = block
    return [x[rows], *(_shown(column[rows]) for column in columns)]


def named(source: tuple | Mapping[str, Any]) -> dict[str, Any]:
    """The fields by name, x first: those of a tuple are called by their places, ``"0"``, ``"1"``, ...

    Raises:
        ValueError: no fields, or names that are no names.
    """
    if isinstance(source, tuple):
        fields = {str(place): values for place, values in enumerate(source)}
    else:
        fields = {"x": source["x"], **source} if "x" in source else dict(source)
        if odd := [name for name in fields if not (isinstance(name, str) and name.isidentifier())]:
            raise ValueError(f"expected fields called as arguments of a program, got the name {odd[0]!r}: give {AN_EXAMPLE}")
    if not fields:
        raise ValueError(f"expected at least one field, got none: give {AN_EXAMPLE}")
    return fields


def beside(values: Mapping[str, Any], rows: int, *, missing: bool = False) -> Fields:
    """Fields as they came, besides x, each with an entry for each of so many rows.

    Args:
        values: by name: arrays, tensors, or a masked array of whose rows some are masked: they lack the field.
        rows: N.
        missing: whether NaN may stand for a missing number.

    Raises:
        ValueError: another number of rows, no numbers, values that are not finite or missing inside a row, or several fields
            that rows lack.
    """
    seen = {name: _seen(name, value) for name, value in values.items()}
    partial = [name for name, rows_seen in seen.items() if rows_seen is not None]
    if len(partial) > 1:
        raise ValueError(
            f"expected one field that rows may lack, got {', '.join(partial)}: keep one masked array, and give the others in "
            "full with a field of booleans beside them for the program to mask by"
        )
    columns = {name: _column(name, value, rows, missing=missing) for name, value in values.items()}
    return Fields(columns, *(partial[0], seen[partial[0]]) if partial else ())


def described(x: str, event_shape: tuple[int, ...], found: Fields) -> tuple[Field, ...]:
    """What a spec tells of the fields, x's name and shape the first."""
    others = (
        Field(name=name, event_shape=tuple(column.shape[1:]), kind=_kind(column), partial=name == found.partial)
        for name, column in found.columns.items()
    )
    return (Field(name=x, event_shape=event_shape, kind="real"), *others)


def given(values: tuple | Mapping[str, Any], spec: DataSpec) -> tuple[Any, Fields]:
    """X as it came, and the fields beside it, of data like those that ``spec`` describes.

    Raises:
        ValueError: other fields, or a field of another shape or kind.
    """
    fields, first = named(values), spec.fields[0].name
    if isinstance(values, tuple) and len(values) == 1:
        fields = {first: values[0]}  # a lone x
    known = {field.name: field for field in spec.fields}
    needed = [field.name for field in spec.fields if not field.partial]
    if not set(needed) <= set(fields) <= set(known):
        raise ValueError(f"expected {_listed(known)}, got {_listed(fields)}: {_how(known)}")
    x = fields.pop(first)
    rows = next(iter(np.shape(x)), 0)
    found = beside(fields, rows)
    for name, column in found.columns.items():
        shape, kind = tuple(column.shape[1:]), _kind(column)
        if (shape, kind) != (known[name].event_shape, known[name].kind):
            expected = f"{known[name].kind} ({', '.join(('n', *map(str, known[name].event_shape)))})"
            raise ValueError(
                f"expected the field {name} as {expected}, got {kind} {tuple(column.shape)}: give data like the fitted ones"
            )
    absent = [field for field in spec.fields if field.partial and field.name not in fields]
    for field in absent:
        columns = {**found.columns, field.name: torch.zeros(rows, *field.event_shape, dtype=DTYPES[field.kind])}
        ordered = {name: columns[name] for name in known if name in columns}
        found = Fields(ordered, field.name, torch.zeros(rows, dtype=torch.bool))
    return x, found


DTYPES = {"boolean": torch.bool, "integer": torch.int32, "real": torch.float32}


def _shown(column: Tensor) -> Tensor:
    return column if column.is_floating_point() or column.dtype == torch.bool else column.to(torch.int64)


def _kind(column: Tensor) -> Any:
    return "boolean" if column.dtype == torch.bool else "real" if column.is_floating_point() else "integer"


def _seen(name: str, values: Any) -> Tensor | None:
    """Which rows of a masked array are there, if some are not."""
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else np.zeros(1, dtype=bool)
    if not mask.any():
        return None
    mask = mask.reshape(len(mask), -1)
    if (mask.any(axis=1) != mask.all(axis=1)).any():
        raise ValueError(
            f"{name}: expected rows masked as a whole, got some masked in part: fill them and give a field of booleans beside "
            "them for the program to mask by"
        )
    return torch.from_numpy(~mask.all(axis=1))


def _column(name: str, values: Any, rows: int, *, missing: bool) -> Tensor:
    array = np.ma.filled(values, 0) if isinstance(values, np.ma.MaskedArray) else as_array(values, f"the field {name}")
    if array.ndim == 0:
        raise ValueError(
            f"expected an entry of the field {name} for each of {rows} rows, got a single one: bind what is the same for all "
            "rows with functools.partial(model, ...)"
        )
    if len(array) != rows:
        raise ValueError(
            f"expected {rows} rows of the field {name}, one beside each of x, got {len(array)}: give fields of one length"
        )
    if array.dtype.kind not in KINDS:
        raise ValueError(
            f"expected the field {name} as numbers, got dtype {array.dtype}: code them as integers, such as by "
            "np.unique(values, return_inverse=True), or give class labels as load_data(x, y=labels)"
        )
    if array.dtype.kind == "f":
        refuse_infinite(array, name)
        if not missing:
            refuse_missing(array, name)
    return torch.from_numpy(np.require(_small(array), requirements=["C", "W"]))


def _small(array: np.ndarray) -> np.ndarray:
    """Booleans, bytes, int32 where it holds them, else int64; float32."""
    if array.dtype.kind == "b" or array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    small = array.astype(np.int32)
    return small if np.array_equal(small, array) else array.astype(np.int64)


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    if found[0].isdigit():
        return f"{len(found)} field{'s' if len(found) > 1 else ''} by position"
    return f"the fields {', '.join(found)}"


def _how(names: Iterable[str]) -> str:
    found = list(names)
    if found[0].isdigit():
        return f"give a tuple of {len(found)} arrays"
    return f"give {{{', '.join(f'{name!r}: {name}' for name in found)}}}"
