"""The numbers that are reported for a split of the data."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ppl_vae.capture import Compile
from ppl_vae.data import Split, Transform
from ppl_vae.evaluate.batches import bounds_of_batches
from ppl_vae.pair import Pair, seeded

__all__ = ["UNIT", "batches", "evaluate", "evaluating", "log_jacobian"]

UNIT = "nats per datum"
ELEMENTS_AT_ONCE = 2**24  # of the largest tensor: 64 MiB in float32


def evaluate(pair: Pair, split: Split, *, samples: int = 1, seed: int = 0, compile: Compile = "auto") -> dict[str, float | int]:
    """ELBO, reconstruction and KL of a split, in nats per datum of the source's own data.

    The log-determinant of the data's transform (scaling, dequantization) is part of ``elbo`` and ``reconstruction``.
    Neither parameters, buffers nor the state of any random number generator are changed.

    Args:
        pair: model and guide.
        split: the data, on the pair's device.
        samples: S, samples of the latent variables per datum.
        seed: of the samples.
        compile: whether the work on a batch is recorded and compiled: where that pays (``auto``), always, or never.

    Returns:
        ``elbo``, ``elbo_se`` (its standard error over the data), ``reconstruction``, ``kl``, ``n``. Where the model knows
        log p(x) exactly also ``log_likelihood``, ``log_likelihood_se`` and ``gap = log_likelihood - elbo``; elsewhere these
        with ``samples > 1`` only, as the importance-weighted bound of Burda et al. (2016).

    Raises:
        ValueError: an empty split, fewer than one sample, or a model of labelled data and rows without labels.
        FloatingPointError: the ELBO is not finite.
    """
    if len(split) == 0:
        raise ValueError("expected at least one datum to evaluate, got an empty split")
    if samples < 1:
        raise ValueError(f"expected at least 1 sample, got {samples}")
    rows = max(1, min(1000, ELEMENTS_AT_ONCE // (samples * math.prod(split.event_shape))))
    with evaluating(pair), seeded(seed, split.device):
        columns = bounds_of_batches(
            pair,
            batches(pair, split, rows),
            samples,
            compile=compile,
            elements=samples * len(split) * math.prod(split.event_shape),
        )
    elbo, reconstruction, kl, *log_likelihood = (torch.cat(parts).double() for parts in zip(*columns, strict=True))
    if not bool(elbo.isfinite().all()):
        raise FloatingPointError(
            f"the ELBO of {int((~elbo.isfinite()).sum())} of {len(split)} data is not finite: if the fit diverged, lower the "
            "learning rate, clip the gradients (clip_norm), or standardize the data"
        )
    constant = log_jacobian(pair, split.transform)
    numbers: dict[str, float | int] = {
        "elbo": elbo.mean().item() + constant,
        "elbo_se": _standard_error(elbo),
        "reconstruction": reconstruction.mean().item() + constant,
        "kl": kl.mean().item(),
        "n": len(split),
    }
    for values in log_likelihood:
        numbers["log_likelihood"] = values.mean().item() + constant
        numbers["log_likelihood_se"] = _standard_error(values)
        numbers["gap"] = numbers["log_likelihood"] - numbers["elbo"]
    if samples > 1:
        numbers["samples"] = samples
    return numbers


def batches(pair: Pair, split: Split, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """What the pair's programs are called with, in the rows' order: x ``(B, *event)``, and labels where the model takes them.

    Raises:
        ValueError: it takes labels, and rows have none.
    """
    labelled = getattr(pair.model, "labelled", False)
    return split.labelled_batches(batch_size) if labelled else zip(split.batches(batch_size), strict=True)


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


def _standard_error(values: Tensor) -> float:
    return (values.std(correction=0) / math.sqrt(len(values))).item()
