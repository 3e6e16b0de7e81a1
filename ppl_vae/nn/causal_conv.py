"""Causal convolutions: a window of elements before each, which dilation makes long."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ppl_vae.declaration import require
from ppl_vae.nn.causal import Enters, check_declared
from ppl_vae.nn.layered import LayeredNetwork, Layers
from ppl_vae.nn.pooling import Pool

__all__ = ["CausalConv"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalConv(LayeredNetwork):
    """Gated residual convolutions along a row that see no later element (van den Oord et al. 2016, "WaveNet").

    h' = h + W (tanh(a) * sigmoid(b)), (a, b) = conv(h) over the places t, t - d, ..., t - (kernel - 1) d

    The dilation d doubles from layer to layer, so that features of element t hang on the ``1 + (kernel - 1) (2^layers - 1)``
    elements before it. One layer is a neural n-gram (Bengio et al. 2003).

    Args:
        hidden: channels.
        layers: how many stand above each other.
        kernel: places that a convolution sees.
        dropout: probability with which features are left out, in training.
        word_dropout: probability with which an element is hidden from those after it in training (Bowman et al. 2016).
        enters: where z enters a decoder: before the first element (``state``), beside each of the ``inputs``, or ``both``. What
            stands before the first element is out of sight of those far behind it.
        pool: what an encoder keeps of a row: the features of its end (``last``), or the ``mean`` or ``max`` over its elements.

    Raises:
        ValueError: numbers out of range.

    Examples:
        >>> from ppl_vae.nn.causal import Elements
        >>> network = CausalConv(hidden=8, layers=2).build_causal(Elements(levels=5), (5,))
        >>> network(torch.zeros(3, 7, dtype=torch.int64)).shape
        torch.Size([3, 7, 5])
    """

    hidden: int = 128
    layers: int = 5
    kernel: int = 3
    dropout: float = 0.0
    word_dropout: float = 0.0
    enters: Enters = "both"
    pool: Pool = "mean"

    def __post_init__(self) -> None:
        for name, least in (("hidden", 1), ("layers", 1), ("kernel", 2)):
            require(getattr(self, name) >= least, f"{name} of at least {least}", getattr(self, name))
        check_declared(self.dropout, self.word_dropout, self.enters, self.pool)

    def blocks(self) -> Convolutions:
        """The layers."""
        return Convolutions(self.hidden, self.layers, self.kernel, self.dropout)


class Convolutions(Layers):
    """Gated residual layers of doubling dilation on ``(N, T, H)``."""

    def __init__(self, hidden: int, layers: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.hidden = hidden
        self.dilations = tuple(2**layer for layer in range(layers))
        self.kernel = kernel
        self.windows = nn.ModuleList(nn.Conv1d(hidden, 2 * hidden, kernel, dilation=d) for d in self.dilations)
        self.mixers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in self.dilations)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """All places at once."""
        for window, mixer, dilation in zip(self.windows, self.mixers, self.dilations, strict=True):
            found = window(pad(x.mT, ((self.kernel - 1) * dilation, 0))).mT
            x = x + mixer(self.dropout(gated(found)))
        return x

    def empty(self, like: Tensor, rows: int) -> tuple[Tensor, ...]:
        """What the layers have seen of so many rows before their first element: zeros ``(rows, (kernel - 1) d, H)`` each."""
        return tuple(like.new_zeros(rows, (self.kernel - 1) * dilation, self.hidden) for dilation in self.dilations)

    def advance(self, x: Tensor, seen: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One place ``(N, H)``, and what the layers have seen with it."""
        kept = []
        for window, mixer, before in zip(self.windows, self.mixers, seen, strict=True):
            places = torch.cat([before, x[:, None]], dim=1)
            kept.append(places[:, 1:])
            x = x + mixer(self.dropout(gated(window(places.mT)[..., 0])))
        return x, tuple(kept)


def gated(x: Tensor) -> Tensor:
    """tanh(a) * sigmoid(b) of the two halves of the last axis."""
    a, b = x.chunk(2, -1)
    return a.tanh() * b.sigmoid()
