"""What every condition of a conditional model offers.

A condition's module maps a batch to columns ``(..., C)``. Those of a part of x hold its entries, and turn p(x | z) of all of x
into that of its other entries.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.data import Data
from ppl_vae.declaration import Declaration
from ppl_vae.types import DataSpec

__all__ = ["Condition", "ConditionModule"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition(Declaration, abc.ABC):
    """What a conditional model is given, written y in its story.

    Class attributes:
        labelled: whether it is labels, which stand beside the data.
    """

    labelled: ClassVar[bool] = False

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields beside x that it is made of."""
        return ()

    @property
    def covariates(self) -> tuple[str, ...]:
        """The names of what is known of a datum, where these are neither classes nor a part of x."""
        return ()

    @property
    def sized(self) -> bool:
        """Whether it holds a size that the mean of x is a multiple of."""
        return False

    @property
    def rate(self) -> str:
        """What a size multiplies, as it stands in a story."""
        return "exp"

    def resolve(self, data: Data) -> Data:
        """The data as it is taken from."""
        return data

    @abc.abstractmethod
    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if such data do not have it."""

    def known(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """Which entries of a datum are given, ``(*event)``, or ``None`` if it is no part of x."""
        return None

    @abc.abstractmethod
    def build(self, spec: DataSpec) -> ConditionModule:
        """A module from a batch to the condition."""

    @abc.abstractmethod
    def story(self) -> str:
        """What y is."""


class ConditionModule(nn.Module):
    """From a batch, x ``(..., *event)`` and perhaps labels, to columns ``(..., C)``.

    Attributes:
        columns: C, those that networks are shown.
    """

    columns: int

    def forward(self, *batch: Tensor) -> Tensor:
        """The condition of each datum."""
        raise NotImplementedError

    def shown(self, c: Tensor) -> Tensor:
        """What networks see of columns ``(..., C)``."""
        return c

    def with_size(self, features: Tensor, c: Tensor, place: int | None) -> Tensor:
        """Features ``(..., P, *event)`` of which that at ``place`` is the logarithm of the mean of x, for data of this size."""
        return features

    def complete(self, likelihood: dist.Distribution, c: Tensor, filler: float) -> dist.Distribution:
        """P(x | z, y) from the likelihood of all of x: the same, unless y is a part of x."""
        return likelihood
