"""Folders that take the place of others, whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ppl_vae.storage.atomic import hidden_sibling, sync
from ppl_vae.storage.folder import Kind, check_free
from ppl_vae.storage.lock import folder_lock
from ppl_vae.text import as_line

__all__ = ["BothThereError", "new_folder", "replace_folder"]


@contextlib.contextmanager
def new_folder(path: Path, replace: Callable[[Path, Path], None]) -> Iterator[Path]:
    """A folder to fill, which appears at ``path`` whole or not at all.

    Args:
        path: where it is to be.
        replace: puts the folder that was filled, which lies on the disk, in its place, where nobody else writes meanwhile.
    """
    folder = hidden_sibling(path, "partial")
    folder.mkdir(parents=True)
    try:
        yield folder
        for file in (*folder.iterdir(), folder):
            sync(file)
        with folder_lock(path):
            replace(folder, path)
    except BothThereError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class BothThereError(OSError):
    """Neither a run nor what was to replace it lies in its place, and both must stay."""


def replace_folder(new: Path, path: Path, *, overwrite: bool, kind: Kind = "run") -> None:
    """Put a folder in the place of another, which is put back if that fails; somebody may have come first meanwhile.

    Raises:
        ValueError: something is there that may not be replaced.
        BothThereError: the other one could not be put back.
    """
    check_free(path, overwrite=overwrite, kind=kind)
    old = hidden_sibling(path, "old")
    try:
        if path.exists():
            path.rename(old)
        new.rename(path)
        sync(path.parent)
    except BaseException as error:
        if old.exists():
            _put_back(old, path, new, error)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _put_back(old: Path, path: Path, new: Path, error: BaseException) -> None:
    try:
        old.rename(path)
    except OSError:
        message = f"{path} could not be replaced ({as_line(error)}): it lies in {old}, the new one in {new}"
        raise BothThereError(message) from error
