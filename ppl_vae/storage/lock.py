"""The lock of a folder: one process at a time writes a run, and its lock dies with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FolderLock", "folder_lock"]


class FolderLock:
    """The lock of a folder, which is made if it is not there; one that another process removes meanwhile is made again.

    Args:
        folder: the folder.

    Raises:
        ValueError: another process holds it.
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._descriptor = _open_locked(folder)
            except OSError as error:
                raise OSError(f"{folder} cannot be made: {error.strerror}; choose another folder") from None
            if self._lies_there():
                return
            self.release()

    def check(self) -> None:
        """Raise ``OSError`` if another folder, or none, lies where the locked one did: nobody would find what is written."""
        if not self._lies_there():
            raise OSError(f"{self.folder} was replaced or removed while a fit wrote it: fit again, to another folder")

    def release(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)

    def _lies_there(self) -> bool:
        """Whether the lock is that of the folder which lies there now; where there are no locks, whether any does."""
        try:
            return os.name == "nt" or os.path.samestat(self.folder.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """A context in which nobody else writes to a folder, if it is there.

    Raises:
        ValueError: somebody does.
    """
    if not folder.is_dir():
        yield
        return
    descriptor = _open_locked(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _open_locked(folder: Path) -> int:
    """An open descriptor of the folder that holds its lock until it is closed, by its process's death at the latest."""
    if os.name == "nt":
        return os.open(os.devnull, os.O_RDONLY)
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"another process fits to {folder}: wait for its end, or choose another folder") from None
    return descriptor
