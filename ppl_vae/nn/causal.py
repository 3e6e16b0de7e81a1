"""Networks that see what came earlier: features of element t from a context z and x_1, ..., x_(t-1)."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.nn.base import Network
from ppl_vae.nn.pooling import Pool
from ppl_vae.types import DataSpec

__all__ = [
    "CausalModule",
    "CausalNetwork",
    "Elements",
    "EmbeddedModule",
    "Enters",
    "SequenceNetwork",
    "check_declared",
    "embedding",
]

Enters = Literal["state", "inputs", "both"]
"""Where the context of a causal network enters: before the first element, beside each of them, or both."""


def check_declared(dropout: float, word_dropout: float, enters: Enters, pool: Pool) -> None:
    """Raise ``ValueError`` for what all networks of rows declare alike, if it is out of range."""
    for name, share in (("dropout", dropout), ("word_dropout", word_dropout)):
        require(0 <= share < 1, f"a {name} in [0, 1)", share)
    require(enters in get_args(Enters), f"enters of {', '.join(get_args(Enters))}", enters)
    require(pool in get_args(Pool), f"a pool of {', '.join(get_args(Pool))}", pool)


class Elements(NamedTuple):
    """What the elements of a row are: numbers of a shape, or tokens of which there are so many.

    A row that is the raster of a grid, line by line from the top left, has its height and width in ``grid``.
    """

    shape: tuple[int, ...] = ()
    levels: int | None = None
    grid: tuple[int, int] | None = None

    @classmethod
    def of(cls, spec: DataSpec) -> Elements:
        """Those of such data: of rows of one length ``(T, *shape)`` the first axis is that of the elements."""
        shape = spec.event_shape if spec.ragged else spec.event_shape[1:]
        if not spec.kind.levelled:
            return cls(shape)
        told = spec.fields[0].levels if spec.ragged else None
        return cls(shape, spec.levels or told)

    @property
    def tokens(self) -> bool:
        """Whether they are single tokens."""
        return self.levels is not None and not self.shape

    @property
    def size(self) -> int:
        """Numbers in an element."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceNetwork(Network, abc.ABC):
    """A network of rows of elements, whatever their length."""

    def refuse_unused(self, role: str, *names: str) -> None:
        """Raise ``ValueError`` for an option that is declared and has no effect on the network as ``role``."""
        for field in dataclasses.fields(self):
            value = self.__dict__[field.name]
            if field.name in names and value != field.default:
                raise ValueError(
                    f"expected no {field.name} of {type(self).__name__} as {role}, where it has no effect, got {value!r}: "
                    "leave it out"
                )

    @abc.abstractmethod
    def build_encoder(self, elements: Elements, out_shape: tuple[int, ...]) -> nn.Module:
        """A module from x ``(..., T, *elements.shape)`` and, of padded rows, their length ``(...)`` to ``(..., *out_shape)``.

        What stands in the padding changes nothing, and nor does its length.
        """

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module that reads numbers ``(..., *in_shape)`` along their first axis, and gives ``(..., *out_shape)``."""
        return self.build_encoder(Elements(tuple(in_shape[1:])), out_shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalNetwork(SequenceNetwork, abc.ABC):
    """A network whose features of an element depend on those before it alone, and on a context.

    As a decoder it makes the text VAE (Bowman et al. 2016) and Sketch-RNN (Ha and Eck 2018); without a context the language
    model.

    Class attributes:
        reads_back: whether it could also read rows as an encoder.
        grids: how many axes data may have of which it reads each place in turn, as an image line by line; none of networks that
            read rows of elements along their first axis, whatever their length.
    """

    reads_back: ClassVar[bool] = True
    grids: ClassVar[tuple[int, ...]] = ()

    @abc.abstractmethod
    def build_causal(self, elements: Elements, feature_shape: tuple[int, ...], context: int = 0) -> CausalModule:
        """The built network.

        Args:
            elements: of the rows.
            feature_shape: of the features of an element, ``(P, *elements.shape)`` for most likelihoods.
            context: K, the length of the context; 0 without one.
        """

    def build_on_grid(self, elements: Elements, feature_shape: tuple[int, ...], context: tuple[int, ...]) -> CausalModule:
        """The built network along the raster of a grid, with a context of a shape or none ``()``, which it gets as a vector."""
        return self.build_causal(elements, feature_shape, math.prod(context) if context else 0)

    def causal_story(self, context: str = "") -> str:
        """Its features as they stand in a model's story: ``LSTM(x_<t, z)``."""
        return f"{type(self).__name__}(x_<t{', ' + context if context else ''})"


class CausalModule(nn.Module, abc.ABC):
    """The features of all elements in one pass, or of one after the other with a state that is kept.

    Args:
        elements: of the rows.
        feature_shape: of the features of an element.
        context: K, 0 without one.

    Attributes:
        output: the last layer, which a subclass makes.
    """

    output: nn.Linear

    def __init__(self, elements: Elements, feature_shape: tuple[int, ...], context: int) -> None:
        super().__init__()
        self.elements = elements
        self.feature_shape = feature_shape
        self.context = context

    @abc.abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Features ``(..., T, *features)`` of all elements of rows x ``(..., T, *shape)``, with their context ``(..., K)``."""

    @abc.abstractmethod
    def start(self, context: Tensor | None, rows: int) -> tuple[Tensor, Any]:
        """Features ``(rows, *features)`` of the first element, and the state from which :meth:`step` goes on."""

    @abc.abstractmethod
    def step(self, element: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Features ``(rows, *features)`` of the element after this one ``(rows, *shape)``, and the state after it."""

    @torch.no_grad()
    def start_at(self, output: Tensor) -> None:
        """Let the features of every element lie around ``output (*features)`` at first."""
        bias = self.output.bias
        bias.copy_(output.flatten().repeat(bias.numel() // output.numel()))

    def start_flat(self) -> None:
        """Let the features of every element be zero at first, whatever came before."""
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)


class EmbeddedModule(CausalModule):
    """One that embeds elements, and is told each of them at the place after its own.

    A subclass gives ``hidden``, ``first`` and ``advance``, on inputs that are embedded already.

    Args:
        elements: of the rows.
        feature_shape: of the features of an element.
        context: K, 0 without one.
        enters: where the context enters.
        width: E, of an embedded element.
        outputs: H, hidden features of an element.
        stateful: whether the context enters a state of the subclass, not what stands before the first element.
        word_dropout: probability with which an element is hidden from those after it in training (Bowman et al. 2016).
        dropout: of the embedded inputs and of the hidden features, in training.
        projection: width of an affine map between these and the features, none if not given.
    """

    def __init__(
        self,
        elements: Elements,
        feature_shape: tuple[int, ...],
        context: int,
        *,
        enters: Enters,
        width: int,
        outputs: int,
        stateful: bool = False,
        word_dropout: float = 0.0,
        dropout: float = 0.0,
        projection: int | None = None,
    ) -> None:
        super().__init__(elements, feature_shape, context)
        self.stateful = stateful
        self.in_state = context > 0 and enters in ("state", "both")
        self.in_inputs = context > 0 and enters in ("inputs", "both")
        self.word_dropout = word_dropout
        self.embedding = embedding(elements, width)
        self.begin = nn.Parameter(torch.zeros(width))  # what stands before the first element
        self.to_begin = nn.Linear(context, width) if self.in_state and not self.stateful else None
        self.input_size = width + context * self.in_inputs
        self.dropout = nn.Dropout(dropout)
        last = outputs if projection is None else projection
        self.projection = nn.Identity() if projection is None else nn.Linear(outputs, projection)
        self.output = nn.Linear(last, math.prod(feature_shape))

    @abc.abstractmethod
    def hidden(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        """Hidden features ``(N, T, H)`` of inputs ``(N, T, E)``, of which those of place t are what came before element t."""

    @abc.abstractmethod
    def first(self, context: Tensor | None, rows: int) -> Any:
        """The state before the first element of so many rows, with their context ``(rows, K)``."""

    @abc.abstractmethod
    def advance(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Hidden features ``(N, H)`` of the next element, whose input is ``(N, E)``, and the state after it."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Features ``(..., T, *features)`` of all elements of rows x ``(..., T, *shape)``, with their context ``(..., K)``."""
        lead = x.shape[: x.dim() - 1 - len(self.elements.shape)]
        if context is not None:
            lead = torch.broadcast_shapes(lead, context.shape[:-1])
            context = context.expand(*lead, self.context).reshape(-1, self.context)
        event = x.shape[x.dim() - 1 - len(self.elements.shape) :]
        inputs = self._inputs(x.expand(*lead, *event).reshape(-1, *event), context)
        found = self._features(self.hidden(inputs, context))
        return found.reshape(*lead, *found.shape[1:])

    def start(self, context: Tensor | None, rows: int) -> tuple[Tensor, Any]:
        """Features ``(rows, *features)`` of the first element, and the state from which :meth:`step` goes on."""
        inputs = self._beside(self._before(context, rows), context)
        hidden, state = self.advance(inputs, self.first(context, rows))
        return self._features(hidden), (state, context)

    def step(self, element: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Features ``(rows, *features)`` of the element after this one ``(rows, *shape)``, and the state after it."""
        state, context = state
        hidden, state = self.advance(self._beside(self.embedding(element), context), state)
        return self._features(hidden), (state, context)

    def _inputs(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Embedded rows ``(N, T, E)``, each element one place later than it stands."""
        seen = self.embedding(x[:, :-1])
        if self.training and self.word_dropout:
            kept = torch.rand(seen.shape[:2], device=seen.device) >= self.word_dropout
            seen = seen * kept[..., None]
        return self._beside(torch.cat([self._before(context, len(x))[:, None], seen], dim=1), context)

    def _before(self, context: Tensor | None, rows: int) -> Tensor:
        """What stands before the first element of so many rows, ``(rows, E)``."""
        begin = self.begin.expand(rows, -1)
        return begin if self.to_begin is None or context is None else begin + self.to_begin(context)

    def _beside(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        inputs = self.dropout(inputs)
        if context is None or not self.in_inputs:
            return inputs
        told = context if inputs.dim() == 2 else context[:, None].expand(-1, inputs.shape[1], -1)
        return torch.cat([inputs, told], dim=-1)

    def _features(self, hidden: Tensor) -> Tensor:
        return self.output(self.projection(self.dropout(hidden))).unflatten(-1, self.feature_shape)


class Affine(nn.Module):
    """Elements of numbers ``(..., *shape)`` as vectors."""

    def __init__(self, elements: Elements, width: int) -> None:
        super().__init__()
        self.event_dim = len(elements.shape)
        self.layer = nn.Linear(elements.size, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map to ``(..., E)``."""
        flat = x.flatten(-self.event_dim) if self.event_dim else x[..., None]
        return self.layer(flat.to(self.layer.weight.dtype))


class Embedding(nn.Module):
    """Tokens as vectors, learned for each."""

    def __init__(self, levels: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(levels, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(...)`` to ``(..., E)``."""
        return self.table(x.long())


def embedding(elements: Elements, width: int) -> nn.Module:
    """The module from elements to vectors ``(..., width)``: a learned one for each token, an affine map of numbers."""
    return Embedding(elements.levels, width) if elements.tokens and elements.levels else Affine(elements, width)
