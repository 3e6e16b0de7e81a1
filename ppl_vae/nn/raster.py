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


def as_rows(x: Tensor, event_shape: tuple[int, ...], element: tuple[int, ...]) -> Tensor:
    """Grids ``(..., *event)``, whose last two axes are height and width, as rows of their places ``(..., H W, *element)``."""
    lead, places = x.shape[: x.dim() - len(event_shape)], math.prod(event_shape[-2:])
    return x.reshape(*lead, -1, places).mT.reshape(*lead, places, *element)


def as_grids(rows: Tensor, event_shape: tuple[int, ...], element: tuple[int, ...]) -> Tensor:
    """What :func:`as_rows` undoes."""
    lead, places = rows.shape[: rows.dim() - 1 - len(element)], math.prod(event_shape[-2:])
    return rows.reshape(*lead, places, -1).mT.reshape(*lead, *event_shape)


class Raster(dist.TorchDistribution):
    """p(x | z) of grids x ``(*element, H, W)`` by a distribution of their places in the order of reading.

    Args:
        rows: that distribution, of ``(H W, *element)``.
        event_shape: of a datum, ``(H, W)``, ``(channels, H, W)`` or ``(D,)``; of one channel elements may be single numbers.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = False

    def __init__(self, rows: Autoregressive, event_shape: tuple[int, ...]) -> None:
        self.rows = rows
        self.element = tuple(rows.event_shape[1:])
        super().__init__(rows.batch_shape, torch.Size(event_shape), validate_args=False)

    @property
    def support(self) -> Any:
        """That of an element, for each."""
        inner = self.rows.support
        inner = inner.base_constraint if isinstance(inner, constraints.independent) else inner
        return constraints.independent(inner, len(self.event_shape) - inner.event_dim)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Raster:
        """As many independent copies."""
        return Raster(self.rows.expand(batch_shape), self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of grids ``(..., *element, H, W)`` in nats, ``(...)``."""
        return self.rows.log_prob(as_rows(value, self.event_shape, self.element))

    def log_probs(self, value: Tensor) -> Tensor:
        """Of each place given those before it, ``(..., H, W)``."""
        return self.rows.log_probs(as_rows(value, self.event_shape, self.element)).unflatten(-1, self.event_shape[-2:])

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Grids ``(*sample, *batch, *element, H, W)``."""
        return self.draw(sample_shape)

    def draw(self, sample_shape: Any = (), *, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
        """Draws that are bolder or more timid, see :func:`~ppl_vae.nn.autoregressive.continued`."""
        rows, _ = self.rows.draw(sample_shape, temperature=temperature, top_p=top_p)
        return as_grids(rows, self.event_shape, self.element)

    @cached_property
    def point_prediction(self) -> Tensor:
        """The grid of the most probable element, or the mean of it, one after the other."""
        return self.draw(temperature=0.0)

    @property
    def mode(self) -> Tensor:
        """That grid, which stands for the most probable one."""
        return self.point_prediction
