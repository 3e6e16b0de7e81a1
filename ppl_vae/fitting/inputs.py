"""What comes into a fit and what leaves it: rows and classes by their names, values in the units of their source."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ppl_vae.data import Data, DataSource, Split, Transform
from ppl_vae.data.arrays import arranged, as_array
from ppl_vae.data.field_entries import given as fields_given
from ppl_vae.data.frames import Frame, is_frame, is_table
from ppl_vae.data.matching import (
    classes_matched,
    columns_matched,
    fields_matched,
    is_whole_number,
    numbered,
    shown,
    tokenizer_matched,
)
from ppl_vae.data.pens import ended
from ppl_vae.data.precision import refuse_narrow
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.rows import TOLD, is_sparse_or_cells, loaded, loaded_rows, memory_rows, remark_on_left, table_rows
from ppl_vae.data.seeds import seeded_generator as noise
from ppl_vae.data.sparse import Sparse
from ppl_vae.data.summary import all_whole
from ppl_vae.data.texts import are_texts, rows_of_texts
from ppl_vae.data.vocabulary import END
from ppl_vae.text import at_places
from ppl_vae.types import REAL, STROKES, DataSpec, FitWarning

__all__ = ["Classes", "Entrance", "Given", "as_codes", "as_real", "check_probed", "in_source_units", "is_named"]

Given = (
    Data
    | Split
    | DataSource
    | Tensor
    | np.ndarray
    | Frame
    | Ragged
    | str
    | Path
    | list[str]
    | tuple[Any, ...]
    | Mapping[str, Any]
)
"""Rows: loaded, a declaration or the path of some, a frame of pandas, polars or pyarrow, a tensor or an array of x, rows of
different lengths, texts, or the arrays that programs of several arguments read."""

Classes = int | str | Sequence[int] | Sequence[str] | np.ndarray | Tensor
"""A class, or several: names, or numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entrance:
    """The one way in for rows and for classes.

    Args:
        spec: what the data of the fit look like.
        transform: from the source's data to what the model sees.
        labelled: whether the model is conditioned on labels.
        classified: whether it reads labels of the rows that have one.
        source: where the fit's own rows came from, as which others are read.
        device: where rows are wanted.
        support: raises ``ValueError`` if data as the model sees them leave its support; ``None`` where nothing tells.
        partial: whether rows may miss entries that the fit's own did not.
        whole: whether rows of files keep all digits, since they are given back.
    """

    spec: DataSpec
    transform: Transform
    labelled: bool
    classified: bool
    source: DataSource
    device: torch.device
    support: Callable[[Tensor], None] | None = None
    partial: bool = False
    whole: bool = False

    def rows(self, data: Given, y: Classes | None = None, *, generator: Generator | None = None) -> Split:
        """Rows as the fit takes them: columns and classes matched by name, under its transform, checked, on its device.

        Args:
            data: rows in the units of their source, the test rows of a ``Data``, or a split under ``transform.applied()``;
                of programs of several arguments also their arrays, by position or by name.
            y: a class for all, or one for each.
            generator: draws what noise there is to be drawn; by default that of rows which came under another transform or
                none is drawn, by ``seed``, and training rows of the fit's own kind get theirs at each visit.

        Raises:
            ValueError: rows that the fit was not built for: why, and what to do.
        """
        return self.shown(self.matched(data, y), named=is_named(data), generator=generator)

    def shown(self, split: Split, *, named: bool, generator: Generator | None = None) -> Split:
        """Rows of :meth:`matched` under the transform, checked; ``named`` if they came as a split.

        Raises:
            ValueError: values that the fit was not built for.
        """
        found = shown(split, self.transform, self.spec.kind)
        known = found is split and named
        self._check(found, known=known)
        if not known:
            self._remark_on_scale(found)
        if generator is not None:
            return found.fixed(generator)
        return found if known else found.fixed(noise(self.source.seed, 3))

    def matched(self, data: Given, y: Classes | None = None) -> Split:
        """Rows as :meth:`rows` takes them, under the transform that they came with, their values not yet checked."""
        given = self._split(data)
        split = self._matched(given if self.spec.event_shape else given.numbers(), named=is_named(data) or is_frame(data))
        return self.relabelled(split.to(self.device), y)

    def incomplete(self) -> Entrance:
        """The same way in for rows of which some entries are missing, whether or not those that were fitted had such."""
        spec = dataclasses.replace(self.spec, missing=True)
        return dataclasses.replace(self, spec=spec, partial=not self.spec.missing, whole=True)

    def _split(self, data: Any) -> Split:
        """Rows as a split in the units of their source, from wherever they come."""
        if isinstance(data, Data):
            return data.test
        if isinstance(data, Split):
            return data
        spec = self.spec
        if isinstance(data, DataSource):
            missing = "ignore" if spec.missing else data.missing
            declared = dataclasses.replace(data, valid=0.0, test=0.0, missing=missing)
            return loaded(declared, self.source.label, exact=self.whole).train
        if isinstance(data, (str, Path)):
            return loaded_rows(data, self.source, spec.columns, missing=spec.missing, exact=self.whole)
        if is_table(data) and len(spec.event_shape) == 1 and not spec.fields:
            split, left = table_rows(data, self.source, spec.columns, spec.table)
            remark_on_left(left)
            return split
        if is_sparse_or_cells(data) or (is_frame(data) and spec.fields):
            return memory_rows(data, self.source, spec.columns, missing=spec.missing)
        return self._in_memory(data)

    def _in_memory(self, data: Any) -> Split:
        """A tensor or an array, or the fields of programs of several arguments, as a split in the units of the source."""
        if self.source.tokens is not None and self.spec.ragged and are_texts(data):
            data = rows_of_texts(data, self.source.tokens, end=END in self.spec.fields[0].vocabulary)
        if isinstance(data, (np.ndarray, list)) and not self.spec.fields:
            data = self._array(data)
        if isinstance(data, list) and not data:
            raise ValueError("expected at least 1 row, got an empty list")
        if not isinstance(data, (Tensor, Ragged, tuple, Mapping)):
            raise ValueError(
                f"expected a tensor, an array or a frame in the units of the source, a path, a split or data, got "
                f"{type(data).__name__}: load it with load_data, or give fit.rows(DataSource(...), split)"
            )
        plain = Transform(self.spec.event_shape, indices=self.transform.indices).to(self.transform.loc)
        if self.spec.fields:
            x, fields = fields_given((data,) if isinstance(data, (Tensor, Ragged)) else data, self.spec)
            x = self._split(x).raw if is_sparse_or_cells(x) else x
            return Split(x if isinstance(x, Ragged | Sparse) else as_real(x, "data"), None, plain, fields=fields)
        if not isinstance(data, Tensor):
            raise ValueError(
                "expected a tensor in the units of the source, got several fields: this was fitted to x alone (give class "
                "labels, where the programs read them, as y=...)"
            )
        return Split(as_real(data, "data"), None, plain)

    def _array(self, data: np.ndarray | list[Any]) -> Tensor:
        """Rows of an array as a tensor, images with their channels first."""
        found = as_real(data, "data")
        if tuple(found.shape[1:]) in (self.spec.event_shape, ()) or found.dim() < 3:
            return found
        return arranged(np.asarray(data))

    def classes(self, y: Classes, *, lacking: bool = False) -> Tensor:
        """The places of classes ``(...)`` among the names that the fit knows; one class becomes ``(1,)``.

        With ``lacking`` -1 stands for a row without a label, and stays.

        A number is the class of that name where the classes are named by numbers, and a place from 0 where none is.

        Raises:
            ValueError: an unknown class, or a number where only some of the classes are named by numbers.
        """
        names = self.spec.classes
        given = [y] if isinstance(y, (str, int, np.integer)) else y
        try:
            values = as_array(given, "classes") if isinstance(given, (Tensor, np.ndarray)) else np.array(given, dtype=object)
            none = (-1, "-1")[: 1 if "-1" in names else 2] if lacking else ()
            places = [-1 if value in none else self._place(value) for value in values.ravel().tolist()]
        except (TypeError, ValueError) as error:
            known = ", ".join(names) or "none: the data had no labels"
            numeric = [is_whole_number(name) for name in names]
            told = "" if all(numeric) else " as text" if any(numeric) else ", or their numbers from 0"
            raise ValueError(f"expected classes of {known}{told}, got {error}") from None
        return torch.tensor(places, dtype=torch.int64, device=self.device).reshape(values.shape)

    def _place(self, value: Any) -> int:
        """The place of a class; a ``ValueError`` names a value that is none."""
        names = self.spec.classes
        value = value.item() if isinstance(value, (Tensor, np.generic)) else value
        numeric = any(is_whole_number(name) for name in names)
        if isinstance(value, (str, bool)) and str(value) in names:
            return names.index(str(value))
        if isinstance(value, int) and not isinstance(value, bool):
            if numeric and all(is_whole_number(name) for name in names) and str(value) in names:
                return names.index(str(value))
            if not numeric and 0 <= value < len(names):
                return value
        raise ValueError(str(value)[:80])

    def _matched(self, split: Split, *, named: bool) -> Split:
        """The rows, their columns as the fit has them."""
        names, found = self.spec.columns, split.columns
        split, left = columns_matched(split, names, self.spec.table)
        remark_on_left(left)
        if self.spec.fields:
            tokenizer_matched(split, self.source.tokenizer)
            split = fields_matched(split, self.spec.fields)
        if self.spec.kind == STROKES:
            split = split.matched(ended(split.raw, "drawings"), split.fields)
        expected, shape = self.spec.event_shape, tuple(split.raw.shape)
        if not shape or shape[1:] != expected:
            raise ValueError(f"expected data of shape (n, {', '.join(map(str, expected))}), got {shape}")
        unnamed = [columns == numbered(columns) for columns in (names, found)]
        if named and unnamed[0] != unnamed[1]:
            side = "the fit knows no names of its columns" if unnamed[0] else "these data have no names of columns"
            _remark(f"{side}: they are taken in their order, as {', '.join((found if unnamed[0] else names)[:TOLD])}")
        return split.renamed(names)

    def relabelled(self, split: Split, y: Classes | None) -> Split:
        """The rows, their labels numbered as the fit has them; of a model that takes none, as far as it knows the classes."""
        if y is not None:
            places = self.classes(y, lacking=self.classified)
            places = places.expand(len(split)) if isinstance(y, (str, int, np.integer)) else places
            if places.shape != (len(split),):
                raise ValueError(f"expected one class for each of {len(split)} rows, got {tuple(places.shape)}")
            return split.labelled(places, self.spec.classes)
        if self.labelled or (split.classes and set(split.classes) <= set(self.spec.classes)):
            return classes_matched(split, self.spec.classes)
        return split

    def _remark_on_scale(self, split: Split) -> None:
        """Warn of values in [0, 1] where those of the source are scaled to it, as if that had been done already."""
        scale = split.transform.scale
        if split.transform.seen or not self.spec.kind.bounded or not bool((scale >= 2).all()) or not len(split):
            return
        if all(bool(((raw >= 0) & (raw <= 1)).all()) for raw in split.chunks()):
            _remark(
                f"values from 0 to 1 are taken in the units of the source, whose scale is {float(scale.max()):g}: multiply "
                "them, or give rows that were scaled already as a split under fit.transform.applied()"
            )

    def _check(self, split: Split, *, known: bool) -> None:
        """Raise ``ValueError`` if what the model would see is not of the kind it was built for."""
        noisy = split.transform.dequantize and not known
        first = 0
        for raw in split.chunks():
            refuse_narrow(raw, split.transform)
            if noisy and not all_whole(raw):
                raise ValueError(
                    "expected whole numbers in the units of the source, which noise is added to, got fractions: round them "
                    "down, or give the split that they are of, which knows of its noise"
                )
            self._check_rows(split, raw, first, noisy=noisy)
            first += len(raw)

    def _check_rows(self, split: Split, raw: Tensor, first: int, *, noisy: bool) -> None:
        """The same of some rows, from row ``first`` on."""
        rows = torch.arange(first, first + len(raw))
        try:
            _check_values(split.transform, raw, self.spec)
            if noisy:  # of less than 1
                _check_values(split.transform, raw + 1.0, self.spec)
            if self.support is not None and not split.transform.binarize:
                x = split.transform.affine(raw)
                if self.partial:  # of rows with missing entries the likelihood knows nothing
                    whole = ~x.flatten(1).isnan().any(1)
                    x, rows = x[whole], rows[whole.cpu()]
                self.support(x) if len(x) else None
        except ValueError as error:
            columns = [repr(name) for name in split.columns]
            raise ValueError(at_places(error, rows=rows.tolist(), columns=columns)) from None


def is_named(data: Any) -> bool:
    """Whether rows came with all that is known of them, as those that were loaded do."""
    return isinstance(data, (Split, Data, DataSource, str, Path))


def in_source_units(x: Tensor, transform: Transform, spec: DataSpec, *, means: bool, dequantized: bool) -> Tensor:
    """Values as the model sees them ``(..., *event)`` in the units of the source.

    Of dequantized data draws are whole numbers again, and means lie half a level lower, where those of the levels do.
    """
    raw = transform.inverse(x)
    if not dequantized:
        return raw
    raw = raw - 0.5 if means else raw.floor()
    if not spec.kind.bounded:
        return raw
    loc, scale = transform.constants
    return torch.minimum(torch.maximum(raw, loc), loc + scale - 1)


def check_probed(train: Split, test: Split) -> None:
    """Say so where the classes of test data leave the accuracy of a classifier of the training data without a meaning.

    Raises:
        ValueError: test data of one class, which always guessing it would get right.
    """
    names = test.classes or tuple(map(str, range(int(test.labels.max()) + 1)))
    found, taught = (set(part.labels.unique().tolist()) for part in (test, train))
    if len(found) < 2:
        raise ValueError(
            f"expected test data of at least 2 classes, got only {names[found.pop()]!r}: the accuracy on one class says how "
            "often it is guessed, not how well classes are told apart"
        )
    if alone := [names[place] for place in sorted(found - taught)]:
        _remark(f"classes without a row of training data, which the classifier cannot guess: {', '.join(alone)}")


def as_real(values: Any, what: str) -> Tensor:
    """Real numbers in memory as a tensor.

    Raises:
        ValueError: complex numbers, or nothing that is one dense array of numbers.
    """
    if not isinstance(values, Tensor):
        array = as_array(values, what)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"expected {what} as real numbers, got {type(values).__name__} of dtype {array.dtype}")
        dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.float64
        values = torch.from_numpy(np.require(array.astype(dtype, copy=False), requirements=["C", "W"]))
    if values.layout != torch.strided or values.is_meta or values.is_complex():
        told = f"{values.dtype}, {values.layout}, on {values.device}"
        raise ValueError(f"expected {what} as one dense tensor of real numbers, got {told}: convert it first")
    dense: Tensor = values
    return dense


def as_codes(values: Any, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Latent codes in memory as a tensor.

    Raises:
        ValueError: no real numbers, or some that are not finite.
    """
    codes = as_real(values, "latent codes").to(device, dtype)
    if not bool(codes.isfinite().all()):
        raise ValueError("expected finite latent codes, got NaN or infinity")
    return codes


def _check_values(transform: Transform, raw: Tensor, spec: DataSpec) -> None:
    """Raise ``ValueError`` if what the model would see is not of the kind it was built for."""
    if spec.kind == REAL and _far_from_infinite(raw, transform):  # all that there is to know
        return
    x = transform.affine(raw)
    if not spec.missing and not bool(x.isfinite().all()):
        raise ValueError(
            f"expected finite values, got NaN or infinity{_first(~x.isfinite(), spec)}: drop or fill those entries"
        )
    if bool(x.isinf().any()):
        most = torch.finfo(x.dtype).max
        raise ValueError(
            f"expected finite values, or NaN where an entry is missing, got infinity or values of more than {most:.2g} "
            f"under the fit's transform{_first(x.isinf(), spec)}: put NaN in their places, or drop those rows"
        )
    low, high = spec.limits
    whole_numbers = spec.kind.discrete and not transform.binarize
    outside = (x < low) | (x > high)
    if bool(outside.any()) or (whole_numbers and not all_whole(x)):
        like = "binarized data like those" if spec.kind == "binary" else "data like those"
        if spec.kind == "binary" and bool(((x == 0) | (x == x.max())).all()):
            like = f"zeros and ones (divided by {x.max():g}), as black and white images are held, like those"
        wrong = outside | ((x != x.round()) & ~x.isnan()) if whole_numbers and x.is_floating_point() else outside
        whole = " and whole" if whole_numbers else ""
        raise ValueError(
            f"expected {spec.kind} values as the model sees them, in [{low}, {high}]{whole}, got {x.min():g} to {x.max():g}"
            f"{_first(wrong, spec) if wrong.dim() == 2 else ''}: give {like} it was fitted to, in the units of their source"
        )


def _first(wrong: Tensor, spec: DataSpec) -> str:
    """Where the first of the wrong values ``(n, *event)`` is; of rows of different lengths nobody can say."""
    if spec.ragged:
        return ""
    row, *place = wrong.nonzero()[0].tolist()
    return f", first in row {row}" + (f", column {place[0]}" if len(place) == 1 else "")


def _far_from_infinite(raw: Tensor, transform: Transform) -> bool:
    """Whether no value is missing, infinite or so large that what the model would see may be; in one pass over the values."""
    if not raw.numel() or transform.indices:
        return False
    loc, scale = transform.constants
    most = max(float(end.abs()) for end in raw.aminmax()) + float(loc.abs().max())
    return most / float(scale.min()) < torch.finfo(transform.loc.dtype).max


def _remark(message: str) -> None:
    warnings.warn(message, FitWarning, stacklevel=2)
