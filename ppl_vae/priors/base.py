"""What every prior declaration offers."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, Literal

from torch import nn

from ppl_vae.declaration import Declaration

__all__ = ["Prior", "Support"]

Support = Literal["real", "positive", "interval", "simplex", "sphere", "one_hot", "covariance"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior(Declaration, abc.ABC):
    """p(z), the distribution of a latent variable, or of a parameter, before any data are seen.

    Class attributes:
        support: where it has its mass.
        categorical: whether a draw belongs to one of several components or categories, which can be predicted.

    ============== ==================================================================
    ``real``       all numbers
    ``positive``   numbers above zero
    ``interval``   numbers between two bounds
    ``simplex``    vectors of positive entries that sum to one, along the last axis
    ``sphere``     vectors of length one, along the last axis
    ``one_hot``    vectors of zeros and a single one, or several of them side by side
    ``covariance`` symmetric positive definite matrices
    ============== ==================================================================

    The constraint ``prior.build(shape)().support`` tells the same with the bounds. A built prior that also needs the guide
    offers :meth:`~ppl_vae.priors.posteriors.PosteriorMixture.attach`, which :func:`ppl_vae.build` calls; one that starts from
    the data has ``start_fit``, as any module may (:mod:`ppl_vae.program.hooks`).
    """

    support: ClassVar[Support] = "real"
    categorical: ClassVar[bool] = False

    @abc.abstractmethod
    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns a distribution with ``event_shape == shape`` and no batch shape."""

    @abc.abstractmethod
    def story(self, shape: tuple[int, ...]) -> str:
        """The density as it stands in a model's story, such as ``Normal(0, I_8)``; shape ``()`` stands for any."""
