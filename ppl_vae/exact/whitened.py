"""Densities of many rows under a few normal distributions with matrices of their own: one product whitens all of them.

    log N(x | m_c, S_c) = -1/2 (D log 2 pi + log|S_c| + |L_c^-1 (x - m_c)|^2),   S_c = L_c L_c^T

The rows meet all L_c^-1 side by side in one matrix product, and a sum of squares is left, in blocks that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ppl_vae.exact.moments import Data, row_blocks

__all__ = ["joint_blocks"]

_BLOCK_NUMBERS = 2**18  # of float64: 2 MiB


def joint_blocks(log_factor: Tensor, roots: Tensor, gaps: Tensor, center: Tensor, data: Data) -> Iterator[Tensor]:
    """Per block of rows log pi_c + log N(x | m_c, S_c), ``(C, B)``.

    Args:
        log_factor: log pi_c less half of log|2 pi S_c|, ``(C,)``.
        roots: L_c^-1, ``(C, D, D)``.
        gaps: m_c less the centre, ``(C, D)``.
        center: ``(D,)``.
        data: rows ``(N, D)``, or batches of them.

    Examples:
        >>> zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1, 1).double()
        >>> next(joint_blocks(zero[0], one, zero, zero[0], torch.tensor([[2.0]]))).item()
        -2.0
    """
    components, columns = gaps.shape
    side_by_side = roots.flatten(0, 1).T.contiguous()
    shift = -(roots @ gaps[..., None]).flatten()
    for block in row_blocks(data, max(64, _BLOCK_NUMBERS // (components * columns))):
        whitened = torch.addmm(shift, block - center, side_by_side)
        distance = whitened.square_().reshape(-1, components, columns).sum(-1)
        yield torch.sub(log_factor, distance, alpha=0.5).T
