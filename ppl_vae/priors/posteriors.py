"""Priors that mix the guide's own posteriors: what they share, and how they meet the guide and the data.

    build(shape)                    the module, before there is a guide; it tells its support and nothing else
    attach(posterior, spec)         the guide's q(z | x) and what the data look like; parameters and buffers of the data's shape
    start_fit(context)              started from training data; without it they stay noise

A saved state is loaded after ``attach``, instead of ``start_fit``.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.program.hooks import Start, TrainingRows
from ppl_vae.types import DataSpec

__all__ = ["PosteriorMixture", "noise"]


class PosteriorMixture(nn.Module, abc.ABC):
    """A prior made of q(z | x_c) at ``count`` inputs x_c.

    The guide's posterior is kept out of the module's own children: its parameters belong to the guide alone.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self._guide: tuple[Callable[[Tensor], Any], ...] = ()

    def attach(self, posterior: Callable[[Tensor], Any], spec: DataSpec) -> None:
        """Meet the guide and the shape of the data, before parameters are counted or loaded; again to meet another guide.

        Args:
            posterior: from x ``(C, *event)`` to the distribution q(z | x) of batch shape ``(C,)``.
            spec: what the data look like.
        """
        if not self._guide:
            self.create(spec)
        self._guide = (posterior,)

    def forward(self) -> Any:
        """p(z).

        Raises:
            ValueError: there is no guide yet.
        """
        if not self._guide:
            raise ValueError(
                "this prior mixes the guide's posteriors and has not met a guide: build model and guide together by "
                "ppl_vae.build, or call prior.attach(guide.posterior, spec)"
            )
        return self.mixture(*self._guide)

    @property
    def support(self) -> Any:
        """All of the real space; guides are built by it before there is a p(z)."""
        return constraints.independent(constraints.real, len(self.shape))

    @property
    def densities(self) -> int:
        """Of how many of the guide's posteriors p(z) asks the density at a draw of another."""
        return 0

    @abc.abstractmethod
    def create(self, spec: DataSpec) -> None:
        """Make what has the data's shape, filled with noise."""

    def start_fit(self, context: Start) -> None:
        """Start from training data, drawn with torch's global generator; by default what ``create`` made stays."""

    @abc.abstractmethod
    def mixture(self, posterior: Callable[[Tensor], Any]) -> Any:
        """p(z), given q(z | x)."""

    @staticmethod
    def pick(rows: TrainingRows, count: int, like: Tensor) -> Tensor:
        """Random rows as the model sees them, ``(count, *event)``; each row once before any comes twice."""
        order = torch.randperm(len(rows))[torch.arange(count) % len(rows)]
        return rows[order].transformed().to(like)


def noise(shape: tuple[int, ...], spec: DataSpec, like: Tensor) -> Tensor:
    """Values in the data's range: uniform if it is bounded, exponential from one bound, else standard normal."""
    low, high = spec.limits
    draws = like.new_empty(shape)
    if math.isfinite(high):
        return draws.uniform_(low, high)
    return draws.exponential_() if math.isfinite(low) else draws.normal_()
