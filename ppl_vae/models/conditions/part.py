"""A part of x as a condition: its entries are columns, and only the others are modelled."""

from __future__ import annotations

import abc
import dataclasses

import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.likelihoods.base import unreduced
from ppl_vae.models.conditions.base import Condition, ConditionModule
from ppl_vae.models.conditions.completed import Completed
from ppl_vae.nn import inputs
from ppl_vae.types import DataSpec

__all__ = ["Part"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part(Condition, abc.ABC):
    """Entries of x, which are then not modelled."""

    @abc.abstractmethod
    def known(self, event_shape: tuple[int, ...]) -> Tensor:
        """Which entries are given, ``(*event)``."""

    def build(self, spec: DataSpec) -> ConditionModule:
        """A module from x ``(..., *event)`` to the entries that are given."""
        return PartModule(self.known(spec.event_shape), inputs.standardized(spec))


class PartModule(ConditionModule):
    """The entries of x where ``known (*event)`` is true, in their order."""

    known: Tensor
    places: Tensor

    def __init__(self, known: Tensor, standardized: nn.Module) -> None:
        super().__init__()
        self.standardized = standardized
        self.columns = int(known.sum())
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("places", known.flatten().nonzero().squeeze(-1), persistent=False)

    def forward(self, *batch: Tensor) -> Tensor:
        """What is given of x."""
        return batch[0].flatten(-self.known.dim()).index_select(-1, self.places)

    def shown(self, c: Tensor) -> Tensor:
        """The given entries as networks are shown such data."""
        return self.standardized(c)

    def complete(self, likelihood: dist.Distribution, c: Tensor, filler: float) -> dist.Distribution:
        """P(x | z, y), which has x's given entries for certain and their log-probability is 0."""
        blank = c.new_zeros(*c.shape[:-1], self.known.numel())
        values = blank.index_copy(-1, self.places, c).unflatten(-1, self.known.shape)
        parts = unreduced(likelihood, self.known.dim())
        return Completed(parts, self.known, values, filler).to_event(self.known.dim())
