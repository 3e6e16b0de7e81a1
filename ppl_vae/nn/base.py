"""What every network declaration offers."""

from __future__ import annotations

import abc
import dataclasses

from torch import Tensor, nn

from ppl_vae.declaration import Declaration

__all__ = ["Flattened", "Network"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Declaration, abc.ABC):
    """A function from data of one shape to data of another, with parameters to learn."""

    @abc.abstractmethod
    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps ``(..., *in_shape)`` to ``(..., *out_shape)``."""

    def story(self, argument: str) -> str:
        """The network applied to ``argument``, as it stands in a model's story: ``MLP(z)``."""
        return f"{type(self).__name__}({argument})"


class Flattened(nn.Module):
    """A network on vectors made one on shapes: ``(..., *in_shape)`` to ``(..., *out_shape)``."""

    def __init__(self, layers: nn.Module, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers
        self.event_dim = len(in_shape)
        self.out_shape = out_shape

    def forward(self, x: Tensor) -> Tensor:
        """Map x ``(..., *in_shape)`` to ``(..., *out_shape)``."""
        return self.layers(x.flatten(-self.event_dim)).unflatten(-1, self.out_shape)
