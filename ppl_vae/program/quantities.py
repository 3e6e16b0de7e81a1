"""What a program's parameters mean: named quantities with named axes, in the units of what the model sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["COLUMN", "COMPONENT", "LATENT", "TOKEN", "Chart", "Quantity"]

COLUMN, COMPONENT, LATENT, TOKEN = "column", "component", "latent", "token"


@dataclass(frozen=True, eq=False, kw_only=True)
class Chart:
    """A table that a picture shows.

    Args:
        values: ``(R, C)``.
        rows: what a row is.
        columns: what a column is.
        tokens: whether columns are the tokens of the data, in their order.
    """

    values: Tensor
    rows: str
    columns: str
    tokens: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantity:
    """Numbers that mean something to whoever fitted a model, such as means or loadings.

    Args:
        values: as the model sees the data.
        axes: what each axis goes over: ``column`` of data, ``component``, ``latent`` dimension, ``token``; any with ``labels``.
        power: of a column's unit that a value has along each axis of columns: 1 of means and covariances, 2 of variances.
        located: whether a shift of the data shifts the values.
        note: what else has to be known, such as which rotation of several.
        labels: the names along each axis; by default those that are known of these.

    Raises:
        ValueError: another number of axes than the values have.

    Examples:
        >>> Quantity(values=torch.zeros(3, 2), axes=(COLUMN, LATENT), power=1).axes
        ('column', 'latent')
    """

    values: Tensor
    axes: tuple[str, ...]
    power: int = 0
    located: bool = False
    note: str = ""
    labels: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.values.dim() != len(self.axes):
            raise ValueError(f"expected {len(self.axes)} axes, {', '.join(self.axes)}, got {tuple(self.values.shape)}")

    def in_source_units(self, loc: Tensor, scale: Tensor) -> Tensor:
        """The values for data that were shifted by ``loc`` and divided by ``scale``, ``(D,)`` each, in float64.

        Where rows are T elements of D columns, shifts and scales are ``(T * D,)``: those of an element where all are alike,
        else the values are repeated, once for each element.
        """
        found = self.values.detach().double()
        for axis, name in enumerate(self.axes):
            if name == COLUMN:
                shift, unit = _of_elements(loc.double(), scale.double(), found.shape[axis])
                found = torch.cat([found] * (len(unit) // found.shape[axis]), axis)
                shape = [1] * found.dim()
                shape[axis] = -1
                found = found * unit.reshape(shape) ** self.power
                found = found + shift.reshape(shape) if self.located else found
        return found


def _of_elements(loc: Tensor, scale: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Shifts and scales of an element of so many columns where all elements have the same, else as they are."""
    several = [part.reshape(-1, size) for part in (loc, scale)]
    alike = all(bool((part == part[:1]).all()) for part in several)
    return (several[0][0], several[1][0]) if alike else (loc, scale)
