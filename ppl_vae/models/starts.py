"""Where networks start: at the features under which the training data are likeliest, alike for all of them."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.optim.adam import adam

from ppl_vae.program.capabilities import attribute
from ppl_vae.program.hooks import Start

__all__ = ["Adjustable", "likeliest_features", "start_decoder"]

ELEMENTS, FEWEST_ROWS = 2**19, 50  # with which a decoder's start is looked for

STEPS, STEP = 100, 0.3  # with which they are looked for
ADAM: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False, "maximize": True}


@runtime_checkable
class Adjustable(Protocol):
    """A decoder that can start at given features."""

    out_shape: tuple[int, ...]

    def start_at(self, output: Tensor) -> None:
        """Let what it gives lie around ``output (*out_shape)`` at first."""


@runtime_checkable
class Counting(Protocol):
    """A likelihood whose likeliest features have a closed form."""

    def likeliest(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The features ``(*shape)`` of elements x ``(N, *event)``."""
        ...


def start_decoder(decoder: Any, likelihood: Any, context: Start) -> None:
    """Let a decoder, if it can, start at the features under which the training data are likeliest without z.

    Only where an element has one feature, a location, for a scale would start tiny for elements that hardly vary; or where the
    likelihood says that all its features may, since its elements are on one scale.
    """
    x = context.sample
    if isinstance(decoder, Adjustable) and (attribute(likelihood, "starts_at_data", False) or decoder.out_shape[0] == 1):
        rows = max(FEWEST_ROWS, ELEMENTS // x[0].numel())
        decoder.start_at(likeliest_features(likelihood, x[:: math.ceil(len(x) / rows)], decoder.out_shape))


@torch.enable_grad()
def likeliest_features(likelihood: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The features h ``(*shape)``, alike for all data x ``(N, *event)``, with about the highest log p(x | h).

    In closed form where the likelihood has one; else climbed by a bounded number of steps of a bounded length, so that of an
    element that never varies they stay finite.
    """
    if isinstance(likelihood, Counting):
        return likelihood.likeliest(x, shape)
    parameters = list(likelihood.parameters())
    kind = parameters[0].dtype if parameters else x.dtype if x.is_floating_point() else torch.get_default_dtype()
    h = x.new_zeros(shape, dtype=kind).requires_grad_()
    mean, square, count = torch.zeros_like(h), torch.zeros_like(h), torch.zeros(())
    for step in range(STEPS):
        (slope,) = torch.autograd.grad(likelihood(h).log_prob(x).mean(), [h])
        with torch.no_grad():
            adam([h], [slope], [mean], [square], [], [count], lr=STEP * (1 - step / STEPS), **ADAM)
    return h.detach()
