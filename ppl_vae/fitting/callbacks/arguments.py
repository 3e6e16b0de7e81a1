"""The arguments of a fit as the one list of what hears of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppl_vae.deprecation import warn_renamed
from ppl_vae.fitting.callbacks.base import Callback, CallbackList
from ppl_vae.fitting.callbacks.collapse import CollapseMonitor
from ppl_vae.fitting.callbacks.history import HistoryWriter
from ppl_vae.fitting.callbacks.loggers import Board, BoardLogger
from ppl_vae.fitting.callbacks.metrics import Metrics
from ppl_vae.fitting.callbacks.progress import Progress, progress_callback
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer
from ppl_vae.text import as_line

__all__ = ["all_callbacks"]


def all_callbacks(
    *,
    progress: Progress | None = None,
    track: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Callback] = (),
    boards: Sequence[Callback | Board] | None = None,
    checkpointer: AnyCheckpointer = NULL_CHECKPOINTER,
) -> CallbackList:
    """All that hears of a fit, in order: metrics, ``callbacks``, progress, the run folder, loggers, the remark on collapse.

    So what metrics and a user's callbacks add to a row is shown, written and logged.

    Args:
        progress: called with each row; by default a progress bar if standard error is a terminal.
        track: names of metrics of the validation data.
        callbacks: a user's own.
        loggers: where rows are shown besides.
        boards: their name of before.
        checkpointer: what keeps the fit in its run folder.

    Raises:
        ValueError: something else than is expected, or an unknown metric.
    """
    if boards is not None:
        warn_renamed("fit(boards=...)", "fit(loggers=...)", stacklevel=4)
    if progress is not None and not callable(progress):
        raise ValueError(f"expected a function of a row for progress, got {as_line(repr(progress))}")
    if not isinstance(track, (list, tuple)) or not all(isinstance(name, str) for name in track):
        raise ValueError(f"expected a list of names to track, such as ['active_units'], got {as_line(repr(track))}")
    logged = [*_callbacks("loggers", loggers, "[TensorBoard(folder)]"), *map(_logger, _list("boards", boards or ()))]
    own = _callbacks("callbacks", callbacks, "[Printing()] of a class Printing(Callback)")
    first = [Metrics(track), *own, progress_callback(progress)]
    return CallbackList([*first, HistoryWriter(checkpointer), *logged, CollapseMonitor()])


def _callbacks(what: str, given: Any, example: str) -> list[Callback]:
    """A list of callbacks, checked."""
    for each in _list(what, given):
        if not isinstance(each, Callback):
            raise ValueError(f"expected a list of {what}, such as {example}, got {as_line(repr(each))} in it")
    return list(given)


def _list(what: str, given: Any) -> Sequence[Any]:
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"expected a list of {what}, got {as_line(repr(given))}")
    return given


def _logger(board: Any) -> Callback:
    """A logger of now, or one of before under its new contract."""
    if isinstance(board, Callback):
        return board
    if not isinstance(board, Board):
        raise ValueError(f"expected a list of boards, such as [TensorBoard(folder)], got {as_line(repr(board))} in it")
    return BoardLogger(board)
