"""Networks of rows whose layers stand above each other, each place of them hanging on none that comes later."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.nn.causal import CausalModule, CausalNetwork, Elements, EmbeddedModule, Enters, embedding
from ppl_vae.nn.pooling import Pool, mask_of, pooled

__all__ = ["LayeredNetwork", "Layers"]


class Layers(nn.Module, abc.ABC):
    """Layers from ``(N, T, H)`` to ``(N, T, H)``, none of whose places hangs on later ones."""

    @abc.abstractmethod
    def empty(self, like: Tensor, rows: int) -> tuple[Any, ...]:
        """What each layer keeps of so many rows before their first element, of the dtype and on the device of a tensor."""

    @abc.abstractmethod
    def advance(self, x: Tensor, seen: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """One place ``(N, H)``, and what the layers keep with it."""


class LayeredNetwork(CausalNetwork):
    """One that is declared by its layers, decoder and encoder alike."""

    # Each network declares these fields among its own, so this class is no dataclass.
    hidden: int
    dropout: float
    word_dropout: float
    enters: Enters
    pool: Pool

    @abc.abstractmethod
    def blocks(self) -> Layers:
        """The layers, of width ``hidden``."""

    def build_causal(self, elements: Elements, feature_shape: tuple[int, ...], context: int = 0) -> CausalModule:
        """The features of each element from those before it."""
        return LayeredModule(self, elements, feature_shape, context)

    def build_encoder(self, elements: Elements, out_shape: tuple[int, ...]) -> nn.Module:
        """A module from rows and their lengths to ``(..., *out_shape)``; here too no place hangs on later ones."""
        return PooledEncoder(elements, self.hidden, self.blocks(), self.pool, out_shape)


class LayeredModule(EmbeddedModule):
    """The state is what each layer keeps of the elements so far."""

    def __init__(self, declared: LayeredNetwork, elements: Elements, feature_shape: tuple[int, ...], context: int) -> None:
        super().__init__(
            elements,
            feature_shape,
            context,
            enters=declared.enters,
            width=declared.hidden,
            outputs=declared.hidden,
            word_dropout=declared.word_dropout,
            dropout=declared.dropout,
        )
        self.mixed = nn.Linear(self.input_size, declared.hidden)
        self.blocks = declared.blocks()

    def hidden(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        """All places in one pass."""
        found: Tensor = self.blocks(self.mixed(inputs))
        return found

    def first(self, context: Tensor | None, rows: int) -> Any:
        """Nothing seen."""
        return self.blocks.empty(self.begin, rows)

    def advance(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One place."""
        return self.blocks.advance(self.mixed(inputs), state)


class PooledEncoder(nn.Module):
    """Layers that see no later element, and what is kept of a row by pooling.

    Args:
        elements: of the rows.
        width: H, of what the layers map.
        layers: from ``(N, T, H)`` to ``(N, T, H)``, none of whose places hangs on later ones, so that padding changes nothing.
        pool: what is kept.
        out_shape: of a result.
    """

    def __init__(self, elements: Elements, width: int, layers: Layers, pool: Pool, out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.elements = elements
        self.embedding = embedding(elements, width)
        self.layers = layers
        self.pool: Pool = pool
        self.output = nn.Linear(width, torch.Size(out_shape).numel())
        self.out_shape = out_shape

    def forward(self, x: Tensor, length: Tensor | None = None) -> Tensor:
        """Map rows x ``(..., T, *shape)`` of these lengths ``(...)`` to ``(..., *out_shape)``."""
        at = x.dim() - len(self.elements.shape) - 1
        lead = x.shape[:at]
        sizes = None if length is None else length.expand(lead).reshape(-1)
        hidden = self.layers(self.embedding(x.reshape(-1, *x.shape[at:])))
        found = self.output(pooled(hidden, mask_of(sizes, hidden), sizes, self.pool))
        return found.reshape(*lead, *self.out_shape)
