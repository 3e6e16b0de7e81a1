"""Sparse matrices and cells that are larger than memory: read some rows at a time, kept by rows, made dense as batches ask."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ppl_vae.data.anndata import beside_cells, chosen_genes, layer_named, remark_unless_counts, without_anndata
from ppl_vae.data.archives import header_of, opened
from ppl_vae.data.arrays import unreadable
from ppl_vae.data.cells import Numbers
from ppl_vae.data.conversions import Conversion, Plan, converted, require_disk, written
from ppl_vae.data.counts import SPARSE, dtype_of
from ppl_vae.data.csr_rows import SparseRows
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.data.stream import Stream, budget
from ppl_vae.memory import require_memory

__all__ = ["stream_h5ad", "stream_npz"]

ENTRY = 48  # bytes that an entry takes while its row is read, brought in order and written


class Matrix(NamedTuple):
    """A matrix in a file: rows, columns, entries, and its rows block by block, sparse ones of scipy or dense arrays."""

    shape: tuple[int, int]
    entries: int
    blocks: Callable[[], Iterable[Any]]
    sparse: bool = True


def stream_npz(path: Path, source: DataSource) -> Raw:
    """A matrix by rows (csr) of ``scipy.sparse.save_npz``, to be streamed.

    Raises:
        ValueError: another archive, a matrix that is not held by rows, parts that do not fit, or no room for what is written.
    """
    _check_counts(source)
    with opened(path) as archive:
        if not set(SPARSE) <= set(archive.names):
            raise ValueError(
                f"{path}: expected a sparse matrix to stream, as scipy.sparse.save_npz writes it, got the arrays "
                f"{', '.join(archive.names)}: save the rows as .npy, or leave stream out"
            )
        written_as = archive.array("format").item()
        kind = written_as.decode() if isinstance(written_as, bytes) else str(written_as)
        shape = tuple(archive.array("shape").tolist())
        _check_matrix(str(path), kind, shape)
        starts = archive.array("indptr").astype(np.int64)
        y = archive.array(source.label) if source.label else None
        weights = None if source.weights is None else archive.array(source.weights)

        def blocks() -> Iterator[Any]:
            with archive.file.open("data.npy") as values, archive.file.open("indices.npy") as places:
                of = [_reading(file, path, int(starts[-1])) for file in (values, places)]
                yield from _by_rows(str(path), starts, shape, source, lambda start, stop: [read(stop - start) for read in of])

        matrix = Matrix((shape[0], shape[1]), int(starts[-1]), blocks)
        found = _converted(path, source, matrix)
    return _raw(found, source)._replace(y=y, weights=weights)


def stream_h5ad(path: Path, source: DataSource) -> Raw:
    """The matrix of a file of AnnData, by rows (csr) or dense, to be streamed; observations are read whole.

    Raises:
        ValueError: anndata is not installed, a damaged file, what :func:`~ppl_vae.data.anndata.read_h5ad` refuses, a matrix
            that is held by columns, or no room for what is written.
    """
    _check_counts(source)
    name = str(path)
    with _opened_h5ad(path) as (file, observed, genes):
        layers = list(file["layers"]) if "layers" in file else []
        columns = chosen_genes(genes, observed, source, name)
        layer = layer_named(source, layers, name, there="X" in file)
        held = file["X" if layer is None else f"layers/{layer}"]
        places = None if columns == genes else [genes.index(each) for each in columns]
        found = _converted(path, source, _of_group(name, held, source, places))
    facts = found.facts
    if facts["real"]:
        remark_unless_counts(source, name, layers, fractions=facts["fractions"], negative=facts["low"] < 0)
    return beside_cells(_raw(found, source)._replace(columns=tuple(columns)), observed, source)


@contextlib.contextmanager
def _opened_h5ad(path: Path) -> Iterator[tuple[Any, Any, list[str]]]:
    """The file, its observations as a frame, and the names of its variables."""
    try:
        import h5py

        try:
            from anndata.io import read_elem
        except ImportError:
            from anndata.experimental import read_elem
    except ImportError:
        raise without_anndata(path) from None
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(h5py.File(path, "r"))
            observed, variables = read_elem(file["obs"]), read_elem(file["var"])
        except Exception as error:  # of h5py and anndata, which have no common base
            raise unreadable(path, error) from None
        yield file, observed, [str(each) for each in variables.index]


def _of_group(name: str, held: Any, source: DataSource, columns: list[int] | None) -> Matrix:
    """The matrix of a group of entries, or of a dense array, of an h5 file, with these of its columns."""
    if "encoding-type" not in held.attrs or held.attrs["encoding-type"] == "array":
        return _of_dense(held, source, columns)
    kind, shape = str(held.attrs["encoding-type"]).removesuffix("_matrix"), tuple(map(int, held.attrs["shape"]))
    _check_matrix(name, kind, shape)
    starts = held["indptr"][...].astype(np.int64)

    def blocks() -> Iterator[Any]:
        parts = held["data"], held["indices"]
        for rows in _by_rows(name, starts, shape, source, lambda start, stop: [part[start:stop] for part in parts]):
            yield rows if columns is None else rows[:, columns]

    return Matrix((shape[0], shape[1] if columns is None else len(columns)), int(starts[-1]), blocks)


def _of_dense(held: Any, source: DataSource, columns: list[int] | None) -> Matrix:
    rows, width = held.shape
    step = max(1, budget(source.stream or 1) // (16 * width))

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, rows, step):
            values = held[start : start + step]
            yield values if columns is None else values[:, columns]

    shape = (rows, width if columns is None else len(columns))
    return Matrix(shape, shape[0] * shape[1], blocks, sparse=False)


def _check_counts(source: DataSource) -> None:
    if source.counts == "pairs":
        raise ValueError(
            f"{source.source}: expected counts dense or sparse of rows that are streamed, got pairs, rows of different "
            "lengths: leave counts or stream out"
        )


def _check_matrix(name: str, kind: str, shape: tuple[int, ...]) -> None:
    if kind != "csr":
        raise ValueError(f"{name}: expected a matrix by rows (csr) to stream, got {kind or 'another'}: save its .tocsr()")
    if len(shape) != 2 or not all(shape):
        raise ValueError(f"expected a sparse matrix (N, D) of real numbers, got one of shape {shape}")


def _reading(file: IO[bytes], path: Path, size: int) -> Callable[[int], np.ndarray]:
    """What reads the next so many numbers of an array of an archive."""
    shape, dtype = header_of(file)
    if shape != (size,) or dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected a sparse matrix, got parts that do not fit: {size} entries, and {dtype} {shape}")

    def read(number: int) -> np.ndarray:
        found = file.read(number * dtype.itemsize)
        if len(found) < number * dtype.itemsize:
            raise unreadable(path, EOFError("it ends too early"))
        return np.frombuffer(found, dtype).copy()

    return read


def _by_rows(
    name: str,
    starts: np.ndarray,
    shape: tuple[int, ...],
    source: DataSource,
    entries: Callable[[int, int], list[np.ndarray]],
) -> Iterator[Any]:
    """A matrix by rows, as many at once as there is room for, each place held once and none of them zero."""
    from scipy.sparse import csr_matrix

    if starts.shape != (shape[0] + 1,) or starts[0] != 0 or (np.diff(starts) < 0).any():
        raise ValueError(f"{name}: expected a sparse matrix, got parts that do not fit: the starts of its rows")
    most, row = max(1, budget(source.stream or 1) // ENTRY), 0
    while row < shape[0]:
        stop = max(row + 1, int(np.searchsorted(starts, starts[row] + most, side="right")) - 1)
        values, places = entries(int(starts[row]), int(starts[stop]))
        try:
            rows = csr_matrix((values, places, starts[row : stop + 1] - starts[row]), shape=(stop - row, shape[1]))
            rows.check_format(full_check=True)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name}: expected a sparse matrix, got parts that do not fit: {error}") from None
        rows.sum_duplicates()
        rows.eliminate_zeros()
        yield rows
        row = stop


def _converted(path: Path, source: DataSource, matrix: Matrix) -> Conversion:
    rows = matrix.shape[0]
    require_memory(3 * 8 * rows, str(path))  # the starts of all rows, as read and as written
    size = matrix.entries * (8 if matrix.sparse else 4)
    return converted(path, source, lambda: Plan(2, rows, size), lambda folder: _write(path, matrix, folder))


def _write(path: Path, matrix: Matrix, folder: Path) -> Mapping[str, Any]:
    """The arrays of a matrix in a folder, once it is known what its numbers are and how many are not zero."""
    numbers, entries, missing, real = Numbers(), 0, 0, False
    for block in matrix.blocks():
        values = block.data if matrix.sparse else block
        absent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        numbers.add(values[~absent].ravel())
        entries, missing, real = entries + values.size, missing + int(absent.sum()), real or values.dtype.kind == "f"
    low, high = (numbers.low, numbers.high) if entries > missing else (0.0, 0.0)
    dtype = dtype_of(low, high, whole=numbers.whole and not missing)
    place = np.dtype(np.int32 if matrix.shape[1] < 2**31 else np.int64)
    require_disk(folder, entries * (dtype.itemsize + matrix.sparse * place.itemsize), path)
    if matrix.sparse:
        _write_rows(matrix, folder, entries, dtype, place)
    else:
        with written(folder / "x.npy", matrix.shape, dtype) as add:
            for block in matrix.blocks():
                add(block)
    facts = {"shape": list(matrix.shape), "low": float(low), "fractions": not numbers.whole or missing > 0, "real": real}
    return {**facts, "sparse": matrix.sparse}


def _write_rows(matrix: Matrix, folder: Path, entries: int, dtype: np.dtype, place: np.dtype) -> None:
    with (
        written(folder / "values.npy", (entries,), dtype) as add_values,
        written(folder / "places.npy", (entries,), place) as add_places,
        written(folder / "starts.npy", (matrix.shape[0] + 1,), np.dtype(np.int64)) as add_starts,
    ):
        add_starts(np.zeros(1))
        end = 0
        for rows in matrix.blocks():
            add_values(rows.data)
            add_places(rows.indices)
            add_starts(end + rows.indptr[1:].astype(np.int64))
            end += len(rows.data)


def _raw(found: Conversion, source: DataSource) -> Raw:
    """The rows of a conversion."""
    if found.facts["sparse"]:
        columns = found.facts["shape"][1]
        rows: Any = SparseRows(found.mapped("values"), found.mapped("places"), found.read("starts"), columns)
    else:
        rows = found.mapped("x")
    return Raw(Stream([rows], source.source, mib=source.stream or 1, missing=source.missing == "ignore"))
