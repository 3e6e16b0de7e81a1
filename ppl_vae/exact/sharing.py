"""Sums over rows that several processes share: each adds up what it finds for its own, and all get the sum of all.

What only walks the rows sees all of them, in every process; a part is taken by those who add up, as the functions here do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ppl_vae.program.processes import Processes

__all__ = ["Shared", "add_up", "own"]


@runtime_checkable
class Shared(Protocol):
    """Rows that all processes of a group have, and of which each can take a part.

    Attributes:
        processes: the group; a lone process has all rows to itself.
        own: the rows of this process, in the form of all rows.
        number: of all rows.
        weights: of all rows ``(N,)``; ``None`` if all count once.
    """

    processes: Processes
    weights: Tensor | None

    @property
    def own(self) -> Any:
        """The rows of this process."""
        ...

    @property
    def number(self) -> int:
        """Of all rows."""
        ...

    def at(self, places: Tensor) -> Tensor:
        """The rows ``(n, D)`` at these places among all, in float64, each read by the process whose it is."""
        ...


def own(data: Any) -> Any:
    """The rows of this process; of rows that nobody shares all of them."""
    return data.own if isinstance(data, Shared) else data


def add_up(data: Any, sums: Sequence[Tensor]) -> None:
    """Put the sum over the processes that share the rows in the place of each one's own sum, the same bits in all."""
    if isinstance(data, Shared):
        data.processes.sum_(sums)
