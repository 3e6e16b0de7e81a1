"""Fields: what a program reads of a datum besides x, such as a target, a length, a mask."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data.levels import recoded
from ppl_vae.data.precision import constants
from ppl_vae.data.ragged import Ragged, View, joined
from ppl_vae.data.summary import summarized
from ppl_vae.data.transform import Transform
from ppl_vae.types import Field

__all__ = ["LENGTH", "NO_FIELDS", "WEIGHTS", "Fields", "described", "kind_of", "standardized", "taken"]

LENGTH = "length"
"""The name of the field with the lengths of the first ragged field's rows, and of those that have the same."""

WEIGHTS = "(weights)"
"""By which passes over rows are asked for their weights; no field of a program can be called so."""


class Fields:
    """The fields of the rows besides x.

    Args:
        columns: by name ``(N, ...)``: booleans, integers in their smallest dtype, floats; or rows of different lengths.
        partial: the one field that some rows lack, if there is one; its values there mean nothing.
        seen: which rows have it ``(N,)``.
        lengths: by the name of a ragged column the name of the field with its rows' lengths.
        transforms: by the name of a column what programs see of it, where that is not the column itself.
        levels: by the name of a column the texts that its entries are the places of, where they are such.
    """

    def __init__(
        self,
        columns: Mapping[str, Tensor | Ragged],
        partial: str = "",
        seen: Tensor | None = None,
        *,
        lengths: Mapping[str, str] | None = None,
        transforms: Mapping[str, Transform] | None = None,
        levels: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.columns = dict(columns)
        self.partial = partial
        self.seen = seen
        self.lengths = dict(lengths or {})
        self.transforms = dict(transforms or {})
        self.levels = dict(levels or {})

    def __repr__(self) -> str:
        return f"Fields({', '.join(self.columns)})"

    def __getitem__(self, rows: slice | Tensor) -> Fields:
        """The fields of the chosen rows."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return self._with(columns, None if self.seen is None else self.seen[rows])

    @property
    def lead(self) -> Ragged | None:
        """The first ragged column, where x is none: batches hold rows that are padded to one of its lengths."""
        return next((column for name, column in self.ragged() if self.lengths[name] == LENGTH), None)

    def ragged(self) -> list[tuple[str, Ragged]]:
        """The columns whose rows differ in length."""
        return [(name, column) for name, column in self.columns.items() if isinstance(column, Ragged)]

    def view(self, name: str) -> Tensor | View:
        """A column as batches take their rows of it."""
        column, transform = self.columns[name], self.transforms.get(name)
        if isinstance(column, Ragged):
            return View(column, column.longest, transform)
        return column if transform is None else View(column, None, transform)

    def padded_to(self, length: int) -> Fields:
        """The same fields, those as long as the first ragged one padded to this length."""
        columns = {
            name: column.bucketed((length,)) if isinstance(column, Ragged) and self.lengths[name] == LENGTH else column
            for name, column in self.columns.items()
        }
        return self._with(columns, self.seen)

    def compact(self) -> Fields:
        """The same fields, ragged ones with values of their own."""
        columns = {name: column.compact() if isinstance(column, Ragged) else column for name, column in self.columns.items()}
        return self._with(columns, self.seen)

    def followed_by(self, others: Sequence[Fields]) -> Fields:
        """These rows and, after them, those of others with the same fields."""
        parts = [self, *others]
        columns = {name: joined([part.columns[name] for part in parts]) for name in self.columns}
        seen = [part.seen for part in parts if part.seen is not None]
        return self._with(columns, torch.cat(seen) if seen else None)

    def copied(self) -> Fields:
        """The same, which may be changed by itself."""
        return self._with(self.columns, self.seen)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Fields:
        """These fields on another device, floats in another dtype."""
        columns = {
            name: column.to(device) if isinstance(column, Ragged) else column.to(device=device, dtype=_cast(column, dtype))
            for name, column in self.columns.items()
        }
        moved = self._with(columns, None if self.seen is None else self.seen.to(device=device))
        moved.transforms = {name: copy.deepcopy(each).to(device=device, dtype=dtype) for name, each in self.transforms.items()}
        return moved

    def under(self, fields: Iterable[Field]) -> Fields:
        """The same fields, seen through the shift and scale, coded by the levels and padded to the lengths of a spec.

        Raises:
            ValueError: a level that the spec does not know.
        """
        columns, transforms, levels = dict(self.columns), {}, dict(self.levels)
        for field in fields:
            column = columns.get(field.name)
            if isinstance(column, Ragged) and field.ragged:
                columns[field.name] = column.under(field.vocabulary or column.vocabulary).bucketed(field.buckets)
            elif isinstance(column, Tensor) and field.vocabulary:
                columns[field.name] = recoded(column, levels.get(field.name, ()), field.vocabulary, field.name)
                levels[field.name] = field.vocabulary
            elif isinstance(column, Tensor) and field.kind == "real" and not field.ragged:
                columns[field.name] = column if column.is_floating_point() else column.float()
            if column is not None and field.scale:
                loc, scale = (torch.tensor(value).reshape(field.event_shape) for value in (field.loc, field.scale))
                transforms[field.name] = Transform(field.event_shape, loc, scale).to(device=column.device)
        other = self._with(columns, self.seen)
        other.transforms, other.levels = transforms, levels
        return other

    def _with(self, columns: Mapping[str, Tensor | Ragged], seen: Tensor | None) -> Fields:
        return Fields(columns, self.partial, seen, lengths=self.lengths, transforms=self.transforms, levels=self.levels)


NO_FIELDS = Fields({})


def taken(block: Iterable[Tensor | View], rows: Tensor | slice) -> list[Tensor]:
    """Some rows of a block: of x as they lie, of the fields beside it as a program is to get them.

    Integers become int64, the only dtype that indexes, and that torch's and Pyro's own functions take everywhere.
    """
    x, *columns = block
    return [_chosen(x, rows), *(_shown(_chosen(column, rows)) for column in columns)]


def standardized(parts: list[Fields], names: Sequence[str]) -> list[Fields]:
    """The fields of train, valid and test, the named ones with mean 0 and standard deviation 1 over the training rows.

    Raises:
        ValueError: a field that is not there, or is not of real numbers.
    """
    transforms = {}
    for name in names:
        column = parts[0].columns.get(name)
        if column is None or kind_of(column) != "real":
            known = [each for each, found in parts[0].columns.items() if kind_of(found) == "real"]
            raise ValueError(f"expected standardize to name real fields beside x ({', '.join(known) or 'none'}), got {name!r}")
        found = summarized([column], top=1, moments=True)
        scale = found.moments.variance.sqrt().masked_fill(constants(found, torch.float32), 1.0)
        transforms[name] = Transform(tuple(column.shape[1:]), found.moments.mean, scale)
    if not transforms:
        return parts
    shown = [part.copied() for part in parts]
    for part in shown:
        part.transforms = dict(transforms)
    return shown


def described(x: str, event_shape: tuple[int, ...], raw: Any, found: Fields, levels: int | None = None) -> tuple[Field, ...]:
    """What a spec tells of the fields, those of x the first.

    Args:
        x: its name.
        event_shape: of a datum, or of an element of a ragged row.
        raw: its rows.
        found: those beside it.
        levels: of tokens in x how many there are.
    """
    if not isinstance(raw, Ragged):
        return (Field(name=x, event_shape=event_shape, kind="real"), *(_field(name, found) for name in found.columns))
    kind: Any = "real" if levels is None else "integer"
    first = Field(name=x, event_shape=event_shape, kind=kind, levels=levels, **_about(raw, LENGTH))
    return (first, *(_field(name, found) for name in found.columns))


def kind_of(column: Tensor | Ragged) -> Any:
    """What numbers a field is of, as a spec says it."""
    return "boolean" if column.dtype == torch.bool else "real" if column.dtype.is_floating_point else "integer"


def _about(column: Tensor | Ragged | Any, length: str) -> dict[str, Any]:
    """What a spec tells of a field whose rows differ in length; nothing of others."""
    if not isinstance(column, Ragged):
        return {}
    return {"ragged": True, "buckets": column.buckets, "length": length, "vocabulary": column.vocabulary}


def _field(name: str, found: Fields) -> Field:
    column, transform = found.columns[name], found.transforms.get(name)
    event_shape = tuple(column.shape[1:])
    constants = {} if transform is None else {"loc": transform.loc, "scale": transform.scale}
    scaling: dict[str, Any] = {part: _plain(value, event_shape) for part, value in constants.items()}
    about = _about(column, found.lengths.get(name, ""))
    about = about or {"vocabulary": found.levels.get(name, ())}
    levels = len(about["vocabulary"]) or None
    partial = name == found.partial
    return Field(name=name, event_shape=event_shape, kind=kind_of(column), partial=partial, levels=levels, **about, **scaling)


def _plain(value: Tensor, event_shape: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(value.expand(event_shape).flatten().tolist())


def _cast(column: Tensor, dtype: torch.dtype | None) -> torch.dtype | None:
    return dtype if column.is_floating_point() else None


def _chosen(column: Tensor | View, rows: Tensor | slice) -> Tensor:
    """``column[rows]``; torch's own operation for it takes a third of the time."""
    return column.index_select(0, rows) if isinstance(column, Tensor) and isinstance(rows, Tensor) else column[rows]


def _shown(column: Tensor) -> Tensor:
    return column if column.is_floating_point() or column.dtype == torch.bool else column.to(torch.int64)
