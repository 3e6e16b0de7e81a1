"""From fields as they come, arrays by position or by name, to those of rows: checked, in their smallest dtype."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.arrays import as_array, refuse_infinite, refuse_missing
from ppl_vae.data.fields import LENGTH, Fields, kind_of
from ppl_vae.data.levels import as_levels, is_text
from ppl_vae.data.ragged import Ragged
from ppl_vae.types import DataSpec, Field

__all__ = ["beside", "given", "named"]

KINDS = {"b": "boolean", "u": "integer", "i": "integer", "f": "real"}
AN_EXAMPLE = "(x, y) to call the programs by position, or {'x': x, 'y': y} to call them by name"
DTYPES = {"boolean": torch.bool, "integer": torch.int32, "real": torch.float32}


def named(source: tuple | Mapping[str, Any], *, known: bool = False) -> dict[str, Any]:
    """The fields by name, x first: those of a tuple are called by their places, ``"0"``, ``"1"``, ...

    Args:
        source: the fields.
        known: whether names are compared with known ones, and need not be those of arguments.

    Raises:
        ValueError: no fields, names that are no names, or rows of different lengths by position.
    """
    if isinstance(source, tuple):
        if any(isinstance(values, Ragged) for values in source):
            raise ValueError(
                "expected rows of different lengths by name, which programs read their `length` with, got them in a tuple: "
                "give {'x': x, 'y': y}"
            )
        fields = {str(place): values for place, values in enumerate(source)}
    else:
        fields = {"x": source["x"], **source} if "x" in source else dict(source)
        if odd := [name for name in fields if not (isinstance(name, str) and (known or name.isidentifier()))]:
            raise ValueError(f"expected fields called as arguments of a program, got the name {odd[0]!r}: give {AN_EXAMPLE}")
    if not fields:
        raise ValueError(f"expected at least one field, got none: give {AN_EXAMPLE}")
    return fields


def beside(x: Any, values: Mapping[str, Any], rows: int, *, missing: bool = False) -> Fields:
    """Fields as they came, besides x, each with an entry for each of so many rows.

    Args:
        x: what they stand beside.
        values: by name: arrays, tensors, texts, which become places among their levels, rows of different lengths, or a masked
            array of whose rows some are masked: they lack the field.
        rows: N.
        missing: whether NaN may stand for a missing number.

    Raises:
        ValueError: another number of rows, no numbers, values that are not finite or missing inside a row, several fields
            that rows lack, or a field called as the lengths of rows are.
    """
    seen = {name: None if isinstance(value, Ragged) else _seen(name, value) for name, value in values.items()}
    partial = [name for name, rows_seen in seen.items() if rows_seen is not None]
    if len(partial) > 1:
        raise ValueError(
            f"expected one field that rows may lack, got {', '.join(partial)}: keep one masked array, and give the others in "
            "full with a field of booleans beside them for the program to mask by"
        )
    levels: dict[str, tuple[str, ...]] = {}
    columns = {name: _column(name, value, rows, levels, missing=missing) for name, value in values.items()}
    columns, lengths = _by_length(x, columns)
    if taken_names := [name for name in columns if name in (*lengths.values(), *([LENGTH] if isinstance(x, Ragged) else []))]:
        raise ValueError(
            f"expected no field called {taken_names[0]!r} beside rows of different lengths, which bring one: leave it out, or "
            "rename it"
        )
    return Fields(columns, *(partial[0], seen[partial[0]]) if partial else ("", None), lengths=lengths, levels=levels)


def given(values: tuple | Mapping[str, Any], spec: DataSpec) -> tuple[Any, Fields]:
    """X as it came, and the fields beside it, of data like those that ``spec`` describes.

    Raises:
        ValueError: other fields, or a field of another shape or kind.
    """
    first = spec.fields[0].name
    fields = {first: values[0]} if isinstance(values, tuple) and len(values) == 1 else named(values, known=True)
    known = {field.name: field for field in spec.fields}
    needed = [field.name for field in spec.fields if not field.partial]
    if not set(needed) <= set(fields) <= set(known):
        raise ValueError(f"expected {_listed(known)}, got {_listed(fields)}: {_how(known)}")
    for name, field in known.items():
        if name in fields and field.ragged != isinstance(fields[name], Ragged):
            expected, got = ("Ragged rows", "an array") if field.ragged else ("an array", "Ragged rows")
            raise ValueError(f"expected {expected} of the field {name}, got {got}: give data like the fitted ones")
    x = fields.pop(first)
    rows = len(x) if isinstance(x, Ragged) else next(iter(np.shape(x)), 0)
    found = beside(x, fields, rows)
    for name, column in found.columns.items():
        shape, kind = tuple(column.shape[1:]), kind_of(column)
        if shape != known[name].event_shape or not _takes(known[name], kind):
            expected = f"{known[name].kind} ({', '.join(('n', *map(str, known[name].event_shape)))})"
            raise ValueError(
                f"expected the field {name} as {expected}, got {kind} {tuple(column.shape)}: give data like the fitted ones"
            )
    absent = [field for field in spec.fields if field.partial and field.name not in fields]
    for field in absent:
        columns = {**found.columns, field.name: torch.zeros(rows, *field.event_shape, dtype=DTYPES[field.kind])}
        ordered = {name: columns[name] for name in known if name in columns}
        absentees = torch.zeros(rows, dtype=torch.bool)
        found = Fields(ordered, field.name, absentees, lengths=found.lengths, levels=found.levels)
    return x, found


def _by_length(x: Any, columns: Mapping[str, Tensor | Ragged]) -> tuple[dict[str, Tensor | Ragged], dict[str, str]]:
    """The columns, and the name of each ragged one's lengths: those as long as the first ragged field share its buckets."""
    ragged = {name: column for name, column in columns.items() if isinstance(column, Ragged)}
    first = x if isinstance(x, Ragged) else next(iter(ragged.values()), None)
    lengths, found = {}, dict(columns)
    for name, column in ragged.items():
        alike = first is not None and torch.equal(column.lengths, first.lengths)
        lengths[name] = LENGTH if alike else f"{name}_{LENGTH}"
        found[name] = column.bucketed(first.buckets if first is not None and alike else column.buckets[-1:])
    return found, lengths


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


def _takes(field: Field, kind: str) -> bool:
    """Whether a field of a spec takes numbers of this kind: its own, whole ones for scaled ones, and any but real as levels."""
    return kind == field.kind or (kind == "integer" and bool(field.scale)) or (kind == "boolean" and bool(field.vocabulary))


def _column(name: str, values: Any, rows: int, levels: dict[str, tuple[str, ...]], *, missing: bool) -> Tensor | Ragged:
    """A field as it is held; the levels of one of texts are added to ``levels``."""
    if isinstance(values, Ragged):
        return _checked(name, values, rows).mapped(_narrow)
    array = np.ma.filled(values, 0) if isinstance(values, np.ma.MaskedArray) else as_array(values, f"the field {name}")
    if array.ndim == 0:
        raise ValueError(
            f"expected an entry of the field {name} for each of {rows} rows, got a single one: bind what is the same for all "
            "rows with functools.partial(model, ...)"
        )
    _checked(name, array, rows)
    if is_text(array):
        places, levels[name] = as_levels(array, name)
        return places
    if array.dtype.kind not in KINDS:
        raise ValueError(
            f"expected the field {name} as numbers or texts, got dtype {array.dtype}: convert it to one of these, or give "
            "class labels as load_data(x, y=labels)"
        )
    if array.dtype.kind == "f":
        refuse_infinite(array, name)
        if not missing:
            refuse_missing(array, name)
    return torch.from_numpy(np.require(_small(array), requirements=["C", "W"]))


def _checked(name: str, values: Any, rows: int) -> Any:
    if len(values) != rows:
        raise ValueError(
            f"expected {rows} rows of the field {name}, one beside each of x, got {len(values)}: give fields of one length"
        )
    return values


def _narrow(values: Tensor) -> Tensor:
    return values.float() if values.dtype == torch.float64 else values


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
