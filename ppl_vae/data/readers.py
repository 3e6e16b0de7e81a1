"""One reader per format, each from a path and the declaration to :class:`Raw` arrays. None unpickles anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ppl_vae.data.anndata import read_h5ad
from ppl_vae.data.archives import read_npz
from ppl_vae.data.arrays import unreadable
from ppl_vae.data.counts import is_counts, read_counts
from ppl_vae.data.delimited import read_csv
from ppl_vae.data.images import read_folder
from ppl_vae.data.patch_images import read_patches
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.data.stream import Stream
from ppl_vae.data.streamed_counts import stream_h5ad, stream_npz
from ppl_vae.data.streamed_tables import stream_csv, stream_parquet
from ppl_vae.data.strokes import read_drawings
from ppl_vae.data.tables import read_parquet
from ppl_vae.data.texts import read_texts
from ppl_vae.memory import require_memory

__all__ = ["READERS", "read_array", "read_path", "shards", "suffix_of"]

COUNTS = "docword.*.txt"


def read_path(path: Path, source: DataSource) -> Raw:
    """Read a file by its suffix, or a folder of ``.npy`` files or images.

    Raises:
        ValueError: nothing there, an unknown suffix, or contents that the reader cannot make out.
    """
    if path.is_dir():
        if shards(path):
            return read_npy(path, source)
        return read_folder(path) if source.patches is None else read_patches(path, source, source.patches)
    if not path.is_file():
        reason = "is neither" if path.exists() else "does not exist"
        raise ValueError(f"expected a file or a folder, got {str(path)!r}, which {reason}: check the path")
    suffix = suffix_of(path)
    known = READERS if source.stream is None else STREAMING
    reader = read_texts if source.tokens is not None and suffix in (".csv", ".tsv") else known.get(suffix)
    if reader is None:
        raise ValueError(
            f"{path}: expected a file of type {', '.join(READERS)}, got {path.suffix!r}: convert it to one of these"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: expected data, got an empty file")
    return reader(path, source)


def suffix_of(path: Path) -> str:
    """What the name of a file ends with, in lower case; of the word counts of UCI all that tells them from text."""
    return COUNTS if is_counts(path) else path.suffix.lower()


def shards(path: Path) -> list[Path]:
    """The ``.npy`` files of a folder in the order of their names, hidden ones left out."""
    return sorted(file for file in path.glob("*.npy") if not file.name.startswith("."))


def read_npy(path: Path, source: DataSource) -> Raw:
    """One array, or those of a folder, one after the other in the order of their names; mapped if they are to be streamed.

    A folder of ``values.npy`` and ``offsets.npy`` holds rows of different lengths.
    """
    files = shards(path) if path.is_dir() else [path]
    if [file.stem for file in files] == ["offsets", "values"] and source.stream is None:
        offsets, values = (_array(file, mapped=False) for file in files)
        return Raw(Ragged(values, offsets))
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


READERS: dict[str, Callable[[Path, DataSource], Raw]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".tsv": read_csv,
    ".txt": read_texts,
    ".ndjson": read_drawings,
    ".h5ad": read_h5ad,
    COUNTS: read_counts,
}

STREAMING: dict[str, Callable[[Path, DataSource], Raw]] = {
    ".npy": read_npy,
    ".npz": stream_npz,
    ".csv": stream_csv,
    ".parquet": stream_parquet,
    ".tsv": stream_csv,
    ".h5ad": stream_h5ad,
}
"""The readers of rows that are streamed."""


def read_array(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file.

    Raises:
        ValueError: a damaged file, or one that holds no numbers.
    """
    return _array(path, mapped=False)


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


def _opening(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
