"""Columns of a table as a condition."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ppl_vae.declaration import require
from ppl_vae.models.conditions.part import Part
from ppl_vae.types import DataSpec

__all__ = ["Columns"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns(Part):
    """Columns of a flat table, which are not modelled.

    Args:
        columns: their numbers, from 0.

    Raises:
        ValueError: no column, a negative one or one named twice; on checking, data that are no table, or have no such column
            or no other.

    Examples:
        >>> spec = DataSpec(event_shape=(3,), kind="real", size=10)
        >>> Columns(columns=(2,)).build(spec)(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[3.]])
    """

    columns: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        whole = all(isinstance(column, int) and column >= 0 for column in self.columns)
        require(whole and 0 < len(set(self.columns)) == len(self.columns), "different columns, from 0", self.columns)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are no table with these columns and others."""
        flat = len(spec.event_shape) == 1
        if not flat or max(self.columns) >= spec.event_shape[0] or len(self.columns) >= spec.event_shape[0]:
            raise ValueError(
                f"expected a table with the columns {', '.join(map(str, self.columns))}, numbered from 0, and others to model, "
                f"got data of shape {spec.event_shape}: name columns of these data"
            )

    def known(self, event_shape: tuple[int, ...]) -> Tensor:
        """Which columns are given, ``(D,)``."""
        known = torch.zeros(event_shape, dtype=torch.bool)
        known[list(self.columns)] = True
        return known

    def story(self) -> str:
        """What y is."""
        return f"columns {', '.join(map(str, self.columns))} of x"
