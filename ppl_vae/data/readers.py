"""One reader per format, each from a path and the declaration to :class:`Raw` arrays. None unpickles anything."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from ppl_vae.data.arrays import Raw, unreadable
from ppl_vae.data.delimited import read_csv
from ppl_vae.data.images import read_folder
from ppl_vae.data.source import DataSource
from ppl_vae.data.stream import Stream
from ppl_vae.data.tables import read_parquet
from ppl_vae.memory import require_memory

__all__ = ["READERS", "read_path", "shards"]

NPY = b"\x93NUM"  # the first bytes of an array, as many as an archive's


def read_path(path: Path, source: DataSource) -> Raw:
    """Read a file by its suffix, or a folder of ``.npy`` files or images.

    Raises:
        ValueError: nothing there, an unknown suffix, or contents that the reader cannot make out.
    """
    if path.is_dir():
        return read_npy(path, source) if shards(path) else read_folder(path)
    if not path.is_file():
        reason = "is neither" if path.exists() else "does not exist"
        raise ValueError(f"expected a file or a folder, got {str(path)!r}, which {reason}: check the path")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path}: expected a file of type {', '.join(READERS)}, got {path.suffix!r}: convert it to one of these"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: expected data, got an empty file")
    return reader(path, source)


def shards(path: Path) -> list[Path]:
    """The ``.npy`` files of a folder in the order of their names, hidden ones left out."""
    return sorted(file for file in path.glob("*.npy") if not file.name.startswith("."))


def read_npy(path: Path, source: DataSource) -> Raw:
    """One array, or those of a folder, one after the other in the order of their names; mapped if they are to be streamed."""
    files = shards(path) if path.is_dir() else [path]
    arrays = [_array(file, mapped=source.stream is not None) for file in files]
    first = arrays[0]
    for file, array in zip(files, arrays, strict=True):
        if array.ndim == 0:
            raise ValueError(f"{file}: expected at least one row of at least one value, got an array of shape ()")
        if (array.dtype, array.shape[1:]) != (first.dtype, first.shape[1:]):
            raise ValueError(
                f"expected files of one dtype and one shape of a row, got {files[0]} of {first.dtype} {first.shape[1:]} and "
                f"{file} of {array.dtype} {array.shape[1:]}: convert them to one"
            )
    if source.stream is not None:
        return Raw(Stream(arrays, source.source, mib=source.stream, missing=source.missing == "ignore"))
    return Raw(first if len(arrays) == 1 else np.concatenate(arrays))


def read_npz(path: Path, source: DataSource) -> Raw:
    """The array ``key`` and, if there are any, its labels; several arrays of one number a row are the columns of a table."""
    if _opening(path) == NPY:
        raise ValueError(f"{path}: expected an archive of arrays, got one array: rename it to .npy")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            label = source.label or ("y" if "y" in names and source.key != "y" else None)
            if label and label not in names:
                told = f"expected labels among the arrays {', '.join(names)}, got {label!r}"
                raise ValueError(f"{path}: {told}: name another with label (--label), or none where no labels are needed")
            y = _member(path, archive, label) if label else None
            others = [name for name in names if name != label]
            if source.key is None and "x" not in names and len(others) > 1:
                table = _stacked(path, others, [_member(path, archive, name) for name in others])
                return Raw(table, y, columns=tuple(others))
            key = source.key or _only(path, others)
            if key not in names:
                raise ValueError(f"{path}: expected one of the arrays {', '.join(names)}, got {key!r}")
            return Raw(_member(path, archive, key), y)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise unreadable(path, error) from None


READERS: dict[str, Callable[[Path, DataSource], Raw]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def _array(path: Path, *, mapped: bool) -> np.ndarray:
    """The array of a file; its header and the size of the file agree before memory is taken for it."""
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path}: expected a file, got {'a folder' if path.is_dir() else 'none'}")
    if _opening(path) == b"PK\x03\x04":
        raise ValueError(f"{path}: expected one array, got an archive: rename it to .npz")
    try:
        with np.errstate(over="ignore"):  # of the product of sizes, which is then found to be wrong
            array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header can raise nearly anything, tokenizer errors included
        raise unreadable(path, error) from None
    if mapped:
        return array
    require_memory(array.nbytes, str(path))
    return np.array(array)


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an archive, if the size that it declares is there, and that much memory."""
    info = archive.getinfo(f"{name}.npy")
    require_memory(info.file_size, f"{path}, {name}")
    try:
        with archive.open(info) as file:
            shape, dtype = _header(file)
            if math.prod(shape) * dtype.itemsize != info.file_size - file.tell() and not dtype.hasobject:
                raise ValueError(f"{name} is {info.file_size} bytes, its header says {dtype} {shape}")
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # zlib, zip and numpy each have their own
        raise unreadable(path, error) from None


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _opening(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(NPY))[: len(NPY)]


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
