"""What every declaration of a decoder and a likelihood answers by its likelihood."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor

from ppl_vae.data import Data
from ppl_vae.declaration import require
from ppl_vae.likelihoods import Likelihood
from ppl_vae.models.base import Model
from ppl_vae.types import DataSpec, Kind

__all__ = ["Decoded"]


class Decoded(Model, abc.ABC):
    """p(x | h = decoder(z)), whatever is said of z."""

    # Each model declares these fields in the order of its own story, so this class is no dataclass.
    latent_dim: int
    likelihood: Likelihood

    def __post_init__(self) -> None:
        require(self.latent_dim >= 1, "a latent_dim of at least 1", self.latent_dim)

    @property
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that the likelihood is a density of."""
        return self.likelihood.accepts

    def settled(self, data: Data) -> Model:
        """The same model with its likelihood settled."""
        likelihood = self.likelihood.settled(data)
        return self if likelihood is self.likelihood else dataclasses.replace(cast(Any, self), likelihood=likelihood)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data lie outside the likelihood's support or lack entries it needs."""
        self.likelihood.check(spec)
        if spec.missing and not self.likelihood.missing:
            raise ValueError(
                f"{type(self.likelihood).__name__} is a likelihood of complete data, but entries of these are missing: declare "
                "Masked(likelihood=...), fill them or drop those rows, or use FactorAnalysis or GMM"
            )

    def check_values(self, x: Tensor) -> None:
        """Raise ``ValueError`` if data x ``(n, *event)`` do not lie in the likelihood's support."""
        self.likelihood.check_values(x)

    def spare(self, highest: Callable[[], Tensor]) -> str:
        """What of the likelihood is unused."""
        return self.likelihood.spare(highest)

    def free_units(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """Those that the likelihood leaves free."""
        return self.likelihood.free_units(event_shape)

    def real_elements(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """Those that the likelihood takes for real numbers."""
        return self.likelihood.real_elements(event_shape)

    def without_latents(self, spec: DataSpec) -> Likelihood | None:
        """The likelihood."""
        return self.likelihood
