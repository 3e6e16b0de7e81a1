"""The programs of models whose grids go on place by place (van den Oord et al. 2016; Gulrajani et al. 2017).

for n in 1..N:
x_nij ~ p(x | network(x_n above and left of ij)), i = 1..H, j = 1..W   likelihood of an element
"""

from __future__ import annotations

import math
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.likelihoods import Likelihood
from ppl_vae.models.starts import likeliest_features
from ppl_vae.nn.autoregressive import Autoregressive, continued
from ppl_vae.nn.causal import CausalNetwork, Elements
from ppl_vae.nn.raster import Raster, as_grids, as_rows
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.capabilities import attribute
from ppl_vae.program.hooks import Start
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec

__all__ = ["GridProgram", "Grids"]


class Grids(nn.Module):
    """p(x | z) of vectors ``(D,)`` or grids ``(H, W)``, ``(channels, H, W)``: a causal network, and a place's likelihood.

    Args:
        network: its declaration.
        likelihood: of an element.
        spec: what the data look like.
        context: K, the length of z; 0 without one.
    """

    def __init__(self, network: CausalNetwork, likelihood: Likelihood, spec: DataSpec, context: int = 0) -> None:
        super().__init__()
        self.event_shape = spec.event_shape
        element = spec.event_shape[:-2]
        element = element if math.prod(element) > 1 else ()  # of one channel, elements are single numbers
        height, width = (1, *spec.event_shape)[-2:]  # of a vector one line
        elements = Elements(element, spec.levels if spec.kind.levelled else None, (height, width))
        network.refuse_unused("a decoder" if context else "a network without z", *(["pool"] if context else ["pool", "enters"]))
        self.network = network.build_on_grid(elements, likelihood.feature_shape(element), (context,) if context else ())
        self.likelihood = likelihood.build(element)

    def forward(self, context: Tensor | None = None, batch_shape: tuple[int, ...] = ()) -> Raster:
        """The distribution of grids, given z ``(..., K)`` if there is one."""
        places = math.prod(self.event_shape[-2:])
        rows = Autoregressive(self.network, self.likelihood, longest=places, context=context, batch_shape=batch_shape)
        return Raster(rows, self.event_shape)

    def completed(self, lines: Tensor) -> Tensor:
        """Whole grids of their first lines ``(n, *channels, h, W)``, the rest drawn."""
        element = self.network.elements.shape
        given = as_rows(lines, tuple(lines.shape[1:]), element)
        places = math.prod(self.event_shape[-2:])
        first = torch.full((len(lines),), given.shape[1], device=lines.device)
        rest = continued(self.network, self.likelihood, given, first, places - given.shape[1])
        return as_grids(torch.cat([given, rest.to(given.dtype)], 1), self.event_shape, element)

    def start_fit(self, context: Start) -> None:
        """Start at the features under which the elements of the training data are likeliest, where the likelihood can."""
        if attribute(self.likelihood, "starts_at_data", False) or self.network.feature_shape[0] == 1:
            x = as_rows(context.sample, self.event_shape, self.network.elements.shape).flatten(0, 1)
            self.network.start_at(likeliest_features(self.likelihood, x, self.network.feature_shape))


class GridProgram(ModelProgram):
    """Without latent variables: log p(x) is known, and a guide has nothing to draw."""

    learning_rate = 2e-3

    def __init__(self, network: CausalNetwork, likelihood: Likelihood, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.grids = Grids(network, likelihood, spec)

    @property
    def element_features(self) -> int:
        """As many as the network gives."""
        return int(self.grids.network.feature_shape[0])

    def forward(self, x: Tensor) -> Any:
        """The story, with the batch x ``(B, *event)`` observed."""
        with data_plate(self.size, x):
            return pyro.sample("x", self.grids(None, (len(x),)), obs=x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Of each grid in nats, ``(B,)``."""
        return self.grids(None, (len(x),)).log_prob(x)

    def posterior(self, *batch: Tensor) -> Any:
        """There is no latent variable.

        Raises:
            ValueError: always.
        """
        raise ValueError("a model without latent variables has no posterior and no codes of data: declare VAE(decoder=...)")

    def ancestral(self, n: int) -> Tensor:
        """N new grids ``(n, *event)``."""
        return self.grids(None, (n,)).sample()

    def completed_lines(self, lines: Tensor) -> Tensor:
        """Whole grids ``(n, *event)`` of their first lines ``(n, *channels, h, W)``."""
        return self.grids.completed(lines)
