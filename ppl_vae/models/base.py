"""What every model declaration offers."""

from __future__ import annotations

import abc
import dataclasses

from torch import nn

from ppl_vae.declaration import Declaration
from ppl_vae.types import DataSpec, Kind

__all__ = ["Model"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(Declaration, abc.ABC):
    """p(x, z), a generative story. ``print`` tells it in mathematics."""

    @property
    @abc.abstractmethod
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that the model is a density of."""

    @abc.abstractmethod
    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the model is no density of such data."""

    @abc.abstractmethod
    def build(self, spec: DataSpec) -> nn.Module:
        """The Pyro program: a module that is called with a batch ``x (B, *event)``."""

    @abc.abstractmethod
    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""

    def __str__(self) -> str:
        return self.story()
