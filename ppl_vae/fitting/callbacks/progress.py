"""The progress bar of a fit, and a word about its length where there is no bar."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.training.clock import Steps
from ppl_vae.program.pair import Pair
from ppl_vae.types import FitWarning, Record, Report, Score, score_of

__all__ = ["Progress", "fit_progress", "passing_steps_to", "quiet"]

Progress = Callable[[Record], Any]
LONG = 30.0  # seconds of an iteration that is not over, after which its length is told
MOMENT = 0.1  # seconds between two looks of a bar at the steps


def quiet(row: Record) -> None:
    """Say nothing of the progress."""


@contextlib.contextmanager
def fit_progress(method: Method, progress: Progress | None, pair: Pair, done: int = 0) -> Iterator[Report]:
    """What a method reports its rows to: ``progress``, or a bar on standard error where that is a terminal.

    The bar also tells how far an iteration is. Where there is none, a remark tells of a first iteration that takes long.

    Args:
        method: how many rows there will be.
        progress: called with each row.
        pair: whose score the rows tell.
        done: rows of a fit that goes on.
    """
    if progress is not None or not sys.stderr.isatty():
        yield progress or _Length(method, done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn(type(method).__name__), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with RichProgress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        yield _Bar(bars, bars.add_task("starting", total=method.iterations, completed=done), done, pair)


def passing_steps_to(report: Report, tell: Report) -> Report:
    """``tell``, which passes rows on to ``report``, made to pass steps on as well, if that listens to them."""
    return _Passing(tell, report) if isinstance(report, Steps) else tell


class _Passing:
    """Rows to one, steps to another."""

    def __init__(self, tell: Report, listener: Steps) -> None:
        self._tell, self.step = tell, listener.step

    def __call__(self, row: Record) -> None:
        self._tell(row)


class _Bar:
    """Rows and steps on a terminal."""

    def __init__(self, bars: Any, bar: Any, done: int, pair: Pair) -> None:
        self.bars, self.bar, self.done, self.pair = bars, bar, done, pair
        self.looked = self.began = time.monotonic()

    def __call__(self, row: Record) -> None:
        self.done += 1
        self.began = time.monotonic()
        self.bars.update(self.bar, completed=self.done, description=_summary(row, score_of(row, self.pair.score)))

    def step(self, taken: int, of: int, seconds: float) -> None:
        """Move on by a part of an iteration; of a long one tell how long a step takes."""
        now = time.monotonic()
        if now - self.looked < MOMENT:
            return
        self.looked = now
        self.bars.update(self.bar, completed=self.done + taken / of)
        if now - self.began > 1:
            self.bars.update(self.bar, description=f"step {taken} of {of}, {_time((now - self.began) / taken)} each")


class _Length:
    """Tells, once, how long a fit will take whose first iteration takes long."""

    def __init__(self, method: Method, done: int) -> None:
        self.left = method.iterations - done
        self.began = time.monotonic()
        self.told = False

    def __call__(self, row: Record) -> None:
        self.told = True

    def step(self, taken: int, of: int, seconds: float) -> None:
        """Say it if it is time."""
        passed = time.monotonic() - self.began
        if not self.told and passed > LONG:
            self.told = True
            step = passed / taken
            warnings.warn(
                f"{taken} of the {of} steps of an epoch took {_time(passed)}, {_time(step)} each: an epoch takes about "
                f"{_time(step * of)}, and the {self.left} epochs {_time(step * of * self.left)}",
                FitWarning,
                stacklevel=2,
            )


def _time(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, size, most in (("ms", 1e-3, 1.0), ("s", 1.0, 100.0), ("min", 60.0, 6000.0), ("h", 3600.0, 2e5)):
        if seconds < most:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"


def _summary(row: Record, score: Score) -> str:
    held_out = "valid_" if f"valid_{score.name}" in row else ""
    shown = ((score.label, score.name), ("KL", "kl"))
    return "  ".join(f"{label} {row[held_out + key]:.2f}" for label, key in shown if held_out + key in row)
