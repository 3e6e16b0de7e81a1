"""What every guide declaration offers."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Literal

from torch import nn

from ppl_vae.declaration import Declaration
from ppl_vae.types import DataSpec

__all__ = ["Guide", "check_latent"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guide(Declaration, abc.ABC):
    """q(z | x), an approximate posterior. ``print`` tells its factorization.

    Class attributes:
        latent: the latent variables that it is a density of: ``continuous``, ``discrete`` or ``any``.
    """

    latent: ClassVar[Literal["continuous", "discrete", "any"]] = "any"

    @abc.abstractmethod
    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program that goes with a built model; its ``posterior(x)`` serves guide, encoder and reports alike."""

    @abc.abstractmethod
    def story(self) -> str:
        """The factorization, as mathematics."""

    def __str__(self) -> str:
        return self.story()


def check_latent(guide: Guide, model: Any) -> None:
    """Raise ``ValueError`` with the remedy if a built model's latent variable is of another kind than the guide's.

    A model says of what kind it is by its attribute ``latent``; one that says nothing is taken at its word.
    """
    ours, theirs = guide.latent, getattr(model, "latent", guide.latent)
    if ours in ("any", theirs):
        return
    remedies = {"discrete": "ExactPosterior or AmortizedCategorical", "continuous": "AmortizedNormal or AmortizedLinear"}
    raise ValueError(
        f"{type(guide).__name__} is a guide of a {ours} latent variable, but this model's latent variable is {theirs}: "
        f"use {remedies[theirs]}"
    )
