"""Files that cannot be read row by row, converted once into arrays that can, which are kept and found again.

A conversion is a folder of ``.npy`` files with ``conversion.json``, which tells of what file it was made, with which options,
and what was found in it. It is written beside its place and renamed, so that half of one is never taken for a whole one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppl_vae.data.source import DataSource
from ppl_vae.data.stream import budget
from ppl_vae.memory import GIB, require_memory
from ppl_vae.storage.atomic import hidden_sibling, sync, write_json
from ppl_vae.storage.lock import FolderLock, folder_lock
from ppl_vae.text import as_line
from ppl_vae.types import FitWarning

__all__ = ["Conversion", "Plan", "converted", "require_disk", "written"]

FORMAT = 1
MANIFEST = "conversion.json"
FOLDER = "streamed"
ENDS = 2**16  # bytes of the beginning and of the end of a file by which it is told from others
OPTIONS = ("label", "columns", "drop", "weights", "fields", "key", "header", "missing_text", "layer")
"""Options of a source on which the arrays depend."""
UNITS = ((GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))
PER_ROW = 24  # bytes of memory: the split, a label, the start of a row


class Plan(NamedTuple):
    """What a conversion will take: how often the file is read, and about how many rows and bytes are written."""

    reads: int
    rows: int
    nbytes: int


class Conversion(NamedTuple):
    """The folder of a conversion, and what was found in its file."""

    folder: Path
    facts: dict[str, Any]

    def mapped(self, name: str) -> np.ndarray:
        """An array of it, memory-mapped."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def read(self, name: str) -> np.ndarray:
        """An array of it in memory.

        Raises:
            ValueError: there is no memory for it.
        """
        array = self.mapped(name)
        require_memory(array.nbytes, f"{self.folder}, {name}")
        return np.array(array)


def converted(
    path: Path, source: DataSource, plan: Callable[[], Plan], write: Callable[[Path], Mapping[str, Any]]
) -> Conversion:
    """The conversion of a file: the one that was kept, or a new one if there is none, or the file has changed since.

    Args:
        path: of the file.
        source: its declaration, with the MiB of memory that may be taken.
        plan: tells what a conversion takes, before it begins.
        write: makes the arrays in a folder, and tells what it found, in plain values.

    Raises:
        ValueError: no room on the disk or in memory, a file that changes meanwhile, or what ``write`` raises.
    """
    folder = _place(path, source)
    if (found := _kept(folder, path)) is None:
        _tell(path, source, folder, plan())
        _make(folder, path, write)
        found = _kept(folder, path)
    if found is None:
        raise ValueError(f"{path}: expected a file that stays as it is while it is converted, got another: load it again")
    for remark in found["remarks"]:
        warnings.warn(remark, FitWarning, stacklevel=2)
    return Conversion(folder, found["facts"])


@contextlib.contextmanager
def written(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """An ``.npy`` file, to be written piece by piece by the function that this gives.

    Raises:
        ValueError: other than all of it was written.
    """
    with path.open("xb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()

        def add(values: np.ndarray) -> None:
            file.write(np.ascontiguousarray(values, dtype=dtype).data)

        yield add
        if file.tell() - start != (expected := int(np.prod(shape, dtype=np.int64)) * dtype.itemsize):
            raise ValueError(f"{path.name}: expected {expected} bytes, got {file.tell() - start}: the file changed meanwhile")


def require_disk(folder: Path, needed: int, path: Path) -> None:
    """Raise ``ValueError`` if that many bytes are more than the disk of a folder has."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if needed > (most := shutil.disk_usage(there).free):
        raise ValueError(
            f"{path}: expected at least {needed / GIB:.3g} GiB of free disk in {folder} for the rows that are streamed, got "
            f"{most / GIB:.3g}: name another folder (root, --data.root)"
        )


def _place(path: Path, source: DataSource) -> Path:
    """Where the conversion of a file with these options lies."""
    declared = [getattr(source, option) for option in OPTIONS]
    key = hashlib.sha256(json.dumps([str(path.resolve()), FORMAT, declared]).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]", "_", path.name)[:60]
    return source.folder / FOLDER / f"{name}-{key}"


def _fingerprint(path: Path) -> dict[str, Any]:
    """What tells a file from another, or from itself once it has changed."""
    about = path.stat()
    with path.open("rb") as file:
        ends = hashlib.sha256(file.read(ENDS))
        file.seek(max(0, about.st_size - ENDS))
        ends.update(file.read(ENDS))
    return {"size": about.st_size, "mtime_ns": about.st_mtime_ns, "ends": ends.hexdigest()}


def _kept(folder: Path, path: Path) -> dict[str, Any] | None:
    """What is told of the conversion in a folder, if it is whole and of the file as it is now."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in found["files"].items())
        alike = found["format"] == FORMAT and found["source"] == _fingerprint(path)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if whole and alike else None


def _tell(path: Path, source: DataSource, folder: Path, plan: Plan) -> None:
    """Tell what is going to be done, and raise ``ValueError`` if it cannot be."""
    memory = 2 * budget(source.stream or 1) + PER_ROW * plan.rows
    require_memory(memory, str(path))
    require_disk(folder, plan.nbytes // 2, path)  # what is sure; the rest is asked for once it is known
    read, written_later = _size(plan.reads * path.stat().st_size), _size(plan.nbytes)
    warnings.warn(
        f"{path}: to stream its rows, {read} are read and about {written_later} written to {folder}, once, in about "
        f"{_size(memory)} of memory; another folder is root (--data.root)",
        FitWarning,
        stacklevel=2,
    )


def _size(nbytes: int) -> str:
    """Bytes in the unit that suits their number."""
    unit, name = next((unit, name) for unit, name in UNITS if nbytes >= unit or unit == 1)
    return f"{nbytes / unit:.3g} {name}"


def _make(folder: Path, path: Path, write: Callable[[Path], Mapping[str, Any]]) -> None:
    """Write a conversion beside its place, and put it there once it is whole."""
    before = _fingerprint(path)
    partial = hidden_sibling(folder, "partial")
    try:
        lock = FolderLock(partial)
        try:
            _sweep(folder.parent)
            facts, remarks = _remarked(lambda: write(partial))
            files = {file.name: file.stat().st_size for file in sorted(partial.iterdir())}
            for name in files:
                sync(partial / name)
            about = {"format": FORMAT, "source": before, "files": files, "remarks": remarks, "facts": facts}
            write_json(partial / MANIFEST, about)
            _put(partial, folder)
        finally:
            lock.release()
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ValueError(f"{path}: its rows could not be written to {folder} ({as_line(error)}): see to its disk") from None


def _remarked(function: Callable[[], Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """What a function gives, and what it remarks on, which is to be told each time that its result is used."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = dict(function())
    for each in caught:
        if not issubclass(each.category, FitWarning):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return result, [str(each.message) for each in caught if issubclass(each.category, FitWarning)]


def _put(new: Path, path: Path) -> None:
    """Put a folder in its place; one that another process has put there meanwhile may stay."""
    old = hidden_sibling(path, "partial")
    with contextlib.suppress(FileNotFoundError):
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if not path.is_dir():
            raise
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what processes left here that died while they wrote."""
    for path in folder.glob(".*.partial-*") if os.name != "nt" else ():
        with contextlib.suppress(ValueError, OSError), folder_lock(path):  # which whoever writes there holds
            shutil.rmtree(path, ignore_errors=True)
