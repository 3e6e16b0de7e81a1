"""A normal's learned scale in units that are measured on data, so that its floor is relative to them."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.likelihoods.gaussian import Gaussian
from ppl_vae.likelihoods.scales import GlobalScale

__all__ = ["NoiseScale"]


class NoiseScale(GlobalScale):
    """``scale = unit * (exp(log_scale) + floor)``, of shape ``()`` or one per element of a datum.

    The buffer ``unit`` is 1 until data are seen (:meth:`measure`), and of weights that were saved before there were units.
    """

    unit: Tensor

    def __init__(self, declared: Gaussian, event_shape: tuple[int, ...]) -> None:
        shape = event_shape if declared.scale == "per_feature" else ()
        super().__init__(dist.Normal, len(event_shape), shape, declared.value, declared.floor, learned=True)
        self.register_buffer("unit", torch.ones(shape))

    @property
    def scale(self) -> Tensor:
        """The scale, a scalar or one per element of a datum."""
        return self.unit * super().scale

    @torch.no_grad()
    def measure(self, unit: Tensor) -> None:
        """Take the data's units, ``()`` or ``(D,)``; the scale changes with them."""
        self.unit.copy_(unit.reshape(self.unit.shape))

    @torch.no_grad()
    def assign(self, scale: Tensor) -> None:
        """Write a scale, ``()`` or ``(D,)``; one on the floor or below it goes there."""
        relative = scale.reshape(self.unit.shape).double() / self.unit
        # On the floor itself log(scale - floor) is minus infinity; a millionth above it nobody can tell.
        self.log_scale.copy_((relative - self.floor).clamp_min(1e-6 * self.floor).log())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}unit", torch.ones_like(self.unit))
        super()._load_from_state_dict(state_dict, prefix, *rest)
