"""The multi-layer perceptron."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Literal, get_args

from torch import nn

from ppl_vae.declaration import require
from ppl_vae.nn.base import Flattened, Network

__all__ = ["MLP"]

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLP(Network):
    """Affine layers with an activation between them; inputs of any shape are flattened.

    Args:
        hidden: widths of the hidden layers, from input to output.
        activation: the function after each hidden layer.

    Raises:
        ValueError: a width below one, or an unknown activation.

    Example:
        >>> network = MLP(hidden=(400, 200)).build((1, 28, 28), (2, 20))
        >>> network(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 2, 20])
    """

    hidden: tuple[int, ...] = (200,)
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        require(all(isinstance(width, int) and width >= 1 for width in self.hidden), "hidden widths of at least 1", self.hidden)
        require(self.activation in ACTIVATIONS, f"an activation of {', '.join(get_args(Activation))}", self.activation)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps ``(..., *in_shape)`` to ``(..., *out_shape)``."""
        widths = (math.prod(in_shape), *self.hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), ACTIVATIONS[self.activation]()]
        layers.append(nn.Linear(widths[-1], math.prod(out_shape)))
        return Flattened(nn.Sequential(*layers), in_shape, out_shape)
