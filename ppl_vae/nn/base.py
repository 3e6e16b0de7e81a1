"""What every network declaration offers."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ppl_vae.declaration import Declaration

__all__ = ["Batched", "Flattened", "Network", "TimedNetwork"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Declaration, abc.ABC):
    """A function from data of one shape to data of another, with parameters to learn.

    Any ``nn.Module`` of your own can stand wherever a network is declared: a subclass says how it is built, and its fields are
    at once the options of the command line and the lines of a YAML file. :class:`ppl_vae.nn.Batched` spares it all batch shapes
    but one::

        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Residual(pv.Network):
            width: int = 64

            def build(self, in_shape, out_shape):
                return Batched(MyResidualNet(in_shape, out_shape, self.width), in_shape, out_shape)

    Loading a run that names it needs ``trust``, for it imports your module.

    Class attributes:
        images: whether it wants images ``(channels, height, width)``, not flattened, with what else it is told as planes.
    """

    images: ClassVar[bool] = False

    @abc.abstractmethod
    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps ``(..., *in_shape)`` to ``(..., *out_shape)``, for any batch shape, also none."""

    def story(self, argument: str) -> str:
        """The network applied to ``argument``, as it stands in a model's story: ``MLP(z)``."""
        return f"{type(self).__name__}({argument})"


class TimedNetwork(Network):
    """A network that has its own way of being told something beside what it is a function of, such as a time."""

    @abc.abstractmethod
    def build_timed(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...], columns: int) -> nn.Module:
        """A module from x ``(..., *in_shape)`` and c ``(..., columns)``, which are broadcast, to ``(..., *out_shape)``."""


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

    def of_parts(self, *parts: Tensor) -> Tensor | None:
        """The output for vectors ``(..., columns)`` side by side, whose leading dimensions are broadcast after the first layer.

        W (a, b) = W_a a + W_b b, so that what is said of each row once is multiplied once, however many b there are for it.
        ``None`` of a network whose first layer is no affine map.
        """
        first, *rest = self.layers if isinstance(self.layers, nn.Sequential) else [self.layers]
        if type(first) is not nn.Linear:  # a subclass may do more
            return None
        weights = first.weight.split([part.shape[-1] for part in parts], dim=1)
        h = linear(parts[0], weights[0], first.bias)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            h = h + linear(part, weight)
        for layer in rest:
            h = layer(h)
        return h.unflatten(-1, self.out_shape)

    @torch.no_grad()
    def start_at(self, output: Tensor) -> None:
        """Let what the network gives lie around ``output (*out_shape)`` at first, if its last layer has a bias."""
        last: Any = self.layers[-1] if isinstance(self.layers, nn.Sequential) else self.layers
        bias = dict(last.named_parameters(recurse=False)).get("bias")
        if bias is not None:
            bias.copy_(output.flatten())


class Batched(nn.Module):
    """A network that knows one batch axis made one for any batch shape, also none.

    Args:
        layers: from ``(B, *in_shape)`` to B results with as many elements as ``out_shape``.
        in_shape: of one datum.
        out_shape: of one result.
    """

    def __init__(self, layers: nn.Module, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers
        self.in_shape = in_shape
        self.out_shape = out_shape

    def forward(self, x: Tensor) -> Tensor:
        """Map x ``(..., *in_shape)`` to ``(..., *out_shape)``."""
        batch_shape = x.shape[: x.dim() - len(self.in_shape)]
        return self.layers(x.reshape(-1, *self.in_shape)).reshape(*batch_shape, *self.out_shape)
