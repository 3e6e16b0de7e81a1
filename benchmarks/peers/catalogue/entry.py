"""What an entry of the catalogue benchmark is, and what its hand-written sides share: networks, a normal posterior, its KL."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

import ppl_vae as pv

__all__ = [
    "BATCH",
    "HIDDEN",
    "LOG_2_PI",
    "MIN_SCALE",
    "Entry",
    "Weights",
    "layers",
    "mlp",
    "normal",
    "normal_kl",
    "rows",
    "shown",
]

BATCH, HIDDEN = 64, 32
MIN_SCALE = 1e-6
LOG_2_PI = math.log(2 * math.pi)
NETWORK = pv.MLP(hidden=(HIDDEN,))

Weights = dict[str, Tensor]
"""Parameters and buffers of a pair, by the names that they have there."""

Data = Literal["binary", "unit_interval", "real", "count", "categorical"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One likelihood, guide or prior in a model, and the same loss by hand.

    Args:
        model: of ours.
        guide: of ours.
        loss: of the pair's weights and a batch, as the model sees it: the negative ELBO in nats per datum, which draws the
            same random numbers in the same order.
        kind: of the data.
        columns: D.
        levels: of categorical data.
        batch: rows of a batch.
        labels: how many classes the rows are of, 0 without labels.
    """

    model: pv.Model
    guide: pv.Guide
    loss: Callable[..., Tensor]
    kind: Data = "real"
    columns: int = 1000
    levels: int = 16
    batch: int = BATCH
    labels: int = 0

    def data(self) -> pv.Data:
        """Random rows, as many as a batch has."""
        x = rows(self.kind, self.batch, self.columns, self.levels)
        missing = isinstance(self.model, pv.VAE) and self.model.likelihood.missing
        if missing:
            x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
        y = np.arange(self.batch) % self.labels if self.labels else None
        rest = {"missing": "ignore"} if missing else {}
        return pv.load_data(x, y=y, kind=self.kind, scale="none", valid=0.0, test=0.0, **rest)


def rows(kind: Data, n: int, columns: int, levels: int) -> Any:
    """Random data of a kind ``(n, columns)``, of counts as many zeros as a text has."""
    random = np.random.default_rng(0)
    uniform = random.random((n, columns), dtype=np.float32)
    made: dict[Data, Callable[[], Any]] = {
        "binary": lambda: (uniform < 0.4).astype(np.uint8),
        "unit_interval": lambda: uniform,
        "real": lambda: random.standard_normal((n, columns), dtype=np.float32),
        "count": lambda: random.poisson(random.gamma(0.5, 4.0, columns), (n, columns)).astype(np.uint8),
        "categorical": lambda: (levels * uniform).astype(np.uint8),
    }
    return made[kind]()


def layers(w: Weights, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and biases of a network of one hidden layer."""
    first, bias, last, last_bias = (tensor for key, tensor in w.items() if key.startswith(f"{name}."))
    return first, bias, last, last_bias


def mlp(w: Weights, name: str, x: Tensor) -> Tensor:
    """One hidden layer with ReLU."""
    first, bias, last, last_bias = layers(w, name)
    return linear(linear(x, first, bias).relu(), last, last_bias)


def shown(w: Weights, x: Tensor, kind: Data, levels: int = 16) -> Tensor:
    """What the encoder sees of x: numbers of order one, centred."""
    if kind == "count":
        return x.log1p() - w["guide.encoder.shown.1.loc"]
    if kind == "categorical":
        return 2 * x / (levels - 1) - 1 - w["guide.encoder.shown.1.loc"]
    if kind == "real":
        return (x - w["guide.encoder.shown.0.loc"]) / w["guide.encoder.shown.0.scale"]
    return x - w["guide.encoder.shown.0.loc"]


def normal(numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and a draw of the normal whose numbers an encoder gives, ``(B, K)`` each."""
    loc, raw = numbers.chunk(2, dim=-1)
    scale = softplus(raw) + MIN_SCALE
    return loc, scale, loc + scale * torch.randn_like(scale)


def normal_kl(loc: Tensor, scale: Tensor) -> Tensor:
    """KL of independent normals from the standard one, of all data together."""
    return (loc.square() + scale.square() - 1).sum() / 2 - scale.log().sum()
