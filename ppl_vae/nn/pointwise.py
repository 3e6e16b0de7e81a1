"""A small network that is the same at each place of a stack of maps."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Pointwise"]


class Pointwise(nn.Module):
    """Two affine maps of the channels with an activation between them, alike at each place.

    Args:
        inputs: channels of the input.
        hidden: channels between.
        outputs: channels of the output.
        event_dim: dimensions of a stack, channels first: 1 of a vector, 3 of maps.

    Examples:
        >>> from ppl_vae.nn.pointwise import Pointwise
        >>> Pointwise(6, 8, 4, event_dim=3)(torch.zeros(5, 6, 7, 7)).shape
        torch.Size([5, 4, 7, 7])
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, event_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))
        self.event_dim = event_dim

    def forward(self, x: Tensor) -> Tensor:
        """Map x ``(..., inputs, *space)`` to ``(..., outputs, *space)``."""
        return self.layers(x.movedim(-self.event_dim, -1)).movedim(-1, -self.event_dim)
