"""What is known of rows, and how it meets the nodes: which number of a column stands for which state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.text import as_line
from ppl_vae.types import DataSpec

__all__ = ["Evidence", "States", "met", "stacked", "without_column"]


class States(NamedTuple):
    """The states of a node, and the number that stands for each in its column, ``(L,)``; of a hidden one its places."""

    names: tuple[str, ...]
    values: Tensor

    def places(self, name: str, column: Tensor) -> Tensor:
        """The evidence ``(n, L)`` of numbers ``(n,)``: one at the state that is observed, ones where none is (NaN).

        Raises:
            ValueError: a number that stands for no state.
        """
        column = column.double()
        found = column.unsqueeze(-1) == self.values.to(column.device)
        missing = column.isnan()
        odd = ~(found.any(-1) | missing)
        if bool(odd.any()):
            known = ", ".join(f"{value:g} ({state})" for state, value in zip(self.names, self.values.tolist(), strict=True))
            got = column[odd][0].item()
            raise ValueError(
                f"expected in column {name} one of {as_line(known)}, got {got:g}: declare its state, or mend the row"
            )
        return (found | missing.unsqueeze(-1)).double()


class Evidence(NamedTuple):
    """What is known of n rows.

    Args:
        states: by discrete node how likely what was seen is in each state, ``(n, L)``; nothing of those that are not seen.
        numbers: by node that is a number its value ``(n,)`` in standard units, NaN where it is missing.
        weight: how often each row counts, ``(n,)``.
    """

    states: Mapping[str, Tensor]
    numbers: Mapping[str, Tensor]
    weight: Tensor


def met(name: str, declared: Sequence[str], spec: DataSpec) -> States:
    """The states of an observed node, as its column has them.

    Raises:
        ValueError: no states anywhere, or texts in the column that are no declared states.
    """
    column = next((column for column in spec.table if column.name == name), None)
    categories = column.categories if column is not None else ()
    if categories:
        return _by_text(name, tuple(declared) or categories, categories)
    if declared:
        return States(tuple(declared), _numbers_of(declared))
    if column is not None and column.dtype == "boolean":
        return States(("false", "true"), torch.tensor([0.0, 1.0], dtype=torch.float64))
    levels = 2 if spec.kind == "binary" or (column is not None and column.kind == "binary") else spec.levels
    if levels is None:
        raise ValueError(
            f"expected states of the node {name}, whose column holds numbers, got none: declare them, such as "
            "Table(states=('0', '1', '2')), or declare LinearGaussian for a number"
        )
    return without_column(tuple(map(str, range(levels))))


def without_column(states: Sequence[str]) -> States:
    """The states of a node that is in no column."""
    return States(tuple(states), torch.arange(len(states), dtype=torch.float64))


def stacked(columns: Mapping[str, int], x: Tensor) -> dict[str, Tensor]:
    """The columns of rows x ``(n, D)`` by name, in float64."""
    rows = x.flatten(1).double()
    return {name: rows[:, place] for name, place in columns.items()}


def _by_text(name: str, states: tuple[str, ...], categories: tuple[str, ...]) -> States:
    if unknown := [text for text in categories if text not in states]:
        raise ValueError(
            f"expected in column {name} the states {as_line(', '.join(states))}, got {as_line(', '.join(unknown[:5]))}: "
            "declare them as well, or correct those rows"
        )
    # States that no row has are numbers that no row has.
    values = [categories.index(state) if state in categories else -1 - place for place, state in enumerate(states)]
    return States(states, torch.tensor(values, dtype=torch.float64))


def _numbers_of(states: Sequence[str]) -> Tensor:
    """The numbers that the states spell, or their places."""
    try:
        return torch.tensor([float(state) for state in states], dtype=torch.float64)
    except ValueError:
        return torch.arange(len(states), dtype=torch.float64)
