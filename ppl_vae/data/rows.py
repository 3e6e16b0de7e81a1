"""New rows of a table in memory, as those that are known: named columns in their order, numbers for what they hold."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.anndata import is_anndata
from ppl_vae.data.arrays import arranged
from ppl_vae.data.cells import Cells, Encoded, encoded, is_numeric
from ppl_vae.data.counts import is_sparse
from ppl_vae.data.dataset import Data
from ppl_vae.data.delimited import lines_of
from ppl_vae.data.frames import cells_of_frame, is_frame
from ppl_vae.data.labels import as_labels
from ppl_vae.data.load import load_data, load_declared
from ppl_vae.data.matching import left_of, numbered
from ppl_vae.data.missing import absent, spellings
from ppl_vae.data.source import TABLES, DataSource
from ppl_vae.data.split import Split
from ppl_vae.data.tables import INDEX, opened_parquet
from ppl_vae.data.transform import Transform
from ppl_vae.text import at_home
from ppl_vae.types import Column, FitWarning

__all__ = ["TOLD", "is_sparse_or_cells", "loaded", "loaded_rows", "memory_rows", "read_like", "remark_on_left", "table_rows"]

TOLD = 10  # columns that a remark names


def table_rows(
    given: Any, source: DataSource, names: tuple[str, ...], table: Sequence[Column]
) -> tuple[Split, tuple[str, ...]]:
    """Rows of a frame or of an array of objects as a split in the units of their source, with labels where they have some.

    Columns that are known by name come in the order in which they are known, whatever stands beside them; without such, all
    come, for :func:`~ppl_vae.data.matching.columns_matched` to say what is missing.

    Args:
        given: the frame, or the array ``(n, D)``.
        source: what stands for a missing entry, and the name of the column of labels.
        names: of the columns that are known.
        table: what these hold, where that is known.

    Returns:
        The rows, and the names of columns that were left out.

    Raises:
        ValueError: two columns of one name, or one that no numbers stand for.
    """
    cells = cells_of_frame(given) if is_frame(given) else [Cells(str(place), column) for place, column in enumerate(given.T)]
    spelled = spellings(source.missing_text)
    by_name = {each.name: each for each in cells}
    known = bool(names) and names != numbered(names) and set(names) <= set(by_name)
    chosen = [by_name[name] for name in names] if known else [each for each in cells if each.name != source.label]
    kinds = {column.name: column for column in table}
    features = [_column(each, kinds.get(each.name), spelled) for each in chosen]
    if not table:
        _refuse_text(features)
    x = _stacked([each.values for each in features], len(cells[0].values) if cells else 0)
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    if source.label in by_name and len(x):
        told = by_name[source.label].values
        if not absent(told, spelled).all():  # all are where they are to be predicted
            labels, classes = as_labels(told, len(x), "frame", spelled=spelled)
    described = tuple(each.column for each in features)
    columns = tuple(column.name for column in described)
    left = tuple(name for name in by_name if name not in columns and name != source.label)
    return Split(x, labels, Transform((len(columns),)), classes=classes, columns=columns, table=described), left


def is_sparse_or_cells(values: Any) -> bool:
    """Whether these are a sparse matrix of scipy, or an AnnData."""
    return is_sparse(values) or is_anndata(values)


def memory_rows(given: Any, source: DataSource, names: tuple[str, ...], *, missing: bool) -> Split:
    """All rows of a sparse matrix, an AnnData or a frame in memory, read as the source was, with labels if it has such.

    Args:
        given: the rows.
        source: how the known rows were read.
        names: of the columns that are known, where they are.
        missing: whether entries may be missing.

    Raises:
        ValueError: rows without what is needed.
    """
    options: dict[str, Any] = {"valid": 0.0, "test": 0.0, "counts": source.counts, "missing_text": source.missing_text}
    options["missing"] = "ignore" if missing else source.missing
    if not is_sparse(given):
        options |= {"fields": source.fields, "columns": names if names != numbered(names) else ()}
        options |= {"label": source.label if source.label in _columns_beside(given) else None}
        options |= {"layer": source.layer} if is_anndata(given) else {}
    return load_data(given, **options).train


def _columns_beside(given: Any) -> list[str]:
    """What the labels may be called."""
    return [str(name) for name in (given.obs if is_anndata(given) else given).columns]


def _refuse_text(features: list[Encoded]) -> None:
    """Raise ``ValueError`` if a column holds what no numbers were known to stand for."""
    for found in features:
        if found.column.coded or found.column.dtype in ("date", "datetime"):
            raise ValueError(
                f"expected numbers in column {found.column.name!r}, as they were when it was fitted, got {found.column.dtype}: "
                "convert it"
            )


def _column(cells: Cells, known: Column | None, spelled: Any) -> Encoded:
    """The numbers of a column; text as it is known, and of an empty column what is known of it, for no cell says otherwise."""
    if known is not None and known.coded and cells.categories is None and cells.values.dtype.kind in "OU":
        return Encoded(encoded(cells._replace(categories=known.categories), spelled).values, known)
    found = encoded(cells, spelled)
    if known is None or found.values.dtype.kind != "f" or not np.isnan(found.values).all():
        return found
    return Encoded(found.values, known)


def _stacked(columns: list[np.ndarray], rows: int) -> Tensor:
    """Columns side by side, ``(n, D)``."""
    if not rows:
        return torch.zeros(0, len(columns))
    return arranged(np.stack(columns, axis=1))


def loaded_rows(path: str | Path, source: DataSource, names: tuple[str, ...], *, missing: bool, exact: bool = False) -> Split:
    """All rows of a file, read as the source was, with the columns that are known, and with labels if it has such.

    Args:
        path: of a file or a folder.
        source: how the known rows were read.
        names: of the columns that are known.
        missing: whether entries may be missing.
        exact: whether values keep all their digits.

    Raises:
        ValueError: a file that cannot be read, or without what is needed.
    """
    declared = dataclasses.replace(read_like(source, path, names), valid=0.0, test=0.0)
    if missing:
        declared = dataclasses.replace(declared, missing="ignore")
    return loaded(declared, source.label, exact=exact).train


def read_like(source: DataSource, path: str | Path, names: tuple[str, ...]) -> DataSource:
    """The declaration of other rows, read as those of a source, of which only the columns that are known are needed.

    Columns of a file without names are taken in their order; others that are not known are remarked on.

    Raises:
        ValueError: a table that lacks some of the names.
    """
    declared = source.of(str(path))
    if Path(path).suffix.lower() not in TABLES or not names or names == numbered(names):
        return declared
    there = _names_in(at_home(str(path)), source)
    if there == []:
        return dataclasses.replace(declared, columns=(), drop=())
    if there is not None:
        left = left_of(tuple(there), names)
        known = (source.label, source.weights, *source.fields, *source.drop)
        remark_on_left([name for name in left if name not in known and not INDEX.fullmatch(name)])
    return dataclasses.replace(declared, columns=names, drop=())


def remark_on_left(names: Sequence[str]) -> None:
    """Tell of columns that a fit does not know, if there are some."""
    if names:
        told = ", ".join(names[:TOLD])
        warnings.warn(f"columns that the fit does not know are left out: {told}", FitWarning, stacklevel=3)


def _names_in(path: Path, source: DataSource) -> list[str] | None:
    """What the columns of a table file are called; none if they have no names, ``None`` if it cannot be told."""
    suffix = path.suffix.lower()
    if suffix == ".parquet" and path.is_file():
        return [str(name) for name in opened_parquet(path).schema_arrow.names]
    if suffix not in (".csv", ".tsv") or not path.is_file():
        return None
    first = next(lines_of(path))
    unnamed = source.header is False or all(is_numeric(cell, spellings(source.missing_text)) for cell in first)
    return [] if unnamed else first


def loaded(source: DataSource, label: str | None, *, exact: bool = False) -> Data:
    """Data that may lack the column of labels of this name, which other data have that they are declared like."""
    try:
        return load_declared(source, exact=exact)
    except ValueError as error:
        if source.label is None or source.label != label or not isinstance(error.__cause__, KeyError):
            raise
        return load_declared(dataclasses.replace(source, label=None), exact=exact)
