"""Signals that cannot wait: Python hears of one at the end of what torch does, which may take minutes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

__all__ = ["Interrupted", "ending_at_second", "waiting"]

PATIENCE = 2.0  # seconds that a step may take to end before somebody who asked for it is told
GRACE = 0.5  # seconds in which a second signal may end it the gentle way
WAITING = "ppl-vae: note: it stops at the end of this step, which takes a while; a second signal ends it at once\n"


class Interrupted(KeyboardInterrupt):
    """A signal ended the fit after a whole step, and its state was kept.

    Args:
        folder: where.
        number: of the signal.

    Attributes:
        code: the exit status that shells expect.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.code = 128 + number
        self._name = signal.Signals(number).name
        super().__init__()
        self.go_on(f"ppl-vae fit --resume {shlex.quote(str(folder))}")

    def go_on(self, way: str) -> None:
        """Say how to go on."""
        self.args = (f"stopped by {self._name}; the state is kept, go on with: {way}",)


@contextlib.contextmanager
def waiting(ask: Callable[[int], None]) -> Iterator[None]:
    """SIGTERM and SIGINT only ask, by their number, in the main thread; a second one acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def hear(number: int, frame: FrameType | None) -> None:
        ask(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, hear)
    try:
        with ending_at_second(list(before)):
            yield
    finally:
        restore()


@contextlib.contextmanager
def ending_at_second(numbers: list[int]) -> Iterator[None]:
    """A context that a second signal of these numbers ends with its process, even from the middle of a long operation.

    The first is left to its handler. Where another already listens to signals as they come, as an event loop does, it stays so.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
    over = threading.Event()
    threading.Thread(target=_count_signals, args=(reader, numbers, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if before == -1:
            signal.set_wakeup_fd(-1)
        writer.close()


def _count_signals(reader: socket.socket, numbers: list[int], over: threading.Event) -> None:
    """Read the numbers of signals as they arrive, which the interpreter writes at once."""
    heard = 0
    with reader:
        while received := reader.recv(16):
            for number in (number for number in received if number in numbers):
                heard += 1
                threading.Thread(target=_end_if_late, args=(heard, number, over), daemon=True).start()


def _end_if_late(heard: int, number: int, over: threading.Event) -> None:
    """If the first signal, or a second, is not followed soon: say so, or end the process."""
    if over.wait(PATIENCE if heard == 1 else GRACE):
        return
    if heard == 1:
        os.write(2, WAITING.encode())
    else:
        os._exit(128 + number)
