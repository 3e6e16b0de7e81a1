"""One reader per format, each from a path and the declaration to :class:`Raw` arrays. None unpickles anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ppl_vae.data.arrays import Raw, unreadable
from ppl_vae.data.images import read_folder
from ppl_vae.data.source import DataSource
from ppl_vae.data.stream import Stream
from ppl_vae.data.tables import read_csv, read_parquet

__all__ = ["READERS", "read_path"]


def read_path(path: Path, source: DataSource) -> Raw:
    """Read a file by its suffix, or a folder of ``.npy`` files or images.

    Raises:
        ValueError: nothing there, an unknown suffix, or contents that the reader cannot make out.
    """
    if path.is_dir():
        return read_npy(path, source) if any(path.glob("*.npy")) else read_folder(path)
    if not path.is_file():
        raise ValueError(f"expected a file or a folder, got {str(path)!r}, which does not exist: check the path")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path}: expected a file of type {', '.join(READERS)}, got {path.suffix!r}: convert it to one of these"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: expected data, got an empty file")
    return reader(path, source)


def read_npy(path: Path, source: DataSource) -> Raw:
    """One array, or those of a folder, one after the other in the order of their names; mapped if they are to be streamed."""
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
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
    """The array ``key`` and, if there are any, its labels."""
    with path.open("rb") as file:
        archive = _load(path, file)
        if isinstance(archive, np.ndarray):
            raise ValueError(f"{path}: expected an archive of arrays, got one array: rename it to .npy")
        names = list(archive)
        label = source.label or ("y" if "y" in names and source.key != "y" else None)
        key = source.key or _only(path, [name for name in names if name != label])
        for name in filter(None, (key, label)):
            if name not in names:
                raise ValueError(f"{path}: expected one of the arrays {', '.join(names)}, got {name!r}")
        try:
            return Raw(archive[key], archive[label] if label else None)
        except Exception as error:  # zlib, zip and numpy each have their own
            raise unreadable(path, error) from None


READERS: dict[str, Callable[[Path, DataSource], Raw]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def _array(path: Path, *, mapped: bool) -> np.ndarray:
    try:
        if mapped:
            return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        raise unreadable(path, error) from None
    with path.open("rb") as file:
        array = _load(path, file)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: expected one array, got an archive: rename it to .npz")
    return array


def _load(path: Path, file: BinaryIO) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except Exception as error:  # a damaged header can raise nearly anything, tokenizer errors included
        raise unreadable(path, error) from None


def _only(path: Path, names: list[str]) -> str:
    if len(names) != 1 and "x" not in names:
        raise ValueError(
            f"{path}: expected the data under 'x' or as the only array, got {', '.join(names) or 'none'}: name one with key="
        )
    return "x" if "x" in names else names[0]
