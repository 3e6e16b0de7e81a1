"""The progress bar of a fit."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ppl_vae.inference.method import Method, Report, Row
from ppl_vae.types import SCORES, score_of

__all__ = ["Progress", "progress_bar", "quiet"]

Progress = Callable[[Row], Any]


def quiet(row: Row) -> None:
    """Say nothing of the progress."""


@contextlib.contextmanager
def progress_bar(method: Method, progress: Progress | None, done: int = 0) -> Iterator[Report]:
    """What a method reports its rows to: ``progress``, or a bar on standard error where that is a terminal.

    Args:
        method: how many rows there will be.
        progress: called with each row.
        done: rows of a fit that goes on.
    """
    if progress is not None or not sys.stderr.isatty():
        yield progress or quiet
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn(type(method).__name__), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with RichProgress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        bar = bars.add_task("starting", total=method.iterations, completed=done)

        def report(row: Row) -> None:
            bars.update(bar, advance=1, description=_summary(row))

        yield report


def _summary(row: Row) -> str:
    score = score_of(row)
    held_out = "valid_" if f"valid_{score}" in row else ""
    label = SCORES[score].partition(":")[0]
    return "  ".join(
        f"{name} {row[held_out + key]:.2f}" for name, key in ((label, score), ("KL", "kl")) if held_out + key in row
    )
