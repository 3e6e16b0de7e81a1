"""The processes that work on one fit together, as torch.distributed knows them; a lone process is the case of one.

A sum over rows is the sum over processes of what each finds for its part of them: who adds such numbers up with ``sum_`` runs
the same code in one process, where nothing is left to be added.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import hashlib
import os
import pickle
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, distributed

from ppl_vae.launched import LostProcessError, launched
from ppl_vae.program import common_memory
from ppl_vae.text import as_line

__all__ = ["LostProcessError", "Processes", "alone", "by_first", "current", "first_to_say", "joined"]

LARGE = 2**16  # numbers of a tensor from which a message of its own costs less than a copy into another's

P = ParamSpec("P")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Processes:
    """The group that this process is one of, by default a group of its own.

    Args:
        rank: which one of them this is, from 0.
        count: of processes.

    Examples:
        >>> Processes().part(5)
        slice(0, 5, None)
        >>> [Processes(rank, 2).part(5) for rank in range(2)]
        [slice(0, 2, None), slice(2, 5, None)]
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and tells for all."""
        return self.rank == 0

    def part(self, rows: int) -> slice:
        """Which of so many rows are this process's: each is in one part only, and parts differ by one row at most."""
        return slice(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes in the place of each tensor, the same bits in every process.

        Args:
            tensors: of the same shapes, strides and order in every process. Large ones are summed where they lie, the others of
                a type in one message.

        Raises:
            LostProcessError: another process is gone.
        """
        for group in self._by_type(tensors):
            large = [tensor.detach() for tensor in group if _is_large(tensor)]
            small = [tensor.detach() for tensor in group if not _is_large(tensor)]
            flat = [torch.cat([tensor.flatten() for tensor in small])] if small else []
            with self._together():
                for sent in [distributed.all_reduce(message, async_op=True) for message in large + flat]:
                    sent.wait()
            for message in flat:
                _put(small, message)

    def wait(self) -> None:
        """Go on when all processes have come here; what each has written into common memory the others see then.

        Raises:
            LostProcessError: another process is gone.
        """
        if self.count > 1:
            with self._together():
                distributed.barrier()

    def common_memory(self, rows: int, numbers: int) -> Tensor | None:
        """Zeros ``(rows, numbers)`` of float32 in memory that all processes see.

        Returns:
            ``None`` where they are on several machines, or where this one has no room.

        Raises:
            LostProcessError: another process is gone.
        """
        made: list[Path | None] = [common_memory.make(rows, numbers) if self.first else None]
        with self._together():
            distributed.broadcast_object_list(made, src=0)
        found = None if made[0] is None else common_memory.read(made[0], rows, numbers)
        lacking = torch.tensor(int(found is None))
        self.sum_([lacking])
        if self.first and made[0] is not None:
            made[0].unlink()  # it is there for as long as a process has it open
        return None if lacking else found

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Put what the first process has in the place of each tensor.

        Args:
            tensors: of the same shapes and in the same order in every process.

        Raises:
            LostProcessError: another process is gone.
        """
        for group in self._by_type(tensors):
            flat = torch.cat([tensor.detach().flatten() for tensor in group])
            with self._together():
                distributed.broadcast(flat, src=0)
            _put(group, flat)

    def same(self, value: object, what: str) -> None:
        """Raise in every process if the value is not the same in all, as far as its ``repr`` tells.

        Raises:
            ValueError: some processes have another value.
            LostProcessError: another process is gone.
        """
        if self.count == 1:
            return
        found: list[str] = [""] * self.count
        with self._together():
            distributed.all_gather_object(found, repr(value))
        for rank, other in enumerate(found):
            if other != found[0]:
                raise ValueError(
                    f"expected {what} to be the same in all {self.count} processes, got {as_line(found[0])} in process 0 and "
                    f"{as_line(other)} in process {rank}: start all of them alike"
                )

    def same_tensors(self, named: Mapping[str, Tensor], what: str) -> None:
        """Raise in every process if a tensor has not the same bits in all.

        Args:
            named: of the same shapes and in the same order in every process.
            what: they are, for the message.

        Raises:
            ValueError: some are not the same; the message names the first.
            LostProcessError: another process is gone.
        """
        if self.count == 1 or not named:
            return
        ours = torch.stack([_digest(tensor) for tensor in named.values()])
        first = ours.clone()
        self.broadcast_([first])
        differ = (ours != first).long()
        self.sum_([differ])
        names = [name for name, number in zip(named, differ.tolist(), strict=True) if number]
        if names:
            raise ValueError(f"{what} expected the same numbers in all {self.count} processes, got others in {names[0]}")

    def from_first(self, work: Callable[[], R]) -> R:
        """What the first process finds, in every process: it alone does the work, and for itself.

        Raises:
            LostProcessError: another process is gone.
            BaseException: what the work raises, in every process.
        """
        if self.count == 1:
            return work()
        told: list[Any] = [None, None]
        failed: BaseException | None = None
        if self.first:
            try:
                with alone():
                    told = [work(), None]
            except (Exception, KeyboardInterrupt) as error:
                failed, told = error, [None, _sendable(error)]
        with self._together():
            distributed.broadcast_object_list(told, src=0)
        if failed is not None or told[1] is not None:
            raise failed or told[1]
        found: R = told[0]
        return found

    def _by_type(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """The tensors of one type and device together, none for a lone process."""
        if self.count == 1:
            return []
        kinds = {(tensor.device, tensor.dtype): None for tensor in tensors}
        return [[tensor for tensor in tensors if (tensor.device, tensor.dtype) == kind] for kind in kinds]

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise LostProcessError(
                f"process {self.rank} of {self.count} lost the others ({as_line(str(error).splitlines()[0])}): all of them end "
                "here; start them again, with resume where there is a run folder"
            ) from error


def _is_large(tensor: Tensor) -> bool:
    return tensor.numel() >= LARGE and tensor.is_contiguous()


def _put(tensors: Sequence[Tensor], flat: Tensor) -> None:
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.detach().copy_(part.view_as(tensor))


def _sendable(error: BaseException) -> BaseException:
    """The error, or one of its words where other processes cannot be sent it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(as_line(str(error)))
    return error


def _digest(tensor: Tensor) -> Tensor:
    """A number ``()`` that hangs on all bits of a tensor and on their places."""
    bits = tensor.detach().contiguous().flatten().view(torch.uint8)
    return torch.tensor(zlib.crc32(bits.cpu().numpy().data))


_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """What is computed here is computed by this process for itself, such as a picture that the first process draws."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def current() -> Processes:
    """Those of torch.distributed's default group, or the lone process where there is none."""
    if _ALONE.get() or not (distributed.is_available() and distributed.is_initialized()):
        return Processes()
    return Processes(distributed.get_rank(), distributed.get_world_size())


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started, as a group for as long as this lasts: gloo on CPUs, NCCL on CUDA.

    Each process takes the CUDA device of its number on its machine, where there are so many. A group that is there already is
    taken and left as it is.

    Raises:
        LostProcessError: the others did not come.
    """
    if launched() == 1 or distributed.is_initialized():
        yield current()
        return
    local, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if devices:
        torch.cuda.set_device(local % devices)
    apart = 0 < int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= devices  # NCCL refuses two processes on one device
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if apart else "gloo")
    except RuntimeError as error:  # one that did not come is told as a timeout
        raise LostProcessError(f"the {launched()} processes did not meet: {as_line(str(error).splitlines()[0])}") from error
    try:
        yield current()
    finally:
        distributed.destroy_process_group()
        gc.collect()  # a group that something still holds, in a circle, would end as Python does, and abort


def first_to_say(message: str, *, only: bool = False) -> bool:
    """Whether no other process of the group has asked for this message before: what all have to say is said once.

    Args:
        message: what is to be said.
        only: whether it is only worth saying where nobody has said anything.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return True
    store = distributed.distributed_c10d._get_default_store()
    try:
        of_it, of_all = (store.add(f"ppl_vae/{name}", 1) for name in (hashlib.sha256(message.encode()).hexdigest(), "said"))
    except RuntimeError:  # nobody is there to ask
        return True
    return bool((of_all if only else of_it) == 1)


def by_first(work: Callable[P, R]) -> Callable[P, R]:
    """A function that the first process alone runs, as what writes; all get what it returns or raises."""

    @functools.wraps(work)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        return current().from_first(lambda: work(*arguments, **named))

    return run
