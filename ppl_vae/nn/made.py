"""The masked autoencoder as a network that sees what came earlier (Germain et al. 2015)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, relu

from ppl_vae.declaration import require
from ppl_vae.nn.causal import CausalModule, CausalNetwork, Elements
from ppl_vae.nn.masked import MaskedLinear

__all__ = ["MADE"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MADE(CausalNetwork):
    """A multi-layer perceptron of which masks leave the paths from earlier elements alone (Germain et al. 2015).

    h' = max((M * W) h + b + V z, 0): a unit of degree m sees the elements up to m and is seen by those after it.

    It reads vectors, and grids line by line, in the order of their elements; each has weights of its own. "MADE: masked
    autoencoder for distribution estimation"; the context z enters the first layer.

    Args:
        hidden: widths of the hidden layers, one at least.

    Raises:
        ValueError: no layer, or a width below one; on building, rows of different lengths.

    Examples:
        >>> from ppl_vae.nn.causal import Elements
        >>> network = MADE(hidden=(16,)).build_causal(Elements(grid=(1, 6)), (1,))
        >>> network(torch.zeros(2, 6)).shape
        torch.Size([2, 6, 1])
    """

    reads_back: ClassVar[bool] = False
    grids: ClassVar[tuple[int, ...]] = (1, 2, 3)

    hidden: tuple[int, ...] = (500,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        require(bool(self.hidden) and all(width >= 1 for width in self.hidden), "hidden widths of at least 1", self.hidden)

    def build_causal(self, elements: Elements, feature_shape: tuple[int, ...], context: int = 0) -> CausalModule:
        """The features of each element from those before it."""
        if elements.grid is None:
            raise ValueError("expected rows that all have one length for MADE, got others: use CausalConv or LSTM")
        return MaskedPerceptron(self.hidden, elements, feature_shape, context)

    def build_encoder(self, elements: Elements, out_shape: tuple[int, ...]) -> nn.Module:
        """It reads no rows back.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected a network that sees a whole datum, got MADE, which sees what came earlier: use MLP")


class MaskedPerceptron(CausalModule):
    """All elements in one pass; step by step the pass is repeated with what is known so far.

    Args:
        hidden: widths of the hidden layers.
        elements: of the rows; tokens enter as one-hot vectors.
        feature_shape: of the features of an element.
        context: K, 0 without one.
    """

    def __init__(self, hidden: tuple[int, ...], elements: Elements, feature_shape: tuple[int, ...], context: int) -> None:
        super().__init__(elements, feature_shape, context)
        assert elements.grid is not None
        self.places = math.prod(elements.grid)
        inputs = elements.levels if elements.tokens and elements.levels else elements.size
        places = torch.arange(self.places)
        # A unit of degree m sees elements up to m, one of degree -1 the context alone, without which it would be idle.
        lowest = -1 if context else min(0, self.places - 2)
        degrees = [places.repeat_interleave(inputs)]
        degrees += [torch.linspace(lowest, self.places - 2, width).round() for width in hidden]
        self.layers = nn.ModuleList(MaskedLinear(after[:, None] >= before) for before, after in itertools.pairwise(degrees))
        self.told = nn.Linear(context, hidden[0], bias=False) if context else None
        self.output = MaskedLinear((places[:, None] > degrees[-1]).repeat_interleave(math.prod(feature_shape), 0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Features ``(..., T, *features)`` of all elements of rows x ``(..., T, *shape)``, with their context ``(..., K)``."""
        levels, event = self.elements.levels, 1 + len(self.elements.shape)
        if self.elements.tokens and levels:
            x, event = one_hot(x.long(), levels), 2
        h = self.layers[0](x.flatten(-event).to(self.output.weight.dtype))
        h = relu(h if self.told is None else h + self.told(context))
        for layer in self.layers[1:]:
            h = relu(layer(h))
        return self.output(h).unflatten(-1, (self.places, *self.feature_shape))

    def start(self, context: Tensor | None, rows: int) -> tuple[Tensor, Any]:
        """Features ``(rows, *features)`` of the first element, and the state from which :meth:`step` goes on."""
        x = self.output.weight.new_zeros(rows, self.places, *self.elements.shape)
        return self(x, context)[:, 0], (x, 0, context)

    def step(self, element: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Features ``(rows, *features)`` of the element after this one ``(rows, *shape)``, and the state after it."""
        x, place, context = state
        x = torch.cat([x[:, :place], element[:, None].to(x.dtype), x[:, place + 1 :]], dim=1)
        return self(x, context)[:, place + 1], (x, place + 1, context)
