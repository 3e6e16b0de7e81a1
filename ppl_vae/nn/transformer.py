"""A small transformer whose places attend to earlier ones alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from ppl_vae.declaration import require
from ppl_vae.nn.causal import Enters, check_declared
from ppl_vae.nn.layered import LayeredNetwork, Layers
from ppl_vae.nn.pooling import Pool
from ppl_vae.nn.sinusoids import sinusoids

__all__ = ["Transformer"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transformer(LayeredNetwork):
    """Layers of causal self-attention (Vaswani et al. 2017), normalized before each part (Radford et al. 2019).

    h' = h + attention(norm(h)), h'' = h' + W_2 gelu(W_1 norm(h')), places told by sinusoids, so that rows may be longer than
    those that were fitted

    Args:
        hidden: width.
        layers: how many stand above each other.
        heads: of the attention; they divide the width.
        dropout: probability with which features are left out, in training.
        word_dropout: probability with which an element is hidden from those after it in training (Bowman et al. 2016).
        enters: where z enters a decoder: before the first element (``state``), where all places attend to it, beside each of
            the ``inputs``, or ``both``.
        pool: what an encoder keeps of a row: the features of its end (``last``), or the ``mean`` or ``max`` over its elements.

    Raises:
        ValueError: numbers out of range, or a width that the heads do not divide.

    Examples:
        >>> from ppl_vae.nn.causal import Elements
        >>> network = Transformer(hidden=8, heads=2).build_causal(Elements(levels=5), (5,))
        >>> network(torch.zeros(3, 7, dtype=torch.int64)).shape
        torch.Size([3, 7, 5])
    """

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.0
    word_dropout: float = 0.0
    enters: Enters = "both"
    pool: Pool = "last"

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads"):
            require(getattr(self, name) >= 1, f"{name} of at least 1", getattr(self, name))
        require(self.hidden % (2 * self.heads) == 0, f"an even hidden width for each of {self.heads} heads", self.hidden)
        check_declared(self.dropout, self.word_dropout, self.enters, self.pool)

    def blocks(self) -> Blocks:
        """The layers."""
        return Blocks(self.hidden, self.layers, self.heads, self.dropout)


class Blocks(Layers):
    """Layers of attention on ``(N, T, H)``, their places told."""

    def __init__(self, hidden: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.width = hidden
        self.layers = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """All places at once."""
        x = x + sinusoids(torch.arange(x.shape[1], device=x.device), self.width).to(x.dtype)
        for layer in self.layers:
            x, _ = layer(x)
        found: Tensor = self.norm(x)
        return found

    def empty(self, like: Tensor, rows: int) -> tuple[Any, ...]:
        """No keys and values yet."""
        return (None,) * len(self.layers)

    def advance(self, x: Tensor, seen: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """One place ``(N, H)``, and the keys and values of each layer up to it."""
        place = 0 if seen[0] is None else seen[0][0].shape[-2]
        x = (x + sinusoids(torch.tensor([place], device=x.device), self.width).to(x.dtype))[:, None]
        kept = []
        for layer, before in zip(self.layers, seen, strict=True):
            x, now = layer(x, before)
            kept.append(now)
        return self.norm(x)[:, 0], tuple(kept)


class Block(nn.Module):
    """Attention, then a perceptron of each place."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.to_three, self.mixed = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, before: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Places ``(N, T, H)``; after others whose keys and values ``(N, heads, t, H / heads)`` are told, a single one."""
        query, key, value = self.to_three(self.first(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if before is not None:
            key, value = (torch.cat(pair, dim=-2) for pair in zip(before, (key, value), strict=True))
        found = scaled_dot_product_attention(query, key, value, is_causal=query.shape[-2] > 1)
        x = x + self.dropout(self.mixed(found.movedim(1, 2).flatten(-2)))
        return x + self.dropout(self.down(gelu(self.up(self.second(x))))), (key, value)
