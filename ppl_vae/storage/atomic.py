"""Files that appear on the disk whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["hidden_sibling", "replaced", "sync", "write_json", "write_tensors", "write_text"]


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of ``path`` once it lies on the disk.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    partial = hidden_sibling(path, "partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise OSError(f"{path} could not be written ({reason}); what was there before is untouched") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """A JSON file for people to read, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach()) for name, tensor in tensors.items()}
    with replaced(path) as partial:
        try:
            save_file(plain, partial, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from None


def hidden_sibling(path: Path, what: str) -> Path:
    """A name in the same folder that nobody can know before, so that no link to elsewhere lies there."""
    return path.with_name(f".{path.name}.{what}-{secrets.token_hex(8)}")


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, lies on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # which has no such call for folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
