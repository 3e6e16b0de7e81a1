"""The state that programs are run in: whose parameters, which random numbers, with gradients or without."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pyro
import torch
from torch import nn

from ppl_vae.arguments import whole

__all__ = ["evaluating", "local_params", "seeded"]


def local_params() -> Any:
    """A context in which modules own their parameters and Pyro's global store is neither read nor written."""
    return pyro.settings.context(module_local_params=True)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Torch's random numbers from ``seed`` inside, and as if nothing had been drawn afterwards.

    Raises:
        ValueError: a seed that is no whole number, negative or too large for torch.
    """
    seed = whole("seed", seed)
    if not 0 <= seed < 2**63:
        raise ValueError(f"expected a seed of 0 to 2^63 - 1, got {seed}")
    device = torch.device(device)
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices=devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        yield


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
