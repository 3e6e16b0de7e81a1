"""What stands between the affine maps or convolutions of a network: normalization, activation, shortcuts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, glu

from ppl_vae.declaration import require

__all__ = ["Activation", "BatchNorm", "Norm", "Residual", "activated", "channels_last", "check_layers"]

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh", "gated"]
Norm = Literal["none", "layer", "batch"]
M = TypeVar("M", bound=nn.Module)

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def check_layers(activation: str, norm: str) -> None:
    """Raise ``ValueError`` if there is no such activation or normalization."""
    require(activation in get_args(Activation), f"an activation of {', '.join(get_args(Activation))}", activation)
    require(norm in get_args(Norm), f"a norm of {', '.join(get_args(Norm))}", norm)


def activated(layer: Callable[..., nn.Module], width: int, activation: str, norm: str, *, images: bool) -> list[nn.Module]:
    """A layer of so many outputs, their normalization and their activation.

    Args:
        layer: makes it for a number of outputs, with or without ``bias``.
        width: features after the activation.
        activation: its name; before a gate there are twice as many features.
        norm: its name.
        images: whether features are channels ``(B, C, H, W)``, not the last axis of ``(..., C)``.
    """
    gated = activation == "gated"
    outputs = 2 * width if gated else width
    # What a batch's mean is taken off needs no bias.
    layers = [layer(outputs, bias=norm != "batch"), *NORMS[images][norm](outputs)]
    return [*layers, Gate(-3 if images else -1) if gated else ACTIVATIONS[activation]()]


def channels_last(network: M) -> M:
    """The network with the weights of its convolutions laid out channels last, as which they are multiplied fastest."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


class Gate(nn.Module):
    """a * sigmoid(b), a and b the two halves of an axis (Dauphin et al. 2017)."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Halve the axis."""
        return glu(x, self.axis)


class Residual(nn.Module):
    """x + layers(x) (He et al. 2016)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape of x."""
        return x + self.layers(x)


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe and Szegedy 2015) of any batch shape; of a single value by the running moments.

    Args:
        channels: C.
        images: whether inputs are ``(B, C, H, W)``, not ``(..., C)``.
        bias: whether a shift is learned.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, *, images: bool, bias: bool = True) -> None:
        super().__init__()
        self.images = images
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape of x."""
        rows = x if self.images else x.reshape(-1, len(self.weight))
        several = rows.numel() > len(self.weight)
        found = batch_norm(rows, self.mean, self.variance, self.weight, self.bias, training=self.training and several)
        return found.reshape(x.shape)


def _none(channels: int) -> list[nn.Module]:
    return []


# By whether features are the channels of images.
NORMS: dict[bool, dict[str, Callable[[int], list[nn.Module]]]] = {
    False: {"none": _none, "layer": lambda n: [nn.LayerNorm(n)], "batch": lambda n: [BatchNorm(n, images=False)]},
    True: {"none": _none, "layer": lambda n: [nn.GroupNorm(1, n)], "batch": lambda n: [BatchNorm(n, images=True)]},
}
