"""A network that gives zeros until its part of a fit begins."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Dormant"]


class Dormant(nn.Module):
    """A network of any arguments: zeros exactly as it is built, and the network's own output once it is to be trained.

    So what is said by its output is said plainly, such as p(z) = Normal(0, I), while other parts of a model are trained first.

    Args:
        network: built.

    Attributes:
        awake: 0 or 1, a buffer, which goes with the weights.
    """

    awake: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("awake", torch.zeros(()))

    def forward(self, *arguments: Tensor) -> Tensor:
        """The network's output, or zeros of its shape."""
        output: Tensor = self.network(*arguments)
        return self.awake * output

    def wake(self) -> None:
        """From here on it is trained."""
        self.awake.fill_(1.0)
