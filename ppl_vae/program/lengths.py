"""How long rows are: what programs of rows of different lengths keep of their training data, to draw others like them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ppl_vae.program.hooks import Finish

__all__ = ["RowLengths"]

KEPT = 129  # quantiles


class RowLengths(nn.Module):
    """The lengths of the training rows, as their quantiles; it learns them when a fit is over.

    Args:
        length: of all rows, where they have one; else what stands until rows were seen.

    Examples:
        >>> RowLengths(7).drawn(torch.zeros(2))
        tensor([7, 7])
    """

    quantiles: Tensor

    def __init__(self, length: int = 1) -> None:
        super().__init__()
        self.register_buffer("quantiles", torch.full((KEPT,), length))

    def finish_fit(self, context: Finish) -> None:
        """Keep the quantiles of the rows' lengths."""
        if context.lengths is not None and len(context.lengths):
            places = torch.linspace(0, len(context.lengths) - 1, KEPT, dtype=torch.float64).round().long()
            self.quantiles.copy_(context.lengths.sort().values[places.to(context.lengths.device)])

    def drawn(self, least: Tensor) -> Tensor:
        """Lengths drawn like those of the training rows, each longer than ``least (n,)``; one more, where no row was."""
        longer = self.quantiles > least[:, None]
        longer[:, -1] |= ~longer.any(1)
        places = torch.multinomial(longer.double(), 1)[:, 0]
        return torch.maximum(self.quantiles[places], least.long() + 1)
