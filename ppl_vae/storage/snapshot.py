"""A snapshot of a fit that goes on: tensors, plain values and the history so far, in one file that is always whole.

In memory it is what its method made of it, a frozen record of named fields (:mod:`~ppl_vae.storage.records`). Here it is
flattened once, as it is written, and made a record again once, as it is taken over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ppl_vae.memory import require_memory
from ppl_vae.storage.atomic import write_tensors
from ppl_vae.storage.before import of_format_0
from ppl_vae.storage.records import flatten, unflatten
from ppl_vae.text import as_line, from_json, inside
from ppl_vae.types import Record

__all__ = ["Snapshot", "read_snapshot", "restoring", "write_snapshot"]

FORMAT = 1  # of this file; those of no format are older, and are read
SPREAD = 16  # elements of memory for each that a tensor has: a layout with gaps has a few, a made-up one any number
STRANGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # what odd values end in

R = TypeVar("R")


class Snapshot(NamedTuple):
    """All that a method needs to go on to the same bits, flat as a file holds it.

    Attributes:
        tensors: by name; those of the pair and of the data's transform are called as in ``model.safetensors``.
        metadata: plain values, by name; ``seconds`` is always one.
        history: the rows told so far.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    history: list[Record]

    @classmethod
    def of(cls, record: Any, history: list[Record]) -> Self:
        """The fields of a method's state, a frozen record with a field ``seconds``; tensors are not copied."""
        return cls(*flatten(record), history)

    @property
    def seconds(self) -> float:
        """That the method had worked."""
        return float(self.metadata["seconds"])

    def record(self, kind: type[R]) -> R:
        """The state that :meth:`of` was given, a record of this class.

        Raises:
            LookupError, TypeError, ValueError: the snapshot is none of such a record.
        """
        return unflatten(kind, self.tensors, self.metadata)


def write_snapshot(snapshot: Snapshot, path: Path) -> None:
    """Put a snapshot in the place of the one before, which stays until the new one is whole.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    strides = {name: tensor.stride() for name, tensor in snapshot.tensors.items() if not tensor.is_contiguous()}
    header = {"facts": snapshot.metadata, "history": snapshot.history, "strides": strides, "format": FORMAT}
    write_tensors(snapshot.tensors, path, {name: json.dumps(value) for name, value in header.items()})


def read_snapshot(path: Path) -> Snapshot:
    """A snapshot as it was written; nothing outside of its folder is read.

    Raises:
        ValueError: a damaged file, more than fits into memory, or a link that leads out of the folder.
    """
    path = inside(path.parent, path.name)
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is no training state: expected a file")
    require_memory(path.stat().st_size, str(path))
    try:
        with safe_open(path, "pt") as file:
            header = {key: from_json(value) for key, value in file.metadata().items()}
            metadata, history, strides = header["facts"], header["history"], header["strides"]
            plain = all(isinstance(value, dict) for value in (metadata, strides, *history)) and isinstance(history, list)
            if not (plain and metadata["seconds"] >= 0):
                raise ValueError("expected facts, strides and rows of the history by name")
            tensors = {key: _with_strides(file.get_tensor(key), strides.get(key)) for key in file.keys()}  # noqa: SIM118
            if "format" not in header:
                tensors, metadata = of_format_0(tensors, metadata)
            elif header["format"] != FORMAT:
                raise ValueError(f"expected format {FORMAT}, got {header['format']}: a newer ppl_vae wrote it, update this one")
        return Snapshot(tensors, metadata, history)
    except (MemoryError, OSError, SafetensorError, *STRANGE) as error:
        raise ValueError(f"{path} is no training state: {type(error).__name__} {as_line(error)}") from None


@contextlib.contextmanager
def restoring(snapshot: Snapshot | None) -> Iterator[None]:
    """While a method takes over a snapshot: one that does not fit it is told as such, whatever it fails by.

    Raises:
        ValueError: the snapshot holds something else than the method wrote.
    """
    try:
        yield
    except STRANGE as error:
        if snapshot is None:
            raise
        reason = f"{type(error).__name__} {as_line(error)}"
        raise ValueError(
            f"the training state does not fit the run that it lies in ({reason}): fit again (--overwrite)"
        ) from None


def _with_strides(tensor: Tensor, strides: list[int] | None) -> Tensor:
    """A copy in torch's own, aligned memory with the strides that it had: the order of sums hangs on them."""
    if strides is None:
        return tensor.clone()
    once = tensor[tuple(slice(None) if stride else slice(0, 1) for stride in strides)]
    reach = sum((size - 1) * stride for size, stride in zip(once.shape, strides, strict=True))
    if min(strides) < 0 or reach > SPREAD * once.numel():
        raise ValueError(f"expected strides that fit the shape {tuple(tensor.shape)}, got {strides}")
    return torch.empty_strided(once.shape, strides, dtype=tensor.dtype).copy_(once).expand(tensor.shape)
