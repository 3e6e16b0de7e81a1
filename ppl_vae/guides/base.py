"""What every guide declaration offers."""

from __future__ import annotations

import abc
import dataclasses

from torch import nn

from ppl_vae.declaration import Declaration
from ppl_vae.types import DataSpec

__all__ = ["Guide"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guide(Declaration, abc.ABC):
    """q(z | x), an approximate posterior. ``print`` tells its factorization."""

    @abc.abstractmethod
    def build(self, model: nn.Module, spec: DataSpec) -> nn.Module:
        """The Pyro program that goes with a built model; its ``posterior(x)`` serves guide, encoder and reports alike."""

    @abc.abstractmethod
    def story(self) -> str:
        """The factorization, as mathematics."""

    def __str__(self) -> str:
        return self.story()
