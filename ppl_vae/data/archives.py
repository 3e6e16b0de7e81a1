"""Archives of arrays (npz): one array, a table of columns, named fields, rows of different lengths, sparse matrices."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ppl_vae.data.arrays import unreadable
from ppl_vae.data.counts import SPARSE, of_parts
from ppl_vae.data.objects import read_rows
from ppl_vae.data.pens import COLUMNS as STROKES
from ppl_vae.data.pens import is_drawn
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.memory import require_memory

__all__ = ["Archive", "header_of", "opened", "read_npz"]

VALUES = ("values", "points")  # what an array beside `offsets` may be called
HALVES = ("train_", "valid_", "test_")


class Archive(NamedTuple):
    """An opened archive, the names of its arrays, and of those among them that are pickled objects."""

    path: Path
    file: zipfile.ZipFile
    names: list[str]
    pickled: list[str]

    def array(self, name: str) -> np.ndarray:
        """One of its arrays, checked before memory is taken for it."""
        if name not in self.names:
            raise ValueError(f"{self.path}: expected one of the arrays {', '.join(self.names)}, got {name!r}")
        return _member(self.path, self.file, name)

    def ragged(self) -> dict[str, str]:
        """By what is before `offsets` in the name of an array the name of its values; pickled arrays are rows as well."""
        found = {f"{name}_": name for name in self.pickled}
        for name in self.names:
            start = name.removesuffix("offsets")
            values = [start + each for each in VALUES if start + each in self.names]
            if name.endswith("offsets") and values:
                found[start] = values[0]
        return found

    def rows(self, start: str, values: str) -> Ragged:
        """Rows of different lengths."""
        try:
            if values in self.pickled:
                return Ragged.from_list(_unpickled(self.path, self.file, values))
            return Ragged(self.array(values), self.array(f"{start}offsets"))
        except ValueError as error:
            told = str(error)
            raise ValueError(told if told.startswith(str(self.path)) else f"{self.path}, {values}: {told}") from None


def read_npz(path: Path, source: DataSource) -> Raw:
    """The array ``key`` and, if there are any, its labels; several arrays of one number a row are the columns of a table.

    Rows of different lengths lie as ``<name>_values`` and ``<name>_offsets``, or without a name. What ``scipy.sparse.save_npz``
    writes is a sparse matrix.
    """
    with opened(path) as archive:
        return _read(archive, source)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """An archive to read arrays of.

    Raises:
        ValueError: one array, or a damaged file.
    """
    with path.open("rb") as file:
        if file.read(4) == b"\x93NUM":
            raise ValueError(f"{path}: expected an archive of arrays, got one array: rename it to .npy")
    try:
        with zipfile.ZipFile(path) as found:
            names = [name.removesuffix(".npy") for name in found.namelist() if name.endswith(".npy")]
            yield Archive(path, found, names, [name for name in names if _is_pickled(found, name)])
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise unreadable(path, error) from None


def _read(archive: Archive, source: DataSource) -> Raw:
    path, names = archive.path, archive.names
    weights, names = _weights(archive, source)
    if source.fields:
        return _fields(archive, source.fields)._replace(weights=weights)
    if set(SPARSE) <= set(names):
        y = archive.array(source.label) if source.label else None
        return of_parts({name: archive.array(name) for name in SPARSE}, source)._replace(y=y, weights=weights)
    label = source.label or ("y" if "y" in names and source.key != "y" else None)
    if label and label not in names:
        told = f"expected labels among the arrays {', '.join(names)}, got {label!r}"
        raise ValueError(f"{path}: {told}: name another with label (--label), or none where no labels are needed")
    y = archive.array(label) if label else None
    key = "x" if source.key is None else source.key
    dense = key in names and key not in archive.pickled
    if archive.ragged() and not dense:
        return _ragged(archive, source, y)._replace(weights=weights)
    others = [name for name in names if name != label]
    if source.key is None and "x" not in names and len(others) > 1:
        table = _stacked(path, others, [archive.array(name) for name in others])
        return Raw(table, y, columns=tuple(others), weights=weights)
    return Raw(archive.array(source.key or _only(path, others)), y, weights=weights)


def _weights(archive: Archive, source: DataSource) -> tuple[np.ndarray | None, list[str]]:
    """The array of the weights, if one is declared, and the names of the others."""
    if source.weights is None:
        return None, archive.names
    return archive.array(source.weights), [name for name in archive.names if name != source.weights]


def _ragged(archive: Archive, source: DataSource, y: np.ndarray | None) -> Raw:
    """The rows of the name ``key``; of a file with halves of its own these."""
    found = archive.ragged()
    if set(found) <= set(HALVES) and "train_" in found:
        halves = {start: archive.rows(start, values) for start, values in found.items()}
        columns = _columns(halves["train_"], found["train_"])
        return Raw(halves["train_"], y, test_x=halves.get("test_"), valid_x=halves.get("valid_"), columns=columns)
    lone = next(iter(found)) if len(found) == 1 else "x_"
    start = lone if source.key is None else f"{source.key}_"
    if start not in found:
        known = ", ".join(name.rstrip("_") or f"{found[name]} (without a name)" for name in found)
        got = "several" if source.key is None else repr(source.key)
        raise ValueError(
            f"{archive.path}: expected one of the ragged arrays {known}, got {got}: name one with key=, or all that programs "
            "read with fields="
        )
    rows = archive.rows(start, found[start])
    return Raw(rows, y, columns=_columns(rows, found[start]))


def _columns(rows: Ragged, values: str) -> tuple[str, ...]:
    """What the three numbers of a point of a drawing are called."""
    points = values.endswith("points") and rows.event_shape == (len(STROKES),)
    return STROKES if points or (not values.endswith(VALUES) and is_drawn(rows)) else ()


def _fields(archive: Archive, names: Sequence[str]) -> Raw:
    """Arrays and rows of different lengths by name, x or the first of them as x."""
    found = archive.ragged()
    values = {
        name: archive.rows(f"{name}_", found[f"{name}_"]) if f"{name}_" in found else archive.array(name) for name in names
    }
    first = "x" if "x" in values else names[0]
    x = values.pop(first)
    return Raw(x, fields=values, name=first)


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an archive, if the size that it declares is there, and that much memory."""
    info = archive.getinfo(f"{name}.npy")
    require_memory(info.file_size, f"{path}, {name}")
    try:
        with archive.open(info) as file:
            shape, dtype = header_of(file)
            if not dtype.hasobject and math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
                raise ValueError(f"{name} is {info.file_size} bytes, its header says {dtype} {shape}")
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # zlib, zip and numpy each have their own
        if _is_pickled(archive, name):
            raise ValueError(f"{path}: expected arrays of numbers, got {name} as pickled objects, {NOT_LOADED}") from None
        raise unreadable(path, error) from None


NOT_LOADED = (
    "which are not loaded, since they can run any code; lists of numeric arrays alone are read. Rows of different lengths are "
    "saved as np.savez(path, name_values=np.concatenate(rows), name_offsets=np.cumsum([0, *map(len, rows)])), by who trusts "
    "the file; drawings are read as .ndjson too"
)


def _unpickled(path: Path, archive: zipfile.ZipFile, name: str) -> list[np.ndarray]:
    """Rows that lie as an array of arrays, read without unpickling."""
    info = archive.getinfo(f"{name}.npy")
    require_memory(2 * info.file_size, f"{path}, {name}")
    with archive.open(info) as file:
        shape, _ = header_of(file)
        try:
            return read_rows(file, shape, name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}: these are pickled objects, {NOT_LOADED}") from None


def _is_pickled(archive: zipfile.ZipFile, name: str) -> bool:
    """Whether an array is one of objects, by its header."""
    try:
        with archive.open(f"{name}.npy") as file:
            return header_of(file)[1].hasobject
    except Exception:  # a damaged one, of which more is said when it is read
        return False


def header_of(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and the dtype of an array, of which the file stands at the beginning and then behind them."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _stacked(path: Path, names: list[str], columns: list[np.ndarray]) -> np.ndarray:
    """Columns ``(N,)`` as a table ``(N, D)``."""
    flat = all(column.ndim == 1 and column.dtype.kind in "biuf" for column in columns)
    if not flat or len({len(column) for column in columns}) > 1:
        raise _several(path, names)
    return np.stack(columns, axis=1)


def _only(path: Path, names: list[str]) -> str:
    if len(names) != 1 and "x" not in names:
        raise _several(path, names)
    return "x" if "x" in names else names[0]


def _several(path: Path, names: list[str]) -> ValueError:
    return ValueError(
        f"{path}: expected the data under 'x', as the only array, or as columns of one length, got "
        f"{', '.join(names) or 'none'}: name one with key="
    )
