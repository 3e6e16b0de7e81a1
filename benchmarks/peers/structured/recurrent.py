"""The text VAE and Sketch-RNN in hand-written PyTorch, with packed sequences."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

from benchmarks.peers.task import MIN_SCALE, Size

__all__ = ["SketchRNN", "TextVAE", "collate"]

PADDING = -1
FLOOR = 1e-3  # of a standard deviation
SHIFT = 0.5 - FLOOR + math.log(-math.expm1(FLOOR - 0.5))  # so that it starts at a half


def collate(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """A batch padded to its longest row, and the lengths."""
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def packed(x: Tensor, length: Tensor) -> PackedSequence:
    """What an LSTM reads."""
    return pack_padded_sequence(x, length, batch_first=True, enforce_sorted=False)


class Sequences(nn.Module):
    """Rows ``(B, T, ...)`` of these lengths to the negative ELBO: one sample, closed-form KL, in nats per row."""

    def __init__(self, size: Size, encoder_width: int, directions: int, outputs: int) -> None:
        super().__init__()
        hidden, latent = size.hidden, size.latent
        self.encoder = nn.LSTM(encoder_width, encoder_width, batch_first=True, bidirectional=directions == 2)
        self.to_z = nn.Linear(directions * encoder_width, 2 * latent)
        self.to_state = nn.Linear(latent, 2 * hidden)
        self.decoder = nn.LSTM(hidden + latent, hidden, batch_first=True)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        last = self.encoder(packed(self.read(x), length))[1][0]
        loc, raw = self.to_z(last.transpose(0, 1).flatten(1)).chunk(2, dim=-1)
        scale = softplus(raw) + MIN_SCALE
        z = loc + scale * torch.randn_like(scale)
        h, c = self.to_state(z)[None].chunk(2, dim=-1)
        inputs = torch.cat([self.before(x), z[:, None].expand(-1, x.shape[1], -1)], dim=-1)
        hidden = self.decoder(packed(inputs, length), (h.tanh().contiguous(), c.contiguous()))[0]
        features = self.output(pad_packed_sequence(hidden, batch_first=True)[0])
        kl = (loc.square() + scale.square() - 1).sum() / 2 - scale.log().sum()
        return (self.loss(features, x, length) + kl) / len(x)

    def read(self, x: Tensor) -> Tensor:
        """What the encoder sees of the elements."""
        raise NotImplementedError

    def before(self, x: Tensor) -> Tensor:
        """What the decoder sees of the elements before each."""
        raise NotImplementedError

    def loss(self, features: Tensor, x: Tensor, length: Tensor) -> Tensor:
        """Minus the log-likelihood."""
        raise NotImplementedError


def inside(x: Tensor, length: Tensor) -> Tensor:
    """Which places hold elements."""
    return torch.arange(x.shape[1], device=x.device) < length.to(x.device)[:, None]


class TextVAE(Sequences):
    """Tokens, one more of which stands before a row."""

    def __init__(self, size: Size) -> None:
        super().__init__(size, size.hidden, 1, size.data)
        self.words = nn.Embedding(size.data, size.hidden)
        self.words_before = nn.Embedding(size.data + 1, size.hidden)
        self.start = size.data

    def read(self, x: Tensor) -> Tensor:
        """Vectors of the words."""
        return self.words(x)

    def before(self, x: Tensor) -> Tensor:
        """Those of the words one place earlier."""
        first = torch.full_like(x[:, :1], self.start)
        return self.words_before(torch.cat([first, x[:, :-1]], dim=1))

    def loss(self, features: Tensor, x: Tensor, length: Tensor) -> Tensor:
        """The cross-entropy, padding left out."""
        target = x.masked_fill(~inside(x, length), PADDING)
        return cross_entropy(features.flatten(0, 1), target.flatten(), ignore_index=PADDING, reduction="sum")


class SketchRNN(Sequences):
    """Points (dx, dy, pen): a mixture of bivariate normals, and a categorical of the pen."""

    def __init__(self, size: Size) -> None:
        super().__init__(size, size.hidden // 2, 2, 6 * size.components + 3)
        self.components = size.components
        self.points = nn.Linear(3, size.hidden // 2)
        self.points_before = nn.Linear(3, size.hidden)
        self.start = nn.Parameter(torch.zeros(size.hidden))

    def read(self, x: Tensor) -> Tensor:
        """Vectors of the points."""
        return self.points(x)

    def before(self, x: Tensor) -> Tensor:
        """Those of the points one place earlier."""
        return torch.cat([self.start.expand(len(x), 1, -1), self.points_before(x[:, :-1])], dim=1)

    def loss(self, features: Tensor, x: Tensor, length: Tensor) -> Tensor:
        """Of mixture and pen, padding left out."""
        M = self.components
        logits, mx, my, sx, sy, corr, pen = features.split([M] * 6 + [3], dim=-1)
        sx, sy = softplus(sx + SHIFT) + FLOOR, softplus(sy + SHIFT) + FLOOR
        r = 0.999 * corr.tanh()
        dx, dy = (x[..., :1] - mx) / sx, (x[..., 1:2] - my) / sy
        rest = 1 - r.square()
        quadratic = (dx.square() + dy.square() - 2 * r * dx * dy) / rest
        density = -quadratic / 2 - sx.log() - sy.log() - rest.log() / 2 - math.log(2 * math.pi)
        offset = torch.logsumexp(logits.log_softmax(-1) + density, dim=-1)
        state = -cross_entropy(pen.flatten(0, 1), x[..., 2].long().flatten(), reduction="none").reshape(offset.shape)
        return -((offset + state) * inside(x, length)).sum()
