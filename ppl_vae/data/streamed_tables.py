"""Tables that are larger than memory: read in pieces, once for what the columns hold, once for their numbers, then streamed.

The numbers, the columns and the remarks are those that :func:`~ppl_vae.data.tables.table` gives for all rows at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.data.cells import Cells, encoded_as, looks_like_an_identifier
from ppl_vae.data.conversions import Conversion, converted, require_disk, written
from ppl_vae.data.labels import label_codes, tell_missing_labels
from ppl_vae.data.missing import absent
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.data.stream import Stream
from ppl_vae.data.surveys import Survey, key_of
from ppl_vae.data.table_pieces import CsvFile, ParquetFile, TableFile
from ppl_vae.data.tables import INDEX, Roles, label_column, refuse_no_data, roles, tell_identifiers
from ppl_vae.data.weights import as_numbers, weights_apart
from ppl_vae.types import Column

__all__ = ["stream_csv", "stream_parquet"]


def stream_csv(path: Path, source: DataSource) -> Raw:
    """A csv or tsv file, to be streamed.

    Raises:
        ValueError: what :func:`~ppl_vae.data.delimited.read_csv` refuses, or no room for what is written.
    """
    return _streamed(CsvFile(path, source))


def stream_parquet(path: Path, source: DataSource) -> Raw:
    """A parquet file, to be streamed.

    Raises:
        ValueError: what :func:`~ppl_vae.data.tables.read_parquet` refuses, or no room for what is written.
    """
    return _streamed(ParquetFile(path, source))


def _streamed(file: TableFile) -> Raw:
    source = file.source
    found = converted(file.path, source, file.plan, lambda folder: _write(file, folder))
    _refuse_missing(file, found.facts["missing"])
    table = tuple(Column(**{**each, "categories": tuple(each["categories"])}) for each in found.facts["columns"])
    classes = found.facts["classes"]
    x = Stream([found.mapped("x")], source.source, mib=source.stream or 1, missing=source.missing == "ignore")
    return Raw(
        x,
        None if classes is None else found.read("y"),
        None if classes is None else tuple(classes),
        columns=tuple(column.name for column in table),
        table=table,
        fields={name: _field(found, place, levels) for place, (name, levels) in enumerate(found.facts["fields"])} or None,
        weights=found.read("weights") if source.weights is not None else None,
    )


def _field(found: Conversion, place: int, levels: Sequence[str]) -> np.ndarray:
    """A field as :func:`~ppl_vae.data.tables.as_field` gives it."""
    values = found.read(f"field-{place}")
    return np.array(levels)[values] if levels else values


def _refuse_missing(file: TableFile, missing: int) -> None:
    if missing and file.source.missing == "error":
        raise ValueError(
            f"{file.path}: expected complete data, got {missing} missing entries: drop or fill them, or load with "
            "missing='ignore' for a model that supports missing entries"
        )


def _write(file: TableFile, folder: Path) -> dict[str, Any]:
    """The arrays of a table in a folder: x, labels, fields and weights, in one pass once it is known what they hold."""
    surveys = file.surveyed()
    rows = surveys[0].rows
    if not rows:
        raise ValueError(f"{file.path}: expected rows of data, got none")
    found, weights = _roles(file, surveys)
    missing = sum(rows - surveys[place].there for place in found.data)
    _refuse_missing(file, missing)
    dtype = np.result_type(*(surveys[place].dtype for place in found.data))
    require_disk(folder, rows * len(found.data) * dtype.itemsize, file.path)
    columns = [surveys[place].column for place in found.data]
    writers: list[_Writer] = [_Numbers(folder / "x.npy", found.data, columns, rows, dtype, file.spelled)]
    fields: list[tuple[str, tuple[str, ...]]] = []
    for number, (each, place) in enumerate(found.fields.items()):
        survey = surveys[place]
        writers.append(_Field(folder / f"field-{number}.npy", place, survey, file.spelled))
        fields.append((each, (*survey.column.categories, "") if survey.column.coded else ()))
    labels = None if found.label is None else _Labels(folder / "y.npy", file, found.label, surveys[found.label])
    if labels is not None:
        writers.append(labels)
    if weights is not None:
        writers.append(_Weights(folder / "weights.npy", file, weights, surveys[weights]))
    with contextlib.ExitStack() as stack:
        adds = [(writer, stack.enter_context(written(writer.path, writer.shape, writer.dtype))) for writer in writers]
        for piece in file.pieces():
            for writer, add in adds:
                add(writer.of(piece))
    return {
        "columns": [dataclasses.asdict(column) for column in columns],
        "classes": None if labels is None else labels.classes,
        "fields": fields,
        "missing": missing,
    }


def _roles(file: TableFile, surveys: Sequence[Survey]) -> tuple[Roles, int | None]:
    """Which columns are data, labels and fields, and the place of that of the weights, if there is one."""
    name, source = str(file.path), file.source
    places = [Cells(survey.name, np.array([place])) for place, survey in enumerate(surveys)]
    weights, others = weights_apart(name, places, source.weights)
    at = [int(each.values[0]) for each in others]
    found = roles(
        name,
        [surveys[place].name for place in at],
        source,
        index=file.index,
        numbers_rows=lambda place: _numbers_rows(place, surveys[at[place]]),
    )
    data = _data(name, surveys, [at[place] for place in found.data], source)
    label = None if found.label is None else at[found.label]
    fields = {each: at[place] for each, place in found.fields.items()}
    return Roles(data, label, fields), None if weights is None else int(weights[0])


def _data(name: str, surveys: Sequence[Survey], places: Sequence[int], source: DataSource) -> list[int]:
    """The places of the columns of data, without identifiers that nobody asked for."""
    identifiers = []
    for place in places:
        survey = surveys[place]
        try:
            column = survey.column
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if survey.name not in source.columns and looks_like_an_identifier(column, survey.there):
            identifiers.append(place)
    tell_identifiers(name, [surveys[place].name for place in identifiers])
    found = [place for place in places if place not in identifiers]
    refuse_no_data(name, len(found), source)
    return found


def _numbers_rows(place: int, survey: Survey) -> bool:
    """Whether a column only numbers or names the rows."""
    if not INDEX.fullmatch(survey.name):
        return False
    if survey.name.startswith("__") or not survey.there:
        return True
    return place == 0 if place > 0 or not survey.numeric else survey.rising


class _Writer(ABC):
    """An array of a conversion, made piece by piece of a table's cells."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    @abstractmethod
    def of(self, piece: Sequence[Cells]) -> np.ndarray:
        """The part of it that belongs to some rows."""


class _Numbers(_Writer):
    """X ``(N, D)``."""

    def __init__(
        self, path: Path, places: Sequence[int], columns: Sequence[Column], rows: int, dtype: np.dtype, spelled: Collection[str]
    ) -> None:
        self.path, self.shape, self.dtype = path, (rows, len(places)), dtype
        self.places, self.columns, self.spelled = places, columns, spelled

    def of(self, piece: Sequence[Cells]) -> np.ndarray:
        pairs = zip(self.places, self.columns, strict=True)
        return np.stack([encoded_as(piece[place], column, self.spelled) for place, column in pairs], axis=1)


class _Field(_Writer):
    """A field ``(N,)``: numbers, or places among levels of which the last, empty one stands for a missing entry."""

    def __init__(self, path: Path, place: int, survey: Survey, spelled: Collection[str]) -> None:
        self.path, self.shape, self.place, self.spelled = path, (survey.rows,), place, spelled
        self.column = survey.column
        complete = survey.there == survey.rows
        whole = np.dtype(bool) if self.column.dtype == "boolean" else np.dtype(np.int64)
        as_whole = complete and self.column.dtype in ("boolean", "integer")
        self.dtype = np.dtype(np.int32) if self.column.coded else whole if as_whole else survey.dtype

    def of(self, piece: Sequence[Cells]) -> np.ndarray:
        values = encoded_as(piece[self.place], self.column, self.spelled)
        if not self.column.coded:
            return values
        return np.where(np.isnan(values.astype(np.float64)), len(self.column.categories), values)


class _Labels(_Writer):
    """Labels ``(N,)`` as places among classes, NaN where a row has none."""

    def __init__(self, path: Path, file: TableFile, place: int, survey: Survey) -> None:
        self.path, self.shape, self.dtype, self.place = path, (survey.rows,), np.dtype(np.float64), place
        distinct = label_column(Cells(survey.name, survey.distinct), file.spelled)
        codes, self.classes = label_codes(distinct, survey.rows, str(file.path), spelled=file.spelled)
        without = codes.numpy() < 0
        rows = sum(number for number, none in zip(survey.counts.values(), without.tolist(), strict=True) if none)
        tell_missing_labels(distinct[without], rows, str(file.path))
        self.codes = dict(zip(survey.counts, np.where(without, np.nan, codes.numpy()).tolist(), strict=True))

    def of(self, piece: Sequence[Cells]) -> np.ndarray:
        return np.array([self.codes[key_of(cell)] for cell in piece[self.place].values.tolist()])


class _Weights(_Writer):
    """How often each row counts ``(N,)``, NaN where it is not said."""

    def __init__(self, path: Path, file: TableFile, place: int, survey: Survey) -> None:
        self.path, self.shape, self.dtype, self.place = path, (survey.rows,), np.dtype(np.float64), place
        self.file = file

    def of(self, piece: Sequence[Cells]) -> np.ndarray:
        values = piece[self.place].values
        missing = absent(values, self.file.spelled)
        found = np.full(values.shape, np.nan)
        found[~missing] = as_numbers(values[~missing], str(self.file.path))
        return found
