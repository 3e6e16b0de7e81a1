"""The one way in: from a name, a path, an array or a declaration to :class:`Data`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ppl_vae.data.anndata import is_anndata, of_anndata
from ppl_vae.data.arrays import as_array
from ppl_vae.data.counts import is_sparse, of_sparse
from ppl_vae.data.dataset import Data
from ppl_vae.data.field_entries import named
from ppl_vae.data.frames import Frame, cells_of_frame, is_frame, is_table
from ppl_vae.data.named import EMPTY, SETS, empty_shape, read_digits, read_torchvision, unknown_name
from ppl_vae.data.patch_images import cut_patches
from ppl_vae.data.prepare import prepare
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.raw import Raw
from ppl_vae.data.readers import READERS, read_path, shards, suffix_of
from ppl_vae.data.source import LABELLED, STREAMED, TABLES, WEIGHTED, DataSource
from ppl_vae.data.sprites import read_sprites
from ppl_vae.data.tables import of_objects, table
from ppl_vae.data.texts import as_running, of_texts
from ppl_vae.text import at_home, denied

__all__ = ["load_data", "load_declared"]


def load_data(
    source: str | Path | np.ndarray | Tensor | Ragged | Frame | Sequence | Mapping[str, Any] | DataSource | Data = "digits",
    *,
    y: Any = None,
    weights: Any = None,
    **options: Any,
) -> Data:
    """Load data and split them into train, valid and test.

    Args:
        source: name of a set, path of a file or a folder of images, array ``(N, *event)``, rows of different lengths
            (:class:`~ppl_vae.Ragged`), a sparse matrix of scipy, an AnnData, texts where ``tokens`` says how they are cut,
            frame of pandas, polars or pyarrow, array of objects (a table of mixed columns), or a declaration. For covariates
            beside x, and for plain Pyro programs of more than one argument, also a tuple of arrays of one length, or a mapping
            of arrays by name: x, the first or what is called so, is scaled and described by the options, the others go as they
            are, texts as places among their levels. Of one of the others some rows may lack it: a masked array whose masked
            rows have none.
        y: labels ``(N,)``, integers or strings, where the source brings none; not part of the declaration.
        weights: how often each row counts, ``(N,)``, finite numbers not below 0, not all 0, as survey weights, frequencies and
            inverse propensities are; not part of the declaration. Or the name of the column that has them, which is. What is
            fitted and told is then the weighted mean sum_n w_n l_n / sum_n w_n. The scale of the weights is of no matter, but
            where parameters carry priors: a row of weight w counts as w rows beside them, so weights that are no counts are
            first to be given a sum that is the number of rows they are worth.
        options: fields of :class:`DataSource`, such as ``binarize="dynamic"``.

    Returns:
        the data on the CPU; ``Data`` given as the source come back as they are.

    Raises:
        ValueError: an unknown name or option, a file that is missing or damaged, values that are missing, infinite or not
            what the options ask for, too few rows.

    Examples:
        >>> data = load_data("digits")
        >>> data
        Data(digits: 1258 train, 180 valid, 359 test; unit_interval (1, 8, 8))
        >>> data.train.x.dtype, next(data.train.batches(100)).dtype
        (torch.uint8, torch.float32)
        >>> load_data(Tensor([0.0, 1.0, 2.0]), weights=[1, 2, 0], valid=0, test=0).train
        Split(3 x (1,), float32, unlabelled, weighted: 1.8 effective)
    """
    if isinstance(weights, str):
        options, weights = {**options, "weights": weights}, None
    if isinstance(source, Data):
        if options or y is not None or weights is not None:
            raise ValueError(
                "expected Data without options, they are loaded already: give their .source with the options instead"
            )
        return source
    if isinstance(source, DataSource):
        return load_declared(dataclasses.replace(source, **_checked(options)), y=y, weights=weights)
    if isinstance(source, (str, Path)):
        return load_declared(DataSource(source=str(source), **_checked(options)), y=y, weights=weights)
    declared = DataSource(source="array", **_checked(options))
    _refuse_unused(declared, suffix=_kind_of(source))
    if isinstance(source, (tuple, Mapping)):
        return prepare(declared, _weighted(cut_patches(_of_fields(source, declared, y), declared), weights))
    return prepare(declared, _weighted(_labelled(cut_patches(_in_memory(source, declared), declared), y), weights))


def load_declared(source: DataSource, *, y: Any = None, weights: Any = None, exact: bool = False) -> Data:
    """What :func:`load_data` loads of a declaration; ``exact`` with all digits, in float64 where float32 lacks some.

    Raises:
        ValueError: as there.
    """
    declared = as_running(source)
    return prepare(declared, _weighted(_labelled(cut_patches(_read(declared), declared), y), weights), exact=exact)


def _in_memory(source: Any, declared: DataSource) -> Raw:
    if isinstance(source, Ragged):
        return Raw(source)
    if is_anndata(source):
        return of_anndata(source, declared)
    if is_sparse(source):
        return of_sparse(source, declared)
    if declared.tokens is not None:
        return of_texts(source if isinstance(source, list) else as_array(source, "texts"), declared)
    if is_frame(source):
        return table("frame", cells_of_frame(source), declared)
    array = as_array(source, "data")
    return of_objects(array, declared) if is_table(array) else Raw(array)


def _kind_of(source: Any) -> str:
    """The type of files that what is in memory is like; none of an array."""
    return ".h5ad" if is_anndata(source) else "frame" if is_table(source) else ""


def _of_fields(source: tuple | Mapping[str, Any], declared: DataSource, y: Any) -> Raw:
    if y is not None:
        raise ValueError("expected no y beside several fields, got some: give it as one of the fields")
    (name, x), *others = named(source).items()
    if is_sparse(x):
        raw = of_sparse(x, declared)
        return raw._replace(fields={**(raw.fields or {}), **dict(others)}, name=name)
    return Raw(x if isinstance(x, Ragged) else as_array(x, "data"), fields=dict(others), name=name)


def _read(source: DataSource) -> Raw:
    path = at_home(source.source)
    try:
        return _found(path, source)
    except OSError as error:  # a name that is too long, a file or a folder that may not be read
        raise denied(path, error) from None


def _found(path: Path, source: DataSource) -> Raw:
    _refuse_unused(source, ".npy" if shards(path) else suffix_of(path))
    if source.name == "digits":
        return read_digits()
    if source.name == "sprites":
        return read_sprites(source.fields)
    if source.name == "array":
        raise ValueError(
            "expected the array itself, got a declaration of data given in memory: call load_data(array, ...) again"
        )
    if source.source.startswith(EMPTY):
        return Raw(np.zeros((1, *empty_shape(source.source)), dtype=np.float32))
    if source.name in SETS:
        return read_torchvision(source)
    if not path.exists() and path.name == source.source and suffix_of(path) not in READERS:
        raise unknown_name(source.source)
    return read_path(path, source)


def _labelled(raw: Raw, y: Any) -> Raw:
    if y is None:
        return raw
    if raw.test_x is not None:
        raise ValueError("expected no y for a source that has its own test set and labels, got some: leave y out")
    return raw._replace(y=as_array(y, "labels"), classes=None)


def _weighted(raw: Raw, weights: Any) -> Raw:
    if weights is None:
        return raw
    if raw.weights is not None:
        raise ValueError("expected weights once, got them as a column and beside the rows: leave one of them out")
    return raw._replace(weights=as_array(weights, "weights"))


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(DataSource)]
    for name in options:
        if name not in names:
            raise ValueError(f"expected options among {', '.join(names)}, got {name!r}")
    return options


def _refuse_unused(source: DataSource, suffix: str) -> None:
    if source.label is not None and suffix not in LABELLED:
        raise ValueError(
            f"expected label for {', '.join(LABELLED[:-1])} files and frames only, got it for {source.source}: leave it out, "
            "or give y"
        )
    for option in ("columns", "drop"):
        if getattr(source, option) and suffix not in TABLES:
            raise ValueError(
                f"expected {option} for {', '.join(TABLES[:-1])} files and frames only, got them for {source.source}: leave "
                "them out"
            )
    if source.weights is not None and suffix not in WEIGHTED:
        raise ValueError(
            f"expected weights by the name of a column for {', '.join(WEIGHTED[:-1])} files and frames only, got it for "
            f"{source.source}: give them beside the rows, load_data(x, weights=w)"
        )
    if source.weights is not None and source.tokens is not None:
        raise ValueError(f"expected no weights column beside text, got {source.weights!r}: load_data(texts, weights=w)")
    if source.header is not None and suffix not in (".csv", ".tsv"):
        raise ValueError(f"expected header for .tsv and .csv files only, got it for {source.source}: leave it out")
    if source.tokens is not None and suffix not in (".txt", ".csv", ".tsv", ""):
        raise ValueError(
            f"expected tokens for .txt, .csv and .tsv files and texts only, got it for {source.source}: leave it out"
        )
    if source.chunk is not None and suffix != ".txt":
        raise ValueError(f"expected chunk for .txt files only, got it for {source.source}: leave it out")
    if source.column is not None and not (source.tokens is not None and suffix in (".csv", ".tsv")):
        raise ValueError(
            f"expected column for text in .csv and .tsv files only, got it for {source.source}: leave it out, or say what the "
            "text is cut into (tokens)"
        )
    if source.fields and suffix not in (".npz", *TABLES) and source.name != "sprites":
        raise ValueError(
            f"expected fields for .npz, {', '.join(TABLES[:-1])} files and frames only, got them for {source.source}: give a "
            "mapping of arrays"
        )
    if source.layer is not None and suffix != ".h5ad":
        raise ValueError(f"expected layer for AnnData (.h5ad) only, got it for {source.source}: leave it out")
    if source.key is not None and suffix != ".npz":
        raise ValueError(f"expected key for .npz files only, got it for {source.source}: leave it out")
    if source.stream is not None and (suffix not in STREAMED or source.tokens is not None):
        raise ValueError(
            f"expected stream for .npy files, folders of them and {', '.join(STREAMED[1:])} files of numbers only, got it for "
            f"{source.source}: leave it out, or save the rows as .npy files"
        )
