"""Files in memory, which all processes of one machine see."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["make", "read"]

FOLDER = Path("/dev/shm")  # of Linux


def make(rows: int, numbers: int) -> Path | None:
    """A new file of zeros that has room for so many rows; ``None`` where there is none, as in containers with little of it."""
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


def read(path: Path, rows: int, numbers: int) -> Tensor | None:
    """The rows in a file that another process has made; ``None`` on another machine, where there is no such file."""
    try:
        if path.stat().st_size != 4 * rows * numbers:
            return None
        found = torch.from_file(str(path), shared=True, size=rows * numbers, dtype=torch.float32)
    except (OSError, RuntimeError):
        return None
    return found.view(rows, numbers)
