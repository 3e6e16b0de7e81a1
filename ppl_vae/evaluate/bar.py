"""The progress bar of an evaluation that takes long."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Advance", "progress_bar", "silent"]

Advance = Callable[[int], None]
PATIENCE = 2.0  # seconds that a reader waits without asking what goes on


def silent(rows: int) -> None:
    """Say nothing."""


@contextlib.contextmanager
def progress_bar(name: str, total: int, *, shown: bool) -> Iterator[Advance]:
    """A function that counts what is done of ``total``: as a bar on standard error, where that is a terminal, after 2 seconds.

    Args:
        name: what stands before the bar.
        total: what is counted to.
        shown: whether there may be a bar at all.
    """
    if not shown or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True), transient=True)
    bar = bars.add_task(name, total=total)
    begin = time.monotonic()

    def advance(done: int) -> None:
        bars.advance(bar, done)
        if not bars.live.is_started and time.monotonic() - begin > PATIENCE:
            bars.start()

    try:
        yield advance
    finally:
        bars.stop()
