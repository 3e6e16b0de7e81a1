"""The rows that are evaluated, and the state that they are evaluated in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ppl_vae.data import Split, Transform
from ppl_vae.pair import Pair

__all__ = ["apart", "batches", "evaluating", "log_jacobian"]


def batches(pair: Pair, split: Split, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """What the pair's programs are called with, in the rows' order: x ``(B, *event)``, and labels where the model takes them.

    Raises:
        ValueError: it takes labels, and rows have none.
    """
    labelled = getattr(pair.model, "labelled", False)
    return split.labelled_batches(batch_size) if labelled else zip(split.batches(batch_size), strict=True)


def apart(pair: Pair, tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What of the tensors is the batch, x and labels where the model takes them, and what follows it."""
    size = 2 if getattr(pair.model, "labelled", False) else 1
    return tensors[:size], tensors[size:]


def log_jacobian(pair: Pair, transform: Transform) -> float:
    """``log |dx / dx_raw|`` of what is modelled of one datum, in nats: of a part of x, if another part is its condition."""
    known = getattr(pair.model, "known_entries", None)
    if known is None or transform.binarize:
        return transform.log_jacobian
    scales = transform.scale.double().cpu().expand(transform.event_shape)
    return -float(scales.log()[~known].sum())


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients, each as it was before afterwards."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for child, mode in modes.items():
            child.training = mode
