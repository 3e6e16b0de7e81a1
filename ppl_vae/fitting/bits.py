"""Bits per dimension, the unit in which densities of discrete data are compared."""

from __future__ import annotations

import math
from typing import Any

import torch

from ppl_vae.data import Split
from ppl_vae.evaluate.rows import mean, observed_sum
from ppl_vae.program.pair import Pair
from ppl_vae.types import DataSpec

__all__ = ["bits_per_dim"]

BOUNDS = ("elbo", "iwae", "ais", "local_elbo", "local_iwae")


def bits_per_dim(pair: Pair, split: Split, spec: DataSpec, numbers: dict[str, Any], *, dequantized: bool) -> dict[str, float]:
    """``bits_per_dim`` and its standard error of what was evaluated, by its tightest bound; nothing of densities and points.

    Args:
        pair: what was evaluated.
        split: on which rows.
        spec: what the data look like.
        numbers: what :func:`~ppl_vae.evaluate` gave, in nats per datum.
        dequantized: whether the data are whole numbers that noise is added to.
    """
    if spec.ragged:  # whose numbers are told per token
        return {}
    image = spec.kind in ("binary", "count") and len(spec.event_shape) == 3
    bound = _tightest(numbers) if dequantized or spec.kind == "categorical" or image else ""
    if not bound:
        return {}
    dimensions = math.log(2) * mean(observed_sum(pair, split, torch.ones(())), split.weights)
    return {"bits_per_dim": -numbers[bound] / dimensions, "bits_per_dim_se": numbers[f"{bound}_se"] / dimensions}


def _tightest(numbers: dict[str, Any]) -> str:
    if "log_likelihood" in numbers:
        return "log_likelihood"
    return max((name for name in BOUNDS if name in numbers), key=lambda name: numbers[name], default="")
