"""The categorical likelihood."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.nn.autoregressive import sharpened_logits
from ppl_vae.types import CATEGORICAL, DataSpec, Kind

__all__ = ["Categorical", "CodeDistribution", "Levels"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Levels(Likelihood):
    """A distribution over the whole numbers {0, ..., levels - 1}, each element by itself.

    Args:
        levels: L, how many values an element can take; 256 for 8-bit images.
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({CATEGORICAL})
    discrete: ClassVar[bool] = True

    levels: int = 256

    def __post_init__(self) -> None:
        require(isinstance(self.levels, int) and self.levels >= 2, "at least 2 levels", self.levels)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are of another kind, or have more levels."""
        super().check(spec)
        if spec.levels is not None and spec.levels > self.levels:
            raise ValueError(
                f"expected data of at most {self.levels} levels, got {spec.levels}: "
                f"use {type(self).__name__}(levels={spec.levels})"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Categorical(Levels):
    """p(x | h) = prod_d softmax(h_d)_{x_d}, for x in {0, ..., levels - 1}^D, in no order.

    As the output of a model of pixels: van den Oord, Kalchbrenner and Kavukcuoglu 2016, "Pixel recurrent neural networks".
    The mean is that of the codes, which means something where the levels have an order; reconstructions show the most probable
    code.

    Args:
        levels: L, how many values an element can take; 256 for 8-bit images.

    Raises:
        ValueError: fewer than 2 levels; on checking, data of more.

    Examples:
        >>> Categorical(levels=5).build((3,))(torch.zeros(5, 3)).mean
        tensor([2., 2., 2.])
    """

    @property
    def features(self) -> int:
        """One logit per level and element."""
        return self.levels

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from logits ``(..., L, *event_shape)`` to the distribution."""
        return CategoricalModule(len(event_shape))

    def story(self, features: str) -> str:
        """The density as text."""
        return f"Categorical(softmax {features}, {self.levels} levels)"


class CategoricalModule(nn.Module):
    """Logits to the distribution of a datum."""

    def __init__(self, event_dim: int) -> None:
        super().__init__()
        self.event_dim = event_dim

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        return CodeDistribution(logits=features.movedim(-1 - self.event_dim, -1)).to_event(self.event_dim)


class CodeDistribution(dist.Categorical):
    """A categorical distribution of codes that are numbers: draws have the dtype of the data, and codes have a mean.

    Args:
        logits: ``(..., L)``, up to a constant; normalized in one pass forwards and one back, which a large vocabulary asks for.
    """

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = self._param = logits.log_softmax(-1)
        self._num_events = logits.shape[-1]
        torch.distributions.Distribution.__init__(self, logits.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch shape."""
        return super().expand(batch_shape, self.__new__(type(self)) if _instance is None else _instance)

    @property
    def mean(self) -> Tensor:
        """The expected code."""
        return self.probs @ self._codes

    @property
    def point_prediction(self) -> Tensor:
        """The most probable code."""
        return self.logits.argmax(-1).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        """The variance of the code."""
        return self.probs @ self._codes.square() - self.mean.square()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Codes as floating-point numbers."""
        return super().sample(torch.Size(sample_shape)).to(self.logits.dtype)

    def sharpened(self, temperature: float, top_p: float) -> CodeDistribution:
        """With logits divided by the temperature, of which the likeliest that together have ``top_p`` are kept."""
        return CodeDistribution(logits=sharpened_logits(self.logits, temperature, top_p))

    @property
    def _codes(self) -> Tensor:
        return torch.arange(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)
