"""The numbers that are reported for a split of the data."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ppl_vae.data import Split
from ppl_vae.evaluate.bounds import elbo_terms, log_weights
from ppl_vae.pair import Pair, seeded

__all__ = ["UNIT", "evaluate", "evaluating"]

UNIT = "nats per datum"
ELEMENTS_AT_ONCE = 2**24  # of the largest tensor: 64 MiB in float32


def evaluate(pair: Pair, split: Split, *, samples: int = 1, seed: int = 0) -> dict[str, float | int]:
    """ELBO, reconstruction and KL of a split, in nats per datum of the source's own data.

    The log-determinant of the data's transform (scaling, dequantization) is part of ``elbo`` and ``reconstruction``.
    Neither parameters, buffers nor the state of any random number generator are changed.

    Args:
        pair: model and guide.
        split: the data, on the pair's device.
        samples: S, samples of the latent variables per datum. With more than one, ``log_likelihood`` is the
            importance-weighted bound with S samples (Burda et al. 2016); it never lies below the ELBO in expectation.
        seed: of the samples.

    Returns:
        ``elbo``, ``elbo_se`` (its standard error over the data), ``reconstruction``, ``kl``, ``n``; with ``samples > 1`` also
        ``log_likelihood``, ``log_likelihood_se`` and ``samples``.

    Raises:
        ValueError: an empty split, or fewer than one sample.
    """
    if len(split) == 0:
        raise ValueError("expected at least one datum to evaluate, got an empty split")
    if samples < 1:
        raise ValueError(f"expected at least 1 sample, got {samples}")
    rows = max(1, min(1000, ELEMENTS_AT_ONCE // (samples * math.prod(split.x.shape[1:]))))
    with evaluating(pair), seeded(seed, split.x.device):
        columns = [_bounds(pair, x, samples) for x in split.batches(rows)]
    elbo, reconstruction, kl, log_likelihood = (torch.cat(parts).double() for parts in zip(*columns, strict=True))
    constant = split.transform.log_jacobian
    numbers: dict[str, float | int] = {
        "elbo": elbo.mean().item() + constant,
        "elbo_se": _standard_error(elbo),
        "reconstruction": reconstruction.mean().item() + constant,
        "kl": kl.mean().item(),
        "n": len(split),
    }
    if samples > 1:
        numbers["log_likelihood"] = log_likelihood.mean().item() + constant
        numbers["log_likelihood_se"] = _standard_error(log_likelihood)
        numbers["samples"] = samples
    return numbers


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


def _bounds(pair: Pair, x: Tensor, samples: int) -> tuple[Tensor, ...]:
    terms = elbo_terms(pair, (x,), samples=samples)
    if samples == 1:
        return (*terms, terms.elbo)
    log_w = log_weights(pair, (x,), samples=samples)
    return (*terms, log_w.logsumexp(0) - math.log(samples))


def _standard_error(values: Tensor) -> float:
    return (values.std(correction=0) / math.sqrt(len(values))).item()
