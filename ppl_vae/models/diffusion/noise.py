"""Schedules of a diffusion: how much noise there is at each time.

    z_t = alpha(t) x + sigma(t) epsilon,   alpha^2 = sigmoid(-gamma(t)),   sigma^2 = sigmoid(gamma(t)),   0 <= t <= 1

gamma rises with t; exp(-gamma) = alpha^2 / sigma^2 is the signal-to-noise ratio (Kingma et al. 2021).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import Declaration, require

__all__ = ["BuiltNoise", "CosineNoise", "LearnedNoise", "LinearNoise", "NoiseSchedule"]

UNITS = 32  # smooth steps that a learned schedule is made of


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseSchedule(Declaration, abc.ABC):
    """gamma(t), minus the logarithm of the signal-to-noise ratio, from ``low`` at t = 0 to ``high`` at t = 1.

    Class attributes:
        learned: whether it has parameters.
    """

    learned: ClassVar[bool] = False

    low: float | None = None
    high: float = 5.0

    def __post_init__(self) -> None:
        ends = [value for value in (self.low, self.high) if value is not None]
        require(all(map(math.isfinite, ends)), "finite ends of gamma", (self.low, self.high))
        require(self.low is None or self.low < self.high, f"a low below high = {self.high:g}", self.low)

    def build(self, low: float) -> BuiltNoise:
        """The module, from t ``(...)`` to gamma ``(...)``; ``low`` is taken where none is declared.

        Raises:
            ValueError: that ``low`` is not below ``high``.
        """
        start = low if self.low is None else self.low
        require(start < self.high, f"a high above gamma(0) = {start:.3g}", self.high)
        return self.between(start, self.high)

    @abc.abstractmethod
    def between(self, low: float, high: float) -> BuiltNoise:
        """The module that rises from ``low`` to ``high``."""


class BuiltNoise(nn.Module, abc.ABC):
    """gamma of a built schedule."""

    @abc.abstractmethod
    def forward(self, t: Tensor) -> Tensor:
        """Of times t ``(...)`` from 0 to 1."""

    @abc.abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """gamma'(t) of times t ``(...)``, above zero."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearNoise(NoiseSchedule):
    """gamma(t) = low + (high - low) t (Kingma et al. 2021, "Variational diffusion models").

    Args:
        low: gamma(0), where the noise is least. By default by the data: noise whose threefold standard deviation is half the
            distance of two levels, 2 log(1 / (3 (L - 1))), which for 256 levels is -13.3; of real numbers -7.
        high: gamma(1), where little of the data is left.

    Raises:
        ValueError: ends that are not finite, or do not rise.

    Examples:
        >>> LinearNoise(low=-4.0, high=4.0).build(0.0)(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-4.,  0.,  4.])
    """

    def between(self, low: float, high: float) -> BuiltNoise:
        """The line."""
        return _Line(low, high)


class _Line(BuiltNoise):
    low: Tensor
    high: Tensor

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(low), persistent=False)
        self.register_buffer("high", torch.tensor(high), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * t

    def rate(self, t: Tensor) -> Tensor:
        return (self.high - self.low).expand(t.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineNoise(NoiseSchedule):
    """gamma(t) = 2 log tan(a + b t), so that alpha = cos(a + b t): slow at both ends.

    Nichol and Dhariwal (2021), "Improved denoising diffusion probabilistic models", in continuous time; a and b by the ends.

    Args:
        low: gamma(0), where the noise is least; by default by the data, as of :class:`LinearNoise`.
        high: gamma(1), where little of the data is left.

    Raises:
        ValueError: ends that are not finite, or do not rise.

    Examples:
        >>> CosineNoise(low=-4.0, high=4.0).build(0.0)(torch.tensor([0.0, 0.5, 1.0])).round(decimals=3) + 0.0
        tensor([-4.,  0.,  4.])
    """

    def between(self, low: float, high: float) -> BuiltNoise:
        """The curve."""
        return _Cosine(*(math.atan(math.exp(end / 2)) for end in (low, high)))


class _Cosine(BuiltNoise):
    first: Tensor
    last: Tensor

    def __init__(self, first: float, last: float) -> None:
        super().__init__()
        self.register_buffer("first", torch.tensor(first), persistent=False)
        self.register_buffer("last", torch.tensor(last), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        return 2 * torch.tan(self.first + (self.last - self.first) * t).log()

    def rate(self, t: Tensor) -> Tensor:
        width = self.last - self.first
        return 4 * width / torch.sin(2 * (self.first + width * t))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedNoise(NoiseSchedule):
    """gamma(t) rising by parameters, the ends among them, learned with the denoiser (Kingma et al. 2021).

    gamma(t) = low + (high - low) (g(t) - g(0)) / (g(1) - g(0)) with g(t) = t + sum_j w_j sigmoid(k_j (t - c_j)), w_j, k_j > 0:
    a line with smooth steps. It starts near the line.

    Args:
        low: where gamma(0) starts; by default by the data, as of :class:`LinearNoise`.
        high: where gamma(1) starts.

    Raises:
        ValueError: ends that are not finite, or do not rise.

    Examples:
        >>> gamma = LearnedNoise(low=-4.0, high=4.0).build(0.0)(torch.linspace(0, 1, 5))
        >>> bool((gamma.diff() > 0).all())
        True
    """

    learned: ClassVar[bool] = True

    def between(self, low: float, high: float) -> BuiltNoise:
        """The module with its parameters."""
        return _Learned(low, high)


class _Learned(BuiltNoise):
    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.tensor(low))
        self.log_width = nn.Parameter(torch.tensor(math.log(high - low)))
        self.weight = nn.Parameter(torch.full((UNITS,), -6.0))
        self.slope = nn.Parameter(torch.full((UNITS,), 10.0))
        self.center = nn.Parameter(torch.linspace(0, 1, UNITS))

    def forward(self, t: Tensor) -> Tensor:
        ends = self._ends()
        return self.low + self.log_width.exp() * (self._rising(t) - ends[0]) / (ends[1] - ends[0])

    def rate(self, t: Tensor) -> Tensor:
        ends = self._ends()
        steep = softplus(self.slope)
        share = torch.sigmoid(steep * (t[..., None] - self.center))
        rising = 1 + (softplus(self.weight) * steep * share * (1 - share)).sum(-1)
        return self.log_width.exp() * rising / (ends[1] - ends[0])

    def _ends(self) -> Tensor:
        return self._rising(torch.stack([torch.zeros_like(self.low), torch.ones_like(self.low)]))

    def _rising(self, t: Tensor) -> Tensor:
        bumps = torch.sigmoid(softplus(self.slope) * (t[..., None] - self.center))
        return t + (softplus(self.weight) * bumps).sum(-1)
