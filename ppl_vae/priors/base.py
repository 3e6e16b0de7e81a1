"""What every prior declaration offers."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, Literal

from torch import nn

from ppl_vae.declaration import Declaration

__all__ = ["Prior", "Support"]

Support = Literal["real", "positive", "simplex", "covariance"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior(Declaration, abc.ABC):
    """p(z), the distribution of a latent variable, or of a parameter, before any data are seen.

    Class attributes:
        support: where it has its mass: on ``real`` numbers, ``positive`` ones, a ``simplex`` or ``covariance`` matrices.
    """

    support: ClassVar[Support] = "real"

    @abc.abstractmethod
    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns a distribution with ``event_shape == shape`` and no batch shape."""

    @abc.abstractmethod
    def story(self, shape: tuple[int, ...]) -> str:
        """The density as it stands in a model's story, such as ``Normal(0, I_8)``; shape ``()`` stands for any."""
