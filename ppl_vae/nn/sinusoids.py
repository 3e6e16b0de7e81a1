"""Places and times as sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["sinusoids"]


def sinusoids(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of places or times ``(...)`` at falling frequencies, ``(..., width)`` (Vaswani et al. 2017).

    Examples:
        >>> from ppl_vae.nn.sinusoids import sinusoids
        >>> sinusoids(torch.tensor([0.0]), 4)
        tensor([[0., 0., 1., 1.]])
    """
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2, device=places.device) / width)
    angles = places[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
