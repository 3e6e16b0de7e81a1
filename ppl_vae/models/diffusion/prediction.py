"""What a denoiser predicts, and the estimate x' of the data that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ppl_vae.models.diffusion.steps import alpha, over, sigma

__all__ = ["Direct", "LevelMeans", "Predicts", "denoised", "predicted"]

Predicts = Literal["noise", "data", "velocity", "levels"]

Estimate = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

TO_DATA: dict[str, Estimate] = {
    "noise": lambda z, found, a, s: (z - s * found) / a,
    "data": lambda z, found, a, s: found,
    "velocity": lambda z, found, a, s: a * z - s * found,
}
FROM_DATA: dict[str, Estimate] = {
    "noise": lambda z, x, a, s: (z - a * x) / s,
    "data": lambda z, x, a, s: x,
    "velocity": lambda z, x, a, s: (a * z - x) / s,
}


def denoised(predicts: str, z: Tensor, found: Tensor, gamma: Tensor) -> Tensor:
    """X' at z_t, from what a denoiser found."""
    return TO_DATA[predicts](z, found, alpha(gamma), sigma(gamma))


def predicted(predicts: str, z: Tensor, x: Tensor, gamma: Tensor) -> Tensor:
    """What a denoiser would have to find at z_t for x' to be x."""
    return FROM_DATA[predicts](z, x, alpha(gamma), sigma(gamma))


class Direct(nn.Module):
    """One output of each element: noise, data or velocity."""

    outputs = 1

    def __init__(self, predicts: str, event_dim: int) -> None:
        super().__init__()
        self.predicts = predicts
        self.event_dim = event_dim

    def forward(self, z: Tensor, found: Tensor, gamma: Tensor) -> Tensor:
        """X' ``(..., *event)`` at z_t ``(..., *event)`` from outputs ``(..., 1, *event)`` and gamma ``(...)``."""
        return denoised(self.predicts, z, found.squeeze(-1 - self.event_dim), over(gamma, self.event_dim))


class LevelMeans(nn.Module):
    """A logit of each level and element: x' = sum_k p_k x_k, p_k proportional to exp(logit_k) q(z_t | x_k).

    The output prior of Gulrajani and Hashimoto (2023), "Likelihood-based diffusion language models": what z_t alone tells of
    its element is Bayes' rule, and the network adds what the others tell.

    Args:
        places: of the levels, around zero ``(L,)``.
        event_dim: axes of a datum.
    """

    places: Tensor

    def __init__(self, places: Tensor, event_dim: int) -> None:
        super().__init__()
        self.outputs = len(places)
        self.event_dim = event_dim
        self.register_buffer("places", over(places, event_dim), persistent=False)

    def forward(self, z: Tensor, found: Tensor, gamma: Tensor) -> Tensor:
        """X' ``(..., *event)`` at z_t ``(..., *event)`` from outputs ``(..., L, *event)`` and gamma ``(...)``."""
        axis = -1 - self.event_dim
        wide = over(gamma, 1 + self.event_dim)
        away = z.unsqueeze(axis) - alpha(wide) * self.places
        share = torch.softmax(found - away.square() / (2 * sigma(wide).square()), dim=axis)
        return (share * self.places).sum(axis)
