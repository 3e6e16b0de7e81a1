"""The state of torch's random numbers as tensors: to keep it, and to go on with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["put_random", "random_state"]


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Torch's random numbers of the CPU and of a device, by the kind of device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        which = (device,) if device.type == "cuda" else ()
        states[device.type] = torch.get_device_module(device).get_rng_state(*which)
    return states


def put_random(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Go on with the random numbers of a state."""
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu":
        which = (device,) if device.type == "cuda" else ()
        torch.get_device_module(device).set_rng_state(states[device.type], *which)
