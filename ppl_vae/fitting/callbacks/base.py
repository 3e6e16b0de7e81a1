"""What hears of a fit as it goes on: one class, whatever it does with what it hears."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ppl_vae.data import Data
from ppl_vae.guides import Guide
from ppl_vae.inference.methods.base import Method
from ppl_vae.models import Model
from ppl_vae.program.pair import Pair
from ppl_vae.text import as_line
from ppl_vae.types import Record, Report

__all__ = ["Callback", "CallbackList", "FitContext"]

PLAIN = (bool, int, float, str, list, dict, type(None))


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """What is fitted, and how.

    Attributes:
        pair: the built model and guide. A method that is ``live`` has written into them what a row tells before it is recorded.
        model, guide: what they were built from, declarations or plain Pyro programs.
        method: the declaration.
        data: the splits, as the model takes them and where the pair is.
        done: how many rows the history has already, of a fit that goes on.
    """

    pair: Pair
    model: Model | Callable[..., Any]
    guide: Guide | Callable[..., Any]
    method: Method
    data: Data
    done: int = 0


class Callback:
    """Hears of one fit as it goes on. Every hook does nothing unless a subclass says otherwise.

    The fit calls :meth:`begin` once, :meth:`step` after each step, :meth:`record` with each row of the history, off the clock,
    and :meth:`end` once, also of a fit that fails. Where hooks draw no random numbers from the global generators and leave the
    parameters alone, the fit comes to the same bits with and without them.

    What a hook raises ends the fit. A run folder can be resumed from the last state that was kept, as after any other end.

    Examples:
        >>> class Best(Callback):
        ...     def begin(self, context):
        ...         self.best = float("-inf")
        ...     def record(self, row):
        ...         self.best = row["best_elbo"] = max(self.best, row["elbo"])
        >>> fitted = fit(VAE(latent_dim=2), "digits", method=SVI(epochs=2), callbacks=[Best()])
        >>> fitted.history[-1]["best_elbo"] == max(row["elbo"] for row in fitted.history)
        True
    """

    def begin(self, context: FitContext) -> None:
        """Meet the fit, before its first step; whatever cannot be done for it is best refused here.

        Args:
            context: what is fitted, and how.
        """

    def step(self, taken: int, of: int, seconds: float) -> None:
        """Hear that an iteration is so far.

        Args:
            taken: how many of its steps are taken.
            of: how many it has.
            seconds: worked since the fit began.
        """

    def record(self, row: Record) -> None:
        """Hear of a row as soon as it is known.

        Args:
            row: its values by name, in nats per datum; what is added to it, plain values, stands in the history and its file.
        """

    def end(self, error: BaseException | None = None) -> None:
        """Close what was opened.

        Args:
            error: what ended the fit, if it did not come to its end.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end(error)


class CallbackList(Callback):
    """Several callbacks as one, called in their order and ended in the reverse of it.

    Args:
        callbacks: which.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = tuple(callbacks)
        self._hearing_steps = [each for each in self.callbacks if type(each).step is not Callback.step]
        self._begun = contextlib.ExitStack()

    def begin(self, context: FitContext) -> None:
        """Begin each; those that did are ended if a later one fails."""
        for callback in self.callbacks:
            callback.begin(context)
            self._begun.push(callback)

    def step(self, taken: int, of: int, seconds: float) -> None:
        """Pass it on to those that listen."""
        for callback in self._hearing_steps:
            callback.step(taken, of, seconds)

    def record(self, row: Record) -> None:
        """Pass the row on.

        Raises:
            ValueError: one added to it what is no plain value.
        """
        for callback in self.callbacks:
            before = len(row)
            callback.record(row)
            if len(row) > before:
                _check_plain(callback, row)

    def end(self, error: BaseException | None = None) -> None:
        """End those that have begun."""
        self._begun.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)

    @property
    def report(self) -> Report:
        """What a method calls with each row; it takes steps as well if any callback listens to them."""
        return self.report_to(self)

    def report_to(self, rows: Callback) -> Report:
        """The same, where rows go to another callback, which passes them on."""
        if not self._hearing_steps:
            return rows.record
        lone = len(self._hearing_steps) == 1  # as usual, and asked after every step
        return _RowsAndSteps(rows.record, self._hearing_steps[0].step if lone else self.step)


class _RowsAndSteps:
    """Callbacks in the form in which methods report."""

    def __init__(self, record: Report, step: Callable[[int, int, float], None]) -> None:
        self._record, self.step = record, step

    def __call__(self, row: Record) -> None:
        self._record(row)


def _check_plain(callback: Callback, row: Record) -> None:
    """Raise ``ValueError`` if a row has a value that its file cannot hold."""
    for name, value in row.items():
        if not isinstance(value, PLAIN):
            raise ValueError(
                f"{type(callback).__name__} added {as_line(repr(name))} to a row: expected a plain number, text or list, got "
                f"{as_line(repr(value))}: add float(...) of it"
            )
