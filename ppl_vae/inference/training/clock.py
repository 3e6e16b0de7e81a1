"""The time that a method has worked, and how far it is."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

from ppl_vae.types import Record, Report

__all__ = ["Steps", "Stopwatch"]


@runtime_checkable
class Steps(Protocol):
    """A report that is also told how far an iteration is before there is a row of it."""

    def step(self, taken: int, of: int, seconds: float) -> None:
        """So many of the steps of the iteration in progress are taken; the fit took so many seconds until now."""


class Stopwatch:
    """Seconds that a method has worked since it began; it stands still while a row is reported.

    Args:
        report: what rows are passed on to.
        already: seconds worked before, of a fit that goes on.
    """

    def __init__(self, report: Report, already: float = 0.0) -> None:
        self._report = report
        self._listens = report if isinstance(report, Steps) else None
        self._began = time.perf_counter() - already

    @property
    def seconds(self) -> float:
        """Seconds worked so far."""
        return time.perf_counter() - self._began

    def step(self, taken: int, of: int) -> None:
        """Tell how far the iteration in progress is, if that is listened to."""
        if self._listens is not None:
            self._listens.step(taken, of, self.seconds)

    def report(self, row: Record) -> None:
        """Pass a row on, off the clock."""
        stopped = time.perf_counter()
        self._report(row)
        self._began += time.perf_counter() - stopped
