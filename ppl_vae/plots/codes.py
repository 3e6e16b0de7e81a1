"""Grids of codes: which stand where, and how often each is used."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ppl_vae.plots.canvas import new_figure

__all__ = ["codes"]

SHOWN = 5  # grids in a row, and rows


def codes(grids: Tensor, *, size: int | None = None, title: str | None = None) -> Figure:
    """The first grids, a colour for each code, and the share of all places that each code has, from the most used on.

    Args:
        grids: numbers of codes ``(N, H, W)``.
        size: K, how many codes there are; by default as many as the largest number says.
        title: of the grids.

    Raises:
        ValueError: grids of other than two axes, or none.

    Examples:
        ``plots.codes(fit.encode(data.test), size=128)``
    """
    if grids.dim() != 3 or not grids.numel():
        raise ValueError(f"expected grids of codes (N, H, W), got shape {tuple(grids.shape)}")
    grids = grids.detach().cpu().long()
    size = int(grids.max()) + 1 if size is None else size
    share = torch.bincount(grids.flatten(), minlength=size).double() / grids.numel()
    used, perplexity = int((share > 0).sum()), torch.special.entr(share).sum().exp().item()
    figure, (left, right) = new_figure(9.0, 4.2, 2)
    left.imshow(_tiled(grids[: SHOWN**2]).numpy(), cmap="turbo", vmin=0, vmax=max(1, size - 1), interpolation="nearest")
    left.set(title=title or "codes, a colour for each", xticks=[], yticks=[])
    right.bar(range(size), share.sort(descending=True).values.tolist(), width=1.0, color="tab:blue")
    right.axhline(1 / size, color="0.5", linestyle="--", linewidth=1)
    right.set(title=f"{used} of {size} codes are used, perplexity {perplexity:.1f}", xlabel="codes, the most used first")
    right.set_ylabel("share of all places")
    return figure


def _tiled(grids: Tensor) -> Tensor:
    """Grids beside and below each other ``(height, width)``, NaN between them."""
    height, width = grids.shape[1:]
    columns = min(SHOWN, len(grids))
    lines = -(-len(grids) // columns)
    canvas = torch.full((lines * (height + 1) - 1, columns * (width + 1) - 1), torch.nan, dtype=torch.float64)
    for place, grid in enumerate(grids):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        canvas[top : top + height, left : left + width] = grid
    return canvas
