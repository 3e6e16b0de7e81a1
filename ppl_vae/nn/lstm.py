"""The long short-term memory, as a network that sees what came earlier and as one that reads a row to its end."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.nn.causal import CausalModule, CausalNetwork, Elements, EmbeddedModule, Enters, check_declared, embedding
from ppl_vae.nn.pooling import Pool, mask_of, pooled

__all__ = ["LSTM"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTM(CausalNetwork):
    """Layers of long short-term memory (Hochreiter and Schmidhuber 1997), run along a row.

    As a decoder, or without latent variables, it gives the features of element t from those before it and z; as an encoder it
    reads a row of any length and says what is in it.

    Args:
        hidden: width of each layer's state.
        layers: how many stand above each other.
        embedding: width of a token's vector, or of what numbers are mapped to; by default that of the state.
        dropout: probability with which features are left out between layers, before the first and after the last, in training.
        word_dropout: probability with which an element is hidden from those after it in training, so that a decoder has to ask
            z (Bowman et al. 2016).
        projection: width of an affine map after the last layer; few features before a large vocabulary spare weights.
        enters: where z enters a decoder: the first ``state``, the ``inputs`` of every element, or ``both``.
        bidirectional: whether an encoder also reads rows from their end.
        pool: what an encoder keeps of a row: the state at its end (``last``), or the ``mean`` or ``max`` over its elements.

    Raises:
        ValueError: numbers out of range; on building, a decoder that is bidirectional.

    Examples:
        >>> from ppl_vae.nn.causal import Elements
        >>> network = LSTM(hidden=8).build_causal(Elements(levels=5), (5,), context=2)
        >>> network(torch.zeros(3, 7, dtype=torch.int64), torch.zeros(3, 2)).shape
        torch.Size([3, 7, 5])
    """

    hidden: int = 256
    layers: int = 1
    embedding: int | None = None
    dropout: float = 0.0
    word_dropout: float = 0.0
    projection: int | None = None
    enters: Enters = "both"
    bidirectional: bool = False
    pool: Pool = "last"

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "embedding", "projection"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} of at least 1", value)
        check_declared(self.dropout, self.word_dropout, self.enters, self.pool)

    def build_causal(self, elements: Elements, feature_shape: tuple[int, ...], context: int = 0) -> CausalModule:
        """The features of each element from those before it."""
        if self.bidirectional:
            raise ValueError("expected an LSTM that sees what came earlier, got a bidirectional one: leave bidirectional out")
        return CausalLSTM(self, elements, feature_shape, context)

    def build_encoder(self, elements: Elements, out_shape: tuple[int, ...]) -> nn.Module:
        """A module from rows and their lengths to ``(..., *out_shape)``."""
        return LSTMEncoder(self, elements, out_shape)

    def memory(self, inputs: int) -> nn.LSTM:
        """The layers, for inputs of this width."""
        dropout = self.dropout if self.layers > 1 else 0.0
        return Memory(inputs, self.hidden, self.layers, batch_first=True, dropout=dropout)


class Memory(nn.LSTM):
    """Layers that have gradients in evaluation as well, as AIS and gaps need them.

    What oneDNN and cuDNN keep for these they keep in training alone; without dropout the two are the same function.
    """

    def forward(self, *arguments: Any) -> Any:
        """As in evaluation, but ready for gradients where they are asked for."""
        if self.training or not torch.is_grad_enabled():
            return super().forward(*arguments)
        dropout = self.dropout
        self.training, self.dropout = True, 0.0
        try:
            return super().forward(*arguments)
        finally:
            self.training, self.dropout = False, dropout


class CausalLSTM(EmbeddedModule):
    """The state is that of the layers."""

    def __init__(self, declared: LSTM, elements: Elements, feature_shape: tuple[int, ...], context: int) -> None:
        super().__init__(
            elements,
            feature_shape,
            context,
            enters=declared.enters,
            width=declared.embedding or declared.hidden,
            outputs=declared.hidden,
            stateful=True,
            word_dropout=declared.word_dropout,
            dropout=declared.dropout,
            projection=declared.projection,
        )
        self.memory = declared.memory(self.input_size)
        self.state_shape = (2, declared.layers, declared.hidden)
        self.to_state = nn.Linear(context, math.prod(self.state_shape)) if self.in_state else None

    def hidden(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        """All places in one operation."""
        found: Tensor = self.memory(inputs, self.first(context, len(inputs)))[0]
        return found

    def first(self, context: Tensor | None, rows: int) -> tuple[Tensor, Tensor]:
        """Of the context, else zeros; ``(layers, rows, H)`` each."""
        if self.to_state is None or context is None:
            zeros = self.begin.new_zeros(self.state_shape[1], rows, self.state_shape[2])
            return zeros, zeros
        h, c = self.to_state(context).unflatten(-1, self.state_shape).permute(1, 2, 0, 3).contiguous().unbind(0)
        return h.tanh(), c

    def advance(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One place."""
        found, state = self.memory(inputs[:, None], state)
        return found[:, 0], state


class LSTMEncoder(nn.Module):
    """What one LSTM, or another from the end on, keeps of a row; padding is left out by masks, so that shapes stay fixed."""

    def __init__(self, declared: LSTM, elements: Elements, out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.elements = elements
        self.pool = declared.pool
        self.out_shape = out_shape
        self.word_dropout = declared.word_dropout
        width = declared.embedding or declared.hidden
        self.embedding = embedding(elements, width)
        self.dropout = nn.Dropout(declared.dropout)
        self.forwards = declared.memory(width)
        self.backwards = declared.memory(width) if declared.bidirectional else None
        outputs = declared.hidden * (2 if declared.bidirectional else 1)
        self.projection = nn.Identity() if declared.projection is None else nn.Linear(outputs, declared.projection)
        self.output = nn.Linear(declared.projection or outputs, math.prod(out_shape))

    def forward(self, x: Tensor, length: Tensor | None = None) -> Tensor:
        """Map rows x ``(..., T, *shape)`` of these lengths ``(...)`` to ``(..., *out_shape)``."""
        at = x.dim() - len(self.elements.shape) - 1
        lead = x.shape[:at]
        sizes = None if length is None else length.expand(lead).reshape(-1)
        seen = self.embedding(x.reshape(-1, *x.shape[at:]))
        if self.training and self.word_dropout:
            kept = torch.rand(seen.shape[:2], device=seen.device) >= self.word_dropout
            seen = seen * kept[..., None]
        inside = mask_of(sizes, seen)
        seen = self.dropout(seen)
        parts = [pooled(self.forwards(seen)[0], inside, sizes, self.pool)]
        if self.backwards is not None:
            turned = reversed_rows(seen, sizes)
            parts.append(pooled(self.backwards(turned)[0], inside, sizes, self.pool))
        found = self.output(self.projection(self.dropout(torch.cat(parts, dim=-1))))
        return found.reshape(*lead, *self.out_shape)


def reversed_rows(x: Tensor, length: Tensor | None) -> Tensor:
    """Rows x ``(N, T, E)`` from the last element to the first, padding after them as before.

    Examples:
        >>> reversed_rows(torch.tensor([[[1.0], [2.0], [0.0]]]), torch.tensor([2]))[0, :, 0]
        tensor([2., 1., 0.])
    """
    if length is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    turned = length[:, None] - 1 - steps
    places = torch.where(turned >= 0, turned, steps)
    return x.gather(1, places[..., None].expand_as(x))
