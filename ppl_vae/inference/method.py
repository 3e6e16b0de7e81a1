"""What every method declaration offers."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

from ppl_vae.data import Data
from ppl_vae.declaration import Declaration
from ppl_vae.pair import Pair

__all__ = ["Method", "Report", "Row"]

Row = dict[str, Any]
Report = Callable[[Row], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(Declaration, abc.ABC):
    """How a pair is fitted. Every method has a ``seed`` and writes what it finds into the pair's modules."""

    seed: int = 0

    @property
    @abc.abstractmethod
    def iterations(self) -> int:
        """The most rows that the history can get; what a progress bar counts to."""

    @abc.abstractmethod
    def run(self, pair: Pair, data: Data, report: Report) -> list[Row]:
        """Fit the pair to ``data.train``, both on one device, and return the history, a row an iteration.

        Args:
            pair: model and guide; their parameters are changed in place.
            data: the splits; ``data.valid`` is used where a method needs held-out data.
            report: called with each row as soon as it is known.
        """
