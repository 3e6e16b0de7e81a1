"""Quadrants of an image as a condition."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ppl_vae.declaration import require
from ppl_vae.models.conditions.part import Part
from ppl_vae.types import DataSpec

__all__ = ["Quadrants"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quadrants(Part):
    """Quadrants of an image, whose others are completed (Sohn, Lee and Yan 2015).

    Args:
        observed: how many are given: the lower left one, then the upper left, then the upper right.

    Raises:
        ValueError: not 1, 2 or 3; on checking, data that are no images of at least 2 x 2.

    Examples:
        >>> spec = DataSpec(event_shape=(1, 28, 28), kind="binary", size=10)
        >>> Quadrants(observed=2).build(spec)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 392])
    """

    observed: int = 1

    def __post_init__(self) -> None:
        require(self.observed in (1, 2, 3), "1, 2 or 3 observed quadrants", self.observed)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are no images."""
        if len(spec.event_shape) < 2 or min(spec.event_shape[-2:]) < 2:
            raise ValueError(
                f"expected images (channels, height, width) to take quadrants of, got data of shape {spec.event_shape}"
            )

    def known(self, event_shape: tuple[int, ...]) -> Tensor:
        """Which pixels are given, ``(*event)``."""
        *_, height, width = event_shape
        lower, upper = slice(height // 2, None), slice(height // 2)
        left, right = slice(width // 2), slice(width // 2, None)
        known = torch.zeros(event_shape, dtype=torch.bool)
        for rows, columns in ((lower, left), (upper, left), (upper, right))[: self.observed]:
            known[..., rows, columns] = True
        return known

    def story(self) -> str:
        """What y is."""
        return f"{self.observed} of the 4 quadrants of x"
