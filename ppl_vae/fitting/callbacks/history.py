"""The rows of a fit in its run folder."""

from __future__ import annotations

from ppl_vae.fitting.callbacks.base import Callback
from ppl_vae.storage import AnyCheckpointer
from ppl_vae.types import Record

__all__ = ["HistoryWriter"]


class HistoryWriter(Callback):
    """Adds each row to the history that lies in the run folder.

    Args:
        checkpointer: what keeps the fit.
    """

    def __init__(self, checkpointer: AnyCheckpointer) -> None:
        self._checkpointer = checkpointer

    def record(self, row: Record) -> None:
        """Write a row.

        Raises:
            OSError: it cannot be written.
        """
        self._checkpointer.row(row)
