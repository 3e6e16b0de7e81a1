"""Counts of few of many words: the bags of words of UCI, and sparse matrices.

They are held ``dense``, a column a word in the smallest dtype; ``sparse``, by their entries that are not zero, batches of which
are made dense; or as ``pairs``: a document is a row of words, with a field of their counts beside it. 300,000 documents of
100,000 words are 30 GiB dense, and 0.4 as the others.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ppl_vae.data.arrays import unreadable
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.data.sparse import Sparse
from ppl_vae.memory import require_memory

__all__ = ["SPARSE", "dtype_of", "holding", "is_counts", "is_sparse", "of_parts", "of_sparse", "read_counts"]

DENSE = 2**30  # bytes up to which "auto" is dense
SPARSE = ("indices", "indptr", "data", "shape", "format")
"""The arrays in a file of ``scipy.sparse.save_npz``, of matrices by rows or columns."""


def is_counts(path: Path) -> bool:
    """Whether a file is called as UCI's bags of words are."""
    return any(fnmatch(path.name.lower(), f"docword.*.txt{end}") for end in ("", ".gz"))


def is_sparse(values: Any) -> bool:
    """Whether these are a sparse matrix, or array, of scipy."""
    return type(values).__module__.startswith("scipy.sparse")


def read_counts(path: Path, source: DataSource) -> Raw:
    """A ``docword.*.txt`` file, or its ``.gz``: three numbers, D, W and the number of lines, then "document word count" a line.

    Words are those of the file ``vocab.*.txt`` beside it, if there is one.

    Raises:
        ValueError: another format, numbers that are out of range, or a vocabulary of another size.
    """
    from scipy.sparse import coo_matrix

    try:
        with _opened(path) as file:
            head = [file.readline().strip() for _ in range(3)]
    except (ValueError, OSError, EOFError) as error:
        raise unreadable(path, error) from None
    if not all(number.isdecimal() and len(number) < 19 and int(number) for number in head):
        told = ", ".join(map(repr, head))
        raise ValueError(
            f"{path}: expected the numbers of documents, words and counts, a line each, before the counts, got {told}: fetch "
            "it again"
        )
    documents, words, lines = map(int, head)
    require_memory(24 * lines + 16 * documents, f"{path}, {lines} counts of {documents} documents")
    try:
        with _opened(path) as file:
            found = np.loadtxt(file, dtype=np.int64, ndmin=2, skiprows=3)
    except (ValueError, OSError, EOFError) as error:
        raise unreadable(path, error) from None
    if found.shape != (lines, 3) or (found < 1).any() or (found[:, :2].max(0, initial=1) > (documents, words)).any():
        raise ValueError(
            f"{path}: expected {lines} lines 'document word count' of {documents} documents and {words} words, numbered from "
            f"1, got {len(found)} lines with others: fetch it again"
        )
    document, word, count = found.T
    matrix = coo_matrix((count, (document - 1, word - 1)), shape=(documents, words))
    return of_sparse(matrix, source, names=_vocabulary(path, words))


def _opened(path: Path) -> TextIO:
    return gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix.lower() == ".gz" else path.open(encoding="utf-8-sig")


def of_parts(parts: Mapping[str, np.ndarray], source: DataSource) -> Raw:
    """The matrix of a file of ``scipy.sparse.save_npz``, by its arrays.

    Raises:
        ValueError: a matrix that is held neither by rows nor by columns, or whose parts do not fit.
    """
    from scipy.sparse import csc_matrix, csr_matrix

    kinds = {"csr": csr_matrix, "csc": csc_matrix}
    written = parts["format"].item()
    kind = written.decode() if isinstance(written, bytes) else str(written)
    if kind not in kinds:
        raise ValueError(f"{source.source}: expected a sparse matrix as csr or csc, got {kind}: save its .tocsr()")
    try:
        matrix = kinds[kind]((parts["data"], parts["indices"], parts["indptr"]), shape=tuple(parts["shape"].tolist()))
        matrix.check_format(full_check=True)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source.source}: expected a sparse matrix, got parts that do not fit: {error}") from None
    return of_sparse(matrix, source)


def of_sparse(matrix: Any, source: DataSource, *, names: tuple[str, ...] = ()) -> Raw:
    """A sparse matrix ``(N, D)`` dense, sparse or as pairs, as declared.

    Raises:
        ValueError: no matrix of two axes of real numbers, or entries that are infinite or missing.
    """
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf" or not all(matrix.shape):
        raise ValueError(f"expected a sparse matrix (N, D) of real numbers, got {matrix.dtype} of shape {matrix.shape}")
    rows = matrix.tocsr()
    rows.sum_duplicates()
    rows.eliminate_zeros()
    dtype = holding(rows.data)
    size = int(np.prod(rows.shape, dtype=np.int64)) * dtype.itemsize
    how = ("dense" if size <= DENSE else "sparse") if source.counts == "auto" else source.counts
    if how == "dense":
        require_memory(size, source.source)
        return Raw(rows.astype(dtype).toarray(), columns=names)
    if how == "sparse":
        return Raw(Sparse(rows.astype(dtype), source.source, missing=source.missing == "ignore"), columns=names)
    known = names or tuple(map(str, range(rows.shape[1])))
    words = Ragged(rows.indices, rows.indptr, vocabulary=known)
    return Raw(words, fields={"count": Ragged(rows.data.astype(dtype), rows.indptr)})


def holding(values: np.ndarray) -> np.dtype:
    """The smallest dtype that data are held in and that holds these."""
    whole = values.dtype.kind != "f" or bool((values == np.floor(values)).all())
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    return dtype_of(low, high, whole=whole)


def dtype_of(low: float, high: float, *, whole: bool) -> np.dtype:
    """The smallest dtype that data are held in and that holds numbers from ``low`` to ``high``."""
    if not whole:
        return np.dtype(np.float32)
    return np.dtype(np.uint8 if low >= 0 and high < 256 else np.int32 if abs(low) < 2**31 and high < 2**31 else np.float64)


def _vocabulary(path: Path, words: int) -> tuple[str, ...]:
    name = path.name.removesuffix(".gz").replace("docword", "vocab", 1)
    file = path.with_name(name)
    if not file.is_file():
        return ()
    found = tuple(file.read_text(encoding="utf-8").split())
    if len(found) != words or len(set(found)) != words:
        raise ValueError(f"{file}: expected {words} different words, got {len(set(found))}: it belongs to other counts")
    return found
