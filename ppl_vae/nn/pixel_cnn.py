"""The convolutional network along the raster of a grid (van den Oord, Kalchbrenner and Kavukcuoglu 2016)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from ppl_vae.declaration import require
from ppl_vae.nn.causal import CausalModule, CausalNetwork, Elements, EmbeddedModule, check_declared

__all__ = ["PixelCNN"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelCNN(CausalNetwork):
    """Convolutions that see what is above a place, and to the left of it in its line (van den Oord et al. 2016).

    u = gate(conv(v)), v' = v + W u, h' = h + W gate(conv(h) + W u + W z), gate(a, b) = tanh(a) * sigmoid(b)

    The vertical stack v sees all lines above, the horizontal one h its own line as far as the place, and what v found, so that
    no place is out of sight: "Conditional image generation with PixelCNN decoders". Grids of codes or of images whose channels
    are independent given earlier places; the context is a vector, or a map with a vector for each place.

    Args:
        channels: of both stacks.
        layers: how many stand above each other.
        kernel: places that a convolution sees across, an odd number: it sees half of it to the left, above, and to the right
            in the lines above.
        gates: width of the gates, by default half the channels.
        gated: whether they are gates, or rectified linear units as in "Pixel recurrent neural networks".
        dropout: probability with which what a gate lets through is left out, in training.
        word_dropout: probability with which an element is hidden from those after it in training (Bowman et al. 2016).

    Raises:
        ValueError: numbers out of range; on building, data that are no grid.

    Examples:
        >>> from ppl_vae.nn.causal import Elements
        >>> network = PixelCNN(channels=8, layers=2).build_causal(Elements(levels=5, grid=(3, 4)), (5,))
        >>> network(torch.zeros(2, 12, dtype=torch.int64)).shape
        torch.Size([2, 12, 5])
    """

    reads_back: ClassVar[bool] = False
    grids: ClassVar[tuple[int, ...]] = (2, 3)

    channels: int = 64
    layers: int = 8
    kernel: int = 3
    gates: int | None = None
    gated: bool = True
    dropout: float = 0.0
    word_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("layers", 1), ("kernel", 3)):
            require(getattr(self, name) >= least, f"{name} of at least {least}", getattr(self, name))
        require(self.kernel % 2 == 1, "an odd kernel", self.kernel)
        require(self.gates is None or self.gates >= 1, "gates of at least 1", self.gates)
        check_declared(self.dropout, self.word_dropout, "both", "last")

    @property
    def width(self) -> int:
        """Of the gates."""
        return max(1, self.channels // 2) if self.gates is None else self.gates

    def build_causal(self, elements: Elements, feature_shape: tuple[int, ...], context: int = 0) -> CausalModule:
        """The features of each place from those before it in the order of reading, and from a vector."""
        return self.build_on_grid(elements, feature_shape, (context,) if context else ())

    def build_on_grid(self, elements: Elements, feature_shape: tuple[int, ...], context: tuple[int, ...]) -> CausalModule:
        """The same with a vector ``(C,)``, a map ``(C, H, W)`` or nothing as context."""
        if elements.grid is None:
            raise ValueError("expected grids (H, W) or (channels, H, W) for PixelCNN, got rows: use CausalConv or LSTM")
        return PixelConvolutions(self, elements, feature_shape, context)

    def build_encoder(self, elements: Elements, out_shape: tuple[int, ...]) -> nn.Module:
        """It reads no rows back.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected a network that sees a whole datum, got PixelCNN, which sees what came earlier: use Conv")

    def causal_story(self, context: str = "") -> str:
        """Its features as they stand in a model's story: ``PixelCNN(x_<t, z)``."""
        return f"PixelCNN(x_<t{', ' + context if context else ''})"


class Gate(nn.Module):
    """Tanh(a) * sigmoid(b) of the two halves of channels ``(N, 2 G, H, W)``, or max(a, 0) of channels ``(N, G, H, W)``."""

    def __init__(self, width: int, *, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.inputs = 2 * width if gated else width

    def forward(self, x: Tensor) -> Tensor:
        """What it lets through."""
        if not self.gated:
            return relu(x)
        a, b = x.chunk(2, 1)
        return a.tanh() * b.sigmoid()


class Layer(nn.Module):
    """One layer of both stacks, ``top`` the last of them, of which the vertical stack ends with what it tells the other."""

    def __init__(self, declared: PixelCNN, *, top: bool) -> None:
        super().__init__()
        channels, width = declared.channels, declared.width
        self.reach = declared.kernel // 2
        self.gate = Gate(width, gated=declared.gated)
        inputs = self.gate.inputs
        self.above = nn.Conv2d(channels, inputs, (self.reach + 1, declared.kernel), padding=(0, self.reach))  # lines by hand
        self.left = nn.Conv2d(channels, inputs, (1, self.reach + 1))
        self.link = nn.Conv2d(width, inputs, 1)
        self.mix_above = None if top else nn.Conv2d(width, channels, 1)
        self.mix_left = nn.Conv2d(width, channels, 1)
        self.dropout = nn.Dropout(declared.dropout)

    def vertical(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Of lines ``(N, C, reach + R, W)`` the last R a layer higher, and what the R lines below them are told."""
        found = self.dropout(self.gate(self.above(v)))
        v = v[:, :, self.reach :]
        return v if self.mix_above is None else v + self.mix_above(found), self.link(found)

    def horizontal(self, h: Tensor, told: Tensor) -> Tensor:
        """Of columns ``(N, C, R, reach + S)`` the last S a layer higher; all else that enters is in ``told (N, ., R, S)``."""
        found = self.dropout(self.gate(self.left(h) + told))
        mixed: Tensor = h[..., self.reach :] + self.mix_left(found)
        return mixed


class Told(NamedTuple):
    """What the context says at each place, ``(N, ., H, W)``, or at all places alike, ``(N, ., 1, 1)``.

    Args:
        above: to the inputs of the vertical stack, for the sake of the line below.
        left: to the inputs of the horizontal stack.
        gates: to the gates of each layer of that.
    """

    above: Tensor
    left: Tensor
    gates: tuple[Tensor, ...]


class State(NamedTuple):
    """Where the reading of a grid stands.

    Args:
        place: of the next element, in the order of reading.
        line: inputs of this line so far ``(N, C)``, which are a place late.
        above: of each layer the last lines that its vertical convolution saw, ``(N, C, reach, W)``.
        links: of each layer what this line is told from above, ``(N, ., 1, W)``.
        left: of each layer the last places that its horizontal convolution saw, ``(N, C, 1, reach)``.
        told: by the context, if there is one.
    """

    place: int
    line: tuple[Tensor, ...]
    above: tuple[Tensor, ...]
    links: tuple[Tensor, ...]
    left: tuple[Tensor, ...]
    told: Told | None


class PixelConvolutions(EmbeddedModule):
    """Two stacks of convolutions; step by step a line enters the vertical one when its last element is known.

    An input of the horizontal stack is the element before its place in the order of reading, so that of the first place of a
    line it is the last one of the line above.
    """

    layers: Any

    def __init__(
        self, declared: PixelCNN, elements: Elements, feature_shape: tuple[int, ...], context: tuple[int, ...]
    ) -> None:
        channels = declared.channels
        super().__init__(
            elements,
            feature_shape,
            math.prod(context) if context else 0,
            enters="state",
            stateful=True,
            width=channels,
            outputs=channels,
            word_dropout=declared.word_dropout,
        )
        assert elements.grid is not None
        self.height, self.width = elements.grid
        self.channels = channels
        self.reach = declared.kernel // 2
        self.context_shape = (context[0], *(context[1:] or (1, 1))) if context else ()
        self.layers = nn.ModuleList(Layer(declared, top=place == declared.layers) for place in range(1, declared.layers + 1))
        self.gates = Gate(declared.width, gated=declared.gated).inputs
        self.told = nn.Linear(context[0], 2 * channels + declared.layers * self.gates, bias=False) if context else None
        self.last = nn.Linear(channels, channels)

    def hidden(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        """All places in one pass: of the lines above those alone that have one below them."""
        told = self._told(context)
        h = inputs.unflatten(1, (self.height, self.width)).movedim(-1, 1)
        v = inputs[:, 1 : 1 + (self.height - 1) * self.width].unflatten(1, (self.height - 1, self.width)).movedim(-1, 1)
        if told is not None:
            h, v = h + told.left, v + _lines(told.above, 1, self.height)
        for place, layer in enumerate(self.layers):
            if self.height > 1:
                v, link = layer.vertical(pad(v, (0, 0, self.reach, 0)))
                link = pad(link, (0, 0, 1, 0))
            else:
                link = h.new_zeros(1, self.gates, 1, 1)
            h = layer.horizontal(pad(h, (self.reach, 0)), link if told is None else link + told.gates[place])
        return self._top(h.movedim(1, -1).flatten(1, 2))

    def first(self, context: Tensor | None, rows: int) -> State:
        """Nothing read."""
        empty = self.begin.new_zeros
        layers = range(len(self.layers))
        return State(
            place=0,
            line=(),
            above=tuple(empty(rows, self.channels, self.reach, self.width) for _ in layers),
            links=tuple(empty(rows, self.gates, 1, self.width) for _ in layers),
            left=tuple(empty(rows, self.channels, 1, self.reach) for _ in layers),
            told=self._told(context),
        )

    def advance(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """One place, after the line above it if it is the first of its line."""
        line, column = divmod(state.place, self.width)
        if line and not column:
            state = self._next_line(torch.stack([*state.line, inputs], -1)[:, :, None], line, state)
        elif column:
            state = state._replace(line=(*state.line, inputs))
        h, told = inputs[..., None, None], state.told
        if told is not None:
            h = h + _place(told.left, line, column)
        left = []
        for place, layer in enumerate(self.layers):
            link = state.links[place][..., column : column + 1]
            columns = torch.cat([state.left[place], h], -1)
            left.append(columns[..., 1:])
            h = layer.horizontal(columns, link if told is None else link + _place(told.gates[place], line, column))
        return self._top(h[..., 0, 0]), state._replace(place=state.place + 1, left=tuple(left))

    def _next_line(self, v: Tensor, line: int, state: State) -> State:
        """With the inputs ``(N, C, 1, W)`` of the line before this one."""
        if state.told is not None:
            v = v + _lines(state.told.above, line, line + 1)
        above, links = [], []
        for layer, before in zip(self.layers, state.above, strict=True):
            lines = torch.cat([before, v], 2)
            above.append(lines[:, :, 1:])
            v, link = layer.vertical(lines)
            links.append(link)
        left = tuple(torch.zeros_like(each) for each in state.left)
        return state._replace(line=(), above=tuple(above), links=tuple(links), left=left)

    def _told(self, context: Tensor | None) -> Told | None:
        if context is None or self.told is None:
            return None
        told = self.told(context.unflatten(-1, self.context_shape).movedim(-3, -1)).movedim(-1, -3)
        above, left, *gates = told.split([self.channels] * 2 + [self.gates] * len(self.layers), -3)
        return Told(above, left, tuple(gates))

    def _top(self, h: Tensor) -> Tensor:
        """Hidden features ``(..., C)`` as the likelihood's layer takes them."""
        return relu(self.last(relu(h)))


def _lines(told: Tensor, first: int, last: int) -> Tensor:
    """What is told to some lines."""
    return told if told.shape[-2] == 1 else told[..., first:last, :]


def _place(told: Tensor, line: int, column: int) -> Tensor:
    """What is told to one place, ``(N, ., 1, 1)``."""
    return told if told.shape[-2:] == (1, 1) else told[..., line : line + 1, column : column + 1]
