"""Rows of files that are larger than memory: memory-mapped, and read where and when they are asked for."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.arrays import arranged, as_tensor

__all__ = ["Mapped", "Stream", "budget"]

MIB = 2**20
PIECE = MIB
"""Bytes of a file that are converted at once: what a conversion needs besides its result."""


class Mapped(Protocol):
    """Rows that lie in files and are read when they are asked for, as those of a memory-mapped array are."""

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, *event)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


def budget(mib: int) -> int:
    """The bytes that rows which are loaded together may take, as a source declares them."""
    return mib * MIB


class Stream:
    """Rows of memory-mapped arrays, in the place of the tensor ``(N, *event)`` that they would be in memory.

    It has a shape, a dtype, a device and rows to choose from, as a tensor has; :meth:`read` and :meth:`tensor` load them.

    Args:
        shards: arrays, or what lies in files as such, of one dtype whose rows have one shape, to follow one another.
        name: the source, for messages.
        mib: MiB that rows which are loaded together may take.
        missing: whether NaN may stand for a missing entry.

    Raises:
        ValueError: no rows, or no numbers.

    Examples:
        >>> stream = Stream([np.zeros((3, 28, 28), np.uint8), np.ones((2, 28, 28), np.uint8)], "two files", mib=1)
        >>> stream.shape, stream[2:4].tensor().amax(dim=(1, 2, 3))
        (torch.Size([5, 1, 28, 28]), tensor([0, 1], dtype=torch.uint8))
    """

    def __init__(self, shards: Sequence[np.ndarray | Mapped], name: str, *, mib: int, missing: bool = False) -> None:
        self.starts = np.cumsum([0, *(len(shard) for shard in shards)])
        if self.starts[-1] == 0:
            raise ValueError(f"{name}: expected at least one row of at least one value, got none")
        first = shards[0]
        self.shards = shards
        self.name = name
        self.mib = mib
        self.missing = missing
        self.two_valued = False
        self.functions: tuple[Callable[[Tensor], Tensor], ...] = ()
        self.rows = torch.arange(int(self.starts[-1]))
        self.device = torch.device("cpu")
        datum = as_tensor(np.zeros((1, *first.shape[1:]), first.dtype), name)
        self.event_shape = datum.shape[1:]
        self.dtype = datum.dtype
        self.piece = max(1, PIECE // (math.prod(first.shape[1:]) * first.dtype.itemsize))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | Tensor) -> Stream:
        """The chosen rows, not loaded yet: a slice, or a tensor of indices or booleans."""
        return self._with(rows=self.rows[rows.cpu() if isinstance(rows, Tensor) else rows])

    @property
    def shape(self) -> torch.Size:
        """The shape of these rows as a tensor, ``(N, *event)``."""
        return torch.Size((len(self), *self.event_shape))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Stream:
        """The same rows, to be loaded to another device, or as numbers of another dtype."""
        device = self.device if device is None else torch.device(device)
        return self._with(device=device, dtype=dtype or self.dtype)

    def black_and_white(self) -> Stream:
        """The same rows, whose values above 0 are read as 1."""
        return self._with(two_valued=True, dtype=torch.uint8)

    def as_read(self) -> Stream:
        """The same rows with the values that the files have."""
        return self._with(two_valued=False)

    def mapped(self, function: Callable[[Tensor], Tensor], event_shape: Sequence[int] | None = None) -> Stream:
        """The same rows, each as the function of rows ``(n, *event)`` has it, which is asked as they are read.

        Args:
            function: of rows as they lie in the files.
            event_shape: what it gives, if that is not the shape that they have.
        """
        shape = self.event_shape if event_shape is None else torch.Size(event_shape)
        return self._with(functions=(*self.functions, function), event_shape=shape)

    def chosen(self, columns: Sequence[int]) -> Stream:
        """The same rows with these columns ``(N, len(columns))``, in this order."""
        places = list(columns)
        return self.mapped(lambda x: x[:, places], (len(places),))

    @property
    def at_once(self) -> int:
        """How many rows may be loaded together."""
        return max(1, budget(self.mib) // (self.event_shape.numel() * self.dtype.itemsize))

    def fits(self) -> bool:
        """Whether all of these rows may be loaded together."""
        return len(self) <= self.at_once

    def tensor(self) -> Tensor:
        """All rows on the device.

        Raises:
            ValueError: they do not fit.
        """
        if not self.fits():
            raise ValueError(
                f"{self.name}: expected at most {self.at_once} rows to load at once ({self.mib} MiB), got {len(self)}: take "
                "fewer, walk them by batches or blocks, or load the data with a larger stream="
            )
        return self._filled(self._empty(len(self)), torch.arange(len(self))).to(self.device)

    def split(self, size: int) -> Iterator[Tensor]:
        """The rows in their order on the device, at most ``size`` at once, checked as data in memory are."""
        size = min(size, self.piece)
        for rows in self.rows.split(size) if len(self) else ():
            where = f"{self.name}, rows {int(rows[0])} to {int(rows[-1])}"
            yield self._coded(as_tensor(self._taken(rows.numpy()), where, missing=self.missing)).to(self.device)

    def read(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The rows at these positions, block by block on the device; a thread reads the next block while one is in use.

        The thread touches files and host memory only, so that it cannot disturb a graph that is being captured on the device.
        An error of the thread is raised here; it ends with the iterator.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="ppl_vae-read")
        ahead: deque[Future[Tensor]] = deque()
        try:
            for positions in blocks:
                ahead.append(thread.submit(self._filled, self._empty(len(positions)), positions))
                if len(ahead) == 2:
                    yield ahead.popleft().result().to(self.device, non_blocking=True)
            while ahead:
                yield ahead.popleft().result().to(self.device, non_blocking=True)
        finally:
            thread.shutdown(cancel_futures=True)

    def _with(self, **fields: object) -> Stream:
        other = copy.copy(self)
        vars(other).update(fields)
        return other

    def _empty(self, rows: int) -> Tensor:
        # Only from page-locked memory can a copy to a CUDA device run beside the program.
        return torch.empty((rows, *self.event_shape), dtype=self.dtype, pin_memory=self.device.type == "cuda")

    def _filled(self, out: Tensor, positions: Tensor) -> Tensor:
        """The host tensor ``out`` with the rows at these positions in it."""
        pairs = zip(out.split(self.piece), self.rows[positions].split(self.piece), strict=True)
        for part, rows in pairs if len(positions) else ():
            part.copy_(self._coded(arranged(self._taken(rows.numpy()))))
        return out

    def _taken(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the files, in any order, as they lie there."""
        places = np.searchsorted(self.starts, rows, side="right") - 1
        first = self.shards[0]
        taken = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for place in np.unique(places):
            here = places == place
            taken[here] = self.shards[place][rows[here] - self.starts[place]]
        return taken

    def _coded(self, x: Tensor) -> Tensor:
        for function in self.functions:
            x = function(x)
        return (x > 0 if self.two_valued else x).to(self.dtype)
