r"""Distributions of grids, one place after the other in the order of reading.

.. math:: \log p(x \mid z) = \sum_{i, j} \log p(x_{ij} \mid x_{<ij}, z)

where ``<ij`` are the places above, and those to the left in the same line.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.nn.autoregressive import Autoregressive

__all__ = ["Raster", "as_grids", "as_rows"]


def as_rows(x: Tensor, element_dim: int) -> Tensor:
    """Grids ``(..., *element, H, W)`` as rows of their places, ``(..., H W, *element)``."""
    rows = x.flatten(-2)
    return rows.movedim(-1, -1 - element_dim) if element_dim else rows


def as_grids(rows: Tensor, element_dim: int, grid: tuple[int, int]) -> Tensor:
    """What :func:`as_rows` undoes."""
    x = rows.movedim(-1 - element_dim, -1) if element_dim else rows
    return x.unflatten(-1, grid)


class Raster(dist.TorchDistribution):
    """p(x | z) of grids x ``(*element, H, W)`` by a distribution of their places in the order of reading.

    Args:
        rows: that distribution, of ``(H W, *element)``.
        grid: ``(H, W)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = False

    def __init__(self, rows: Autoregressive, grid: tuple[int, int]) -> None:
        self.rows = rows
        self.grid = grid
        element = rows.event_shape[1:]
        self.element_dim = len(element)
        assert rows.event_shape[0] == math.prod(grid)
        super().__init__(rows.batch_shape, torch.Size((*element, *grid)), validate_args=False)

    @property
    def support(self) -> Any:
        """That of an element, for each."""
        inner = self.rows.support
        inner = inner.base_constraint if isinstance(inner, constraints.independent) else inner
        return constraints.independent(inner, len(self.event_shape) - inner.event_dim)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Raster:
        """As many independent copies."""
        return Raster(self.rows.expand(batch_shape), self.grid)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of grids ``(..., *element, H, W)`` in nats, ``(...)``."""
        return self.rows.log_prob(as_rows(value, self.element_dim))

    def log_probs(self, value: Tensor) -> Tensor:
        """Of each place given those before it, ``(..., H, W)``."""
        return self.rows.log_probs(as_rows(value, self.element_dim)).unflatten(-1, self.grid)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Grids ``(*sample, *batch, *element, H, W)``."""
        return self.draw(sample_shape)

    def draw(self, sample_shape: Any = (), *, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
        """Draws that are bolder or more timid, see :func:`~ppl_vae.nn.autoregressive.continued`."""
        rows, _ = self.rows.draw(sample_shape, temperature=temperature, top_p=top_p)
        return as_grids(rows, self.element_dim, self.grid)

    @cached_property
    def point_prediction(self) -> Tensor:
        """The grid of the most probable element, or the mean of it, one after the other."""
        return self.draw(temperature=0.0)
