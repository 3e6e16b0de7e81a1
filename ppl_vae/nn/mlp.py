"""The multi-layer perceptron."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import partial

from torch import nn

from ppl_vae.declaration import require
from ppl_vae.nn.base import Flattened, Network
from ppl_vae.nn.layers import Activation, Norm, Residual, activated, check_layers

__all__ = ["MLP"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLP(Network):
    """Affine layers with an activation between them; inputs of any shape are flattened.

    h' = dropout(f(norm(W h + b))), and h + h' with a shortcut.

    Args:
        hidden: widths of the hidden layers, from input to output.
        activation: the function f after each hidden layer; ``gated`` is a * sigmoid(b), a and b two affine maps of h (Dauphin
            et al. 2017, "Language modeling with gated convolutional networks"; the networks of Tomczak and Welling 2018).
        residual: whether hidden layers as wide as their input are added to it (He et al. 2016).
        norm: ``none``, ``layer`` (Ba et al. 2016) or ``batch`` (Ioffe and Szegedy 2015), before each activation. With the
            latter a datum's numbers in training depend on its batch; in evaluation they do not.
        dropout: probability with which a hidden feature is left out in training (Srivastava et al. 2014).

    Raises:
        ValueError: a width below one, an unknown activation or norm, or a probability outside [0, 1).

    Examples:
        >>> network = MLP(hidden=(400, 200)).build((1, 28, 28), (2, 20))
        >>> network(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 2, 20])
    """

    hidden: tuple[int, ...] = (200,)
    activation: Activation = "relu"
    residual: bool = False
    norm: Norm = "none"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        require(all(isinstance(width, int) and width >= 1 for width in self.hidden), "hidden widths of at least 1", self.hidden)
        check_layers(self.activation, self.norm)
        require(0 <= self.dropout < 1, "a dropout in [0, 1)", self.dropout)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps ``(..., *in_shape)`` to ``(..., *out_shape)``."""
        widths = (math.prod(in_shape), *self.hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += self._hidden(inputs, outputs)
        layers.append(nn.Linear(widths[-1], math.prod(out_shape)))
        return Flattened(nn.Sequential(*layers), in_shape, out_shape)

    def _hidden(self, inputs: int, outputs: int) -> list[nn.Module]:
        layers = activated(partial(nn.Linear, inputs), outputs, self.activation, self.norm, images=False)
        if self.dropout:
            layers.append(nn.Dropout(self.dropout))
        return [Residual(*layers)] if self.residual and inputs == outputs else layers
