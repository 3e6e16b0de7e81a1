"""What every likelihood declaration offers, and the check of data against a likelihood's support."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from torch import nn

from ppl_vae.declaration import Declaration, family_members
from ppl_vae.types import DataSpec, Kind

__all__ = ["Likelihood"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likelihood(Declaration, abc.ABC):
    """p(x | h), the distribution of a datum given the decoder's features h.

    Class attributes:
        accepts: the kinds of data that lie in the support.
    """

    accepts: ClassVar[frozenset[Kind]]

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """P, how many decoder features each element of a datum needs."""

    @abc.abstractmethod
    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps features ``(..., P, *event_shape)`` to a distribution with that event shape."""

    @abc.abstractmethod
    def story(self, features: str) -> str:
        """The density as it stands in a model's story, such as ``Bernoulli(logits = MLP(z))``."""

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if data of this kind do not lie in the support."""
        if spec.kind in self.accepts:
            return
        others = [cls.__name__ for cls in family_members(Likelihood) if spec.kind in getattr(cls, "accepts", ())]
        remedies = (
            ["binarize the data (binarize='dynamic')"] if spec.kind == "unit_interval" and "binary" in self.accepts else []
        )
        remedies += [f"use a likelihood on {spec.kind} data ({', '.join(others)})"] if others else []
        raise ValueError(
            f"{type(self).__name__} is a likelihood of {' or '.join(sorted(self.accepts))} data, but these data are "
            f"{spec.kind}: {', or '.join(remedies)}"
        )
