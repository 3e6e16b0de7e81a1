"""What every model declaration offers."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from ppl_vae.declaration import Declaration
from ppl_vae.priors import Prior
from ppl_vae.types import DataSpec, Kind

__all__ = ["Model", "PosteriorFamily"]

PosteriorFamily = Literal["unknown", "linear", "discrete", "point", "projection"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(Declaration, abc.ABC):
    """p(x, z), a generative story. ``print`` tells it in mathematics.

    Class attributes:
        posterior_family: what is known of p(z | x): ``unknown``, ``linear`` (normal with a mean linear in x) or ``discrete``;
            or, of models without p(z), that codes are the ``point`` of an encoder or a ``projection`` that the model knows.
            Methods choose their default guide by it.
    """

    posterior_family: ClassVar[PosteriorFamily] = "unknown"

    @property
    def parameter_priors(self) -> Mapping[str, Prior]:
        """The priors of parameters that have one; the others are point estimates."""
        return {}

    @property
    @abc.abstractmethod
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that the model is a density of."""

    @abc.abstractmethod
    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the model is no density of such data."""

    def check_values(self, x: Tensor) -> None:
        """Raise ``ValueError`` if data x ``(n, *event)``, as the model sees them, leave its support; called before a fit."""

    @abc.abstractmethod
    def build(self, spec: DataSpec) -> nn.Module:
        """The Pyro program: a module that is called with a batch ``x (B, *event)``."""

    @abc.abstractmethod
    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""

    def __str__(self) -> str:
        return self.story()
