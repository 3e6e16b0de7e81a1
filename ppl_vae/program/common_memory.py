"""Memory that all processes of one machine see, in which they add up large tensors: a third of the time of messages."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["CommonMemory"]

FOLDER = Path("/dev/shm")  # files in memory, on Linux


class CommonMemory:
    """A row of float32 numbers of each process, and one of their sums.

    A sum takes three steps, between which all wait for each other: each process puts its numbers down, adds all rows up over
    its part of the columns, and takes the sums that all have made.

    Args:
        rows: ``(processes + 1, numbers)``, the last one for the sums.
        rank: the row of this process.
        part: the columns that this process adds up.
    """

    def __init__(self, rows: Tensor, rank: int, part: slice) -> None:
        self.own, self.sums = rows[rank], rows[-1]
        self._columns, self._sums_of_part = rows[:-1, part], rows[-1, part]

    @staticmethod
    def make(rows: int, numbers: int) -> Path | None:
        """A new file that has room for so many rows; ``None`` where there is none, as in containers with little of it."""
        if sys.platform != "linux":
            return None
        try:
            descriptor, name = tempfile.mkstemp(prefix="ppl_vae-", dir=FOLDER)
        except OSError:
            return None
        try:
            os.posix_fallocate(descriptor, 0, 4 * rows * numbers)  # else a write into memory that is not there would be fatal
        except OSError:
            Path(name).unlink()
            return None
        finally:
            os.close(descriptor)
        return Path(name)

    @staticmethod
    def read(path: Path, rows: int, numbers: int) -> Tensor | None:
        """The rows in a file that another process has made; ``None`` on another machine, where there is no such file."""
        try:
            if path.stat().st_size != 4 * rows * numbers:
                return None
            found = torch.from_file(str(path), shared=True, size=rows * numbers, dtype=torch.float32)
        except (OSError, RuntimeError):
            return None
        return found.view(rows, numbers)

    def put(self, tensors: Sequence[Tensor]) -> None:
        """Put the own numbers down."""
        for tensor, part in self._parts(tensors, self.own):
            part.copy_(tensor)

    def add(self) -> None:
        """Add up all rows over the own columns, the first process's first."""
        torch.sum(self._columns, 0, out=self._sums_of_part)

    def take(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums in the places of the tensors; who clips gradients changes them, and nobody else's."""
        for tensor, part in self._parts(tensors, self.sums):
            tensor.copy_(part)

    def _parts(self, tensors: Sequence[Tensor], row: Tensor) -> list[tuple[Tensor, Tensor]]:
        parts = row.split([tensor.numel() for tensor in tensors])
        return [(tensor, part.view_as(tensor)) for tensor, part in zip(tensors, parts, strict=True)]
