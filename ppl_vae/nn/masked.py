"""Networks whose d-th output depends on earlier inputs alone, and the invertible maps that they make.

    y_d = f(x_d; theta_d),  theta_d = network(x_e with level(e) < level(d), context)

With levels 1..K the map is autoregressive (Germain et al. 2015; Kingma et al. 2016), with two levels it is a coupling (Dinh et
al. 2017). Its Jacobian is triangular either way; y takes one pass of the network, x as many as there are levels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.nn.functional import linear, relu

__all__ = ["MaskedLinear", "MaskedNetwork", "MaskedTransform", "autoregressive", "coupling"]

START = 0.01  # size of the last layer's weights before training: the map is then nearly the identity, and yet it learns


class MaskedLinear(nn.Linear):
    """An affine map with the weights ``(O, I)`` outside the mask left out."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x ``(..., I)`` to ``(..., O)``."""
        return linear(x, self.weight * self.mask, self.bias)


class MaskedNetwork(nn.Module):
    """From x ``(..., K)`` and context ``(..., C)``, if any, to ``(..., K, P)``, theta_d of each dimension d.

    Args:
        levels: of the dimensions, ``(K,)``, from 0; a dimension sees those of lower levels, and all see the context.
        context: C, or 0 without one.
        hidden: widths of the hidden layers, one at least.
        outputs: P.
    """

    def __init__(self, levels: Tensor, context: int, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.levels = int(levels.max()) + 1
        self.outputs = outputs
        # A hidden unit of degree m sees levels up to m; one of degree -1 sees the context alone.
        degrees = [torch.linspace(-1, self.levels - 2, width).round() for width in hidden]
        inputs = [levels, *degrees[:-1]]
        masks = [after[:, None] >= before for before, after in zip(inputs, degrees, strict=True)]
        last = (levels[:, None] > degrees[-1]).repeat_interleave(outputs, 0)
        self.layers = nn.ModuleList(MaskedLinear(mask) for mask in masks)
        self.context = nn.Linear(context, hidden[0], bias=False) if context else None
        self.last = MaskedLinear(last)
        with torch.no_grad():
            self.last.weight.mul_(START)
            self.last.bias.zero_()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Theta ``(..., K, P)``."""
        first, *others = self.layers
        h = relu(first(x) if self.context is None else first(x) + self.context(context))
        for layer in others:
            h = relu(layer(h))
        return self.last(h).unflatten(-1, (-1, self.outputs))


class MaskedTransform(Transform):
    """The map x -> y given the context ``(..., C)``, if the network takes one.

    Args:
        network: gives theta.
        curve: f, whose ``forward`` gives y and log f'(x), and whose ``inverse`` gives x.
        context: of each datum.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, network: MaskedNetwork, curve: Any, context: Tensor | None = None) -> None:
        super().__init__(cache_size=1)
        self.network = network
        self.curve = curve
        self.context = context
        self._slopes: tuple[Tensor | None, Tensor | None] = (None, None)

    def _call(self, x: Tensor) -> Tensor:
        y, log_slope = self.curve.forward(x, self.network(x, self.context))
        self._slopes = (x, log_slope)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x = torch.zeros_like(y)
        for _ in range(self.network.levels):
            x = self.curve.inverse(y, self.network(x, self.context))
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum of log f'(x_d), ``(...)``; of its own output it is already known."""
        seen, log_slope = self._slopes
        if seen is not x or log_slope is None:
            _, log_slope = self.curve.forward(x, self.network(x, self.context))
        return log_slope.sum(-1)


def autoregressive(columns: int, layer: int) -> Tensor:
    """Levels 0..K - 1, turned around in every other layer."""
    order = torch.arange(columns)
    return order.flip(0) if layer % 2 else order


def coupling(columns: int, layer: int) -> Tensor:
    """Levels 0 and 1 in turn, exchanged in every other layer."""
    return (torch.arange(columns) + layer) % 2
