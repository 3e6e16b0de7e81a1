"""A fit of several processes: what the first of them alone does, keeps and tells, and what all agree about."""

from __future__ import annotations

import contextlib
import re
import signal
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any, Self

import torch
from torch import Tensor, distributed

from ppl_vae.data import Data
from ppl_vae.data.fingerprint import fingerprint
from ppl_vae.declaration import Declaration
from ppl_vae.fitting.callbacks.base import Callback, CallbackList, FitContext
from ppl_vae.program.processes import Processes
from ppl_vae.program.randomness import put_random, random_state
from ppl_vae.storage import AnyCheckpointer, Interrupted, Snapshot
from ppl_vae.storage.signals import waiting
from ppl_vae.types import FitWarning, Record, Report

__all__ = ["SharedCallbacks", "SharedCheckpointer", "check_alike", "quiet_others", "shared"]

APART = 0.05  # seconds of work between two agreements about a snapshot: an agreement takes a thousandth of that
MOST_APART = 100  # steps
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def check_alike(processes: Processes, model: Any, guide: Any, method: Any, data: Data) -> None:
    """Raise ``ValueError`` in every process if they are about to fit different things, or cannot agree about it."""
    if processes.count == 1:
        return
    try:
        distributed.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
    except RuntimeError:
        raise ValueError(
            "expected a process group for numbers on the CPU too, got one for a device alone: begin it by "
            "init_process_group('cpu:gloo,cuda:nccl')"
        ) from None
    for name, declared in (("the model", model), ("the guide", guide), ("the method", method)):
        processes.same(_named(declared), name)
    processes.same((fingerprint(data.train), len(data.valid), len(data.test)), "the data")


def _named(declared: Any) -> str:
    """A declaration, or what a program is called, wherever in memory they are."""
    if isinstance(declared, Declaration):
        return re.sub(r" at 0x[0-9a-f]+", "", repr(declared))
    named = declared if isinstance(declared, FunctionType) else type(declared)
    return f"{named.__module__}.{named.__qualname__}"


@contextlib.contextmanager
def quiet_others(processes: Processes) -> Iterator[None]:
    """What all processes would remark is remarked by the first."""
    with warnings.catch_warnings():
        if not processes.first:
            warnings.simplefilter("ignore", FitWarning)
        yield


class SharedCallbacks(Callback):
    """What hears of a fit, in the first process; what is added to a row there stands in the rows of all.

    Args:
        callbacks: of the first process.
        processes: that fit.
    """

    def __init__(self, callbacks: CallbackList, processes: Processes) -> None:
        self.callbacks, self.processes = callbacks, processes
        self._device = torch.device("cpu")

    def begin(self, context: FitContext) -> None:
        """Let them meet the fit."""
        self._device = context.data.train.device
        self.processes.from_first(lambda: self.callbacks.begin(context))

    def step(self, taken: int, of: int, seconds: float) -> None:
        """Let them hear of a step."""
        if self.processes.first:
            self.callbacks.step(taken, of, seconds)

    def record(self, row: Record) -> None:
        """Let them hear of a row, whatever random numbers they draw."""
        row.update(self.processes.from_first(lambda: self._recorded(row)))

    def _recorded(self, row: Record) -> Record:
        states = random_state(self._device) if self.processes.count > 1 else None
        self.callbacks.record(row)
        if states is not None:
            put_random(states, self._device)
        return row

    def end(self, error: BaseException | None = None) -> None:
        """Let them end."""
        if self.processes.first:
            self.callbacks.end(error)

    @property
    def report(self) -> Report:
        """What a method calls with each row, and with steps where they are listened to."""
        return self.callbacks.report_to(self) if self.processes.first else self.record


class SharedCheckpointer:
    """What keeps a fit in the first process, as every process sees it; see :class:`~ppl_vae.storage.AnyCheckpointer`.

    All have the same state between two steps, so that the first alone writes it, and all go on from what it reads, however many
    they are. Whether it is to be kept now, or a signal asks to stop, they agree about every few steps.

    Args:
        own: of the first process; that of another is left alone.
        processes: that fit.

    Attributes:
        folder: where the fit is kept, if it is.
        restored: the snapshot to go on from.
        asked: the signal that all have agreed to stop by.
    """

    def __init__(self, own: AnyCheckpointer, processes: Processes) -> None:
        self.own, self.processes = own, processes
        self.folder: Path | None = None
        self.restored: Snapshot | None = None
        self.asked: int | None = None
        self._heard: int | None = None  # the signal that this process got
        self._steps, self._apart, self._since = 0, 1, time.monotonic()

    def __enter__(self) -> Self:
        def begin() -> tuple[Path | None, Snapshot | None]:
            self.own.__enter__()
            return self.own.folder, self.own.restored

        self.folder, self.restored = self.processes.from_first(begin)
        return self

    def __exit__(self, *error: object) -> None:
        if self.processes.first:
            self.own.__exit__(*error)

    def describe(
        self, files: Mapping[str, str], metadata: Mapping[str, Any], declared: Mapping[str, Any], defaults: Iterable[str] = ()
    ) -> None:
        """Be told what the fit is."""
        if self.folder is not None:
            self.processes.from_first(lambda: self.own.describe(files, metadata, declared, defaults))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """A context in which a signal to any process waits until all have ended a step."""
        if self.folder is None:
            yield
            return
        with waiting(self._ask):
            yield
        if self.asked or self._heard:
            raise Interrupted(self.folder, self.asked or self._heard or signal.SIGTERM)

    def _ask(self, number: int) -> None:
        self._heard = number

    def due(self) -> bool:
        """Whether a snapshot is to be kept now, alike in all processes."""
        if self.folder is None:
            return False
        self._steps += 1
        if self._steps < self._apart:
            return False
        passed = time.monotonic() - self._since
        own = self.processes.first and self.own.due()
        told = torch.tensor([passed, own, *(self._heard == number for number in SIGNALS)], dtype=torch.float64)
        self.processes.sum_([told])
        seconds, due, *heard = told.tolist()
        a_step = seconds / self.processes.count / self._steps
        self._apart = max(1, min(MOST_APART, int(APART / max(a_step, 1e-6))))
        self._steps, self._since = 0, time.monotonic()
        self.asked = next((number for number, times in zip(SIGNALS, heard, strict=True) if times), None)
        return bool(due or self.asked)

    def keep(self, snapshot: Snapshot) -> None:
        """Let the first process keep a snapshot.

        Raises:
            OSError: it cannot be written.
            Interrupted: a signal asked to stop.
        """
        if self.folder is None:
            return
        self.processes.from_first(lambda: self.own.keep(snapshot))
        if self.asked:
            raise Interrupted(self.folder, self.asked)

    def row(self, row: Record) -> None:
        """Let the first process take note of a row."""
        if self.processes.first:
            self.own.row(row)

    def finish(self, tensors: Mapping[str, Tensor], history: list[Record]) -> None:
        """Let the first process keep what came of the fit."""
        if self.folder is not None:
            self.processes.from_first(lambda: self.own.finish(tensors, history))


def shared(checkpointer: AnyCheckpointer, processes: Processes) -> AnyCheckpointer:
    """What keeps a fit; of several processes in the first one."""
    return checkpointer if processes.count == 1 else SharedCheckpointer(checkpointer, processes)
