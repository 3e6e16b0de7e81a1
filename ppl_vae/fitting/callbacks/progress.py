"""The progress bar of a fit, and a word about its length where there is no bar."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from ppl_vae.fitting.callbacks.base import Callback, FitContext
from ppl_vae.program import compiling
from ppl_vae.types import FitWarning, Record, Score, score_of

__all__ = ["DurationMonitor", "Progress", "ProgressBar", "ProgressFunction", "progress_callback", "quiet"]

Progress = Callable[[Record], Any]
LONG = 30.0  # seconds of an iteration that is not over, after which its length is told
MOMENT = 0.1  # seconds between two looks of a bar at the steps


def quiet(row: Record) -> None:
    """Say nothing of the progress."""


def progress_callback(progress: Progress | None) -> Callback:
    """What a fit shows of its progress by: ``progress``, else a bar on standard error where that is a terminal.

    Where there is neither, a remark tells of a first iteration that takes long.

    Args:
        progress: called with each row.
    """
    if progress is not None:
        return ProgressFunction(progress)
    return ProgressBar() if sys.stderr.isatty() else DurationMonitor()


class ProgressFunction(Callback):
    """Calls a function with each row.

    Args:
        function: what is called.
    """

    def __init__(self, function: Progress) -> None:
        self._function = function

    def record(self, row: Record) -> None:
        """Call it."""
        self._function(row)


class ProgressBar(Callback):
    """A bar on standard error that moves with rows and steps."""

    def begin(self, context: FitContext) -> None:
        """Show it."""
        self._pair = context.pair  # whose score is known from its first batch on
        self._bars = _rich_progress(type(context.method).__name__)
        self._done = context.done
        self._bar = self._bars.add_task("starting", total=context.method.iterations, completed=self._done)
        self._updated = time.monotonic()
        self._pace = Pace()
        self._bars.start()

    def record(self, row: Record) -> None:
        """Move on by a row, and say what it reached."""
        self._done += 1
        self._pace = Pace()
        self._bars.update(self._bar, completed=self._done, description=_summary(row, score_of(row, self._pair.score)))

    def step(self, taken: int, of: int, seconds: float) -> None:
        """Move on by a part of an iteration; of a long one tell how long a step takes."""
        self._pace.heard(taken)
        now = time.monotonic()
        if now - self._updated < MOMENT:
            return
        self._updated = now
        self._bars.update(self._bar, completed=self._done + taken / of)
        if self._pace.passed > 1:
            self._bars.update(self._bar, description=f"step {taken} of {of}, {_time(self._pace.of_a_step)} each")

    def end(self, error: BaseException | None = None) -> None:
        """Leave the terminal as it was."""
        self._bars.stop()


class Pace:
    """How long a step of an iteration takes, without what is compiled in between, and the slowest one left out.

    Attributes:
        steps: how many are counted.
        passed: the seconds that these took.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.passed = 0.0
        self._slowest = 0.0
        self._began = self._last = self._now

    def heard(self, taken: int) -> None:
        """So many steps of the iteration are over."""
        now = self._now
        self._slowest = max(self._slowest, now - self._last)
        self._last = now
        self.steps = taken - 1
        self.passed = now - self._began - self._slowest if self.steps else 0.0

    @property
    def _now(self) -> float:
        return time.monotonic() - compiling.spent()

    @property
    def of_a_step(self) -> float:
        """Seconds."""
        return self.passed / max(1, self.steps)


class DurationMonitor(Callback):
    """Tells, once, how long a fit will take whose first iteration takes long."""

    def begin(self, context: FitContext) -> None:
        """Start the clock."""
        self._left = context.method.iterations - context.done
        self._pace = Pace()
        self._over = False

    def record(self, row: Record) -> None:
        """An iteration is over, and was short enough."""
        self._over = True

    def step(self, taken: int, of: int, seconds: float) -> None:
        """Say it if it is time."""
        self._pace.heard(taken)
        if not self._over and self._pace.passed > LONG:
            self._over = True
            steps, passed, step = self._pace.steps, self._pace.passed, self._pace.of_a_step
            remark = f"{steps} of the {of} steps of an epoch took {_time(passed)}, {_time(step)} each: an epoch takes about "
            all_of_them = f", and the {self._left} epochs {_time(step * of * self._left)}" if self._left > 1 else ""
            warnings.warn(f"{remark}{_time(step * of)}{all_of_them}", FitWarning, stacklevel=2)


def _rich_progress(name: str) -> Any:
    """A bar of rich under a name, not shown yet."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    return RichProgress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))


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
