"""What is kept of the hidden features of a row, wherever its padding ends."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Pool", "mask_of", "pooled"]

Pool = Literal["last", "mean", "max"]


def mask_of(length: Tensor | None, x: Tensor) -> Tensor:
    """The places of rows x ``(N, T, ...)`` that hold elements, ``(N, T)``; all without lengths."""
    if length is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return torch.arange(x.shape[1], device=x.device) < length[:, None]


def pooled(hidden: Tensor, inside: Tensor, length: Tensor | None, pool: Pool) -> Tensor:
    """Of hidden features ``(N, T, H)`` those of the last element, their mean or their maximum, ``(N, H)``; of none zeros."""
    if pool == "last":
        if length is None:
            return hidden[:, -1]
        at = (length - 1).clamp_min(0)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, at)[:, 0] * (length > 0)[:, None]
    mask = inside[..., None]
    if pool == "mean":
        return (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)
    highest = hidden.masked_fill(~mask, -torch.inf).amax(1)
    return highest.where(inside.any(1)[:, None], 0.0)
