"""The Pyro programs that amortized guides share.

for n in 1..N:
    z_n ~ q(z | x_n)
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.guides.coordinates import Coordinates
from ppl_vae.nn import Network, inputs
from ppl_vae.nn.causal import Elements, SequenceNetwork
from ppl_vae.nn.conditioned import conditioned
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.facts import model_facts
from ppl_vae.types import DataSpec

__all__ = ["EncodedGuide", "LatentGuide", "RealGuide", "encoder"]


def encoder(network: Network, model: Any, spec: DataSpec, out_shape: tuple[int, ...]) -> nn.Module:
    """A module from a batch, first x ``(..., *event)``, to ``(..., *out_shape)``: every guide's way to see the data.

    Args:
        network: its declaration.
        model: the built model; one that reads more than x offers ``beside(*batch)``, of ``beside_columns`` columns.
        spec: what the data look like.
        out_shape: what the network is to give for each datum.

    Raises:
        ValueError: rows of different lengths, and a network that reads none.
    """
    if isinstance(network, SequenceNetwork) and (spec.ragged or spec.kind.levelled):
        network.refuse_unused("an encoder", "enters")
        if model_facts(model).labelled:
            return LabelledRowsEncoder(network, model, spec, out_shape)
        return network.build_encoder(Elements.of(spec), out_shape)
    if spec.ragged:
        raise ValueError(
            f"expected an encoder that reads rows of different lengths, got {type(network).__name__}: declare encoder=LSTM()"
        )
    if len(model_facts(model).reads) > 1:
        return LabelledEncoder(network, model, spec, out_shape)
    return inputs.encoder(network, spec, out_shape)


class LabelledEncoder(nn.Module):
    """A network of the data and of the condition beside them."""

    def __init__(self, network: Network, model: Any, spec: DataSpec, out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shown, shape = inputs.shown_of(spec)
        self.network = conditioned(network, shape, model.beside_columns, out_shape)
        self._model = (model,)  # in a tuple, so that its parameters are not listed twice

    def forward(self, *batch: Tensor) -> Tensor:
        """Of x ``(..., *event)`` and its labels or covariates ``(...)``."""
        return self.network(self.shown(batch[0]), self._model[0].beside(*batch))


class LabelledRowsEncoder(nn.Module):
    """A network that reads rows, and a layer of what it keeps of them and of the condition beside them."""

    def __init__(self, network: SequenceNetwork, model: Any, spec: DataSpec, out_shape: tuple[int, ...]) -> None:
        super().__init__()
        width = math.prod(out_shape)
        self.rows = network.build_encoder(Elements.of(spec), (width,))
        self.output = nn.Linear(width + model.beside_columns, width)
        self.out_shape = out_shape
        self._model = (model,)  # in a tuple, so that its parameters are not listed twice

    def forward(self, *batch: Tensor) -> Tensor:
        """Of rows x ``(..., T, *element)``, their lengths where they are padded, and their labels ``(...)``."""
        kept = self.rows(*batch[:-1]).tanh()
        beside = self._model[0].beside(*batch)
        found: Tensor = self.output(torch.cat([kept, beside.expand(*kept.shape[:-1], -1)], -1))
        return found.unflatten(-1, self.out_shape)


class LatentGuide(GuideProgram):
    """A guide of one latent variable per datum: what of q is a datum's own, ``local``, and q given that, ``at``."""

    def __init__(self, spec: DataSpec, site: str = "z") -> None:
        super().__init__()
        self.size = spec.size
        self.site = site

    def posterior(self, *batch: Tensor) -> dist.Distribution:
        """q(z | x) for x ``(..., *event)`` and what else the model is given."""
        return self.at(*self.local(*batch))

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The parameters of q(z | x) that may differ from datum to datum, ``(..., *)`` each, any real numbers."""
        raise NotImplementedError

    def at(self, *local: Tensor) -> dist.Distribution:
        """The member of the guide's family with these parameters."""
        raise NotImplementedError


class RealGuide(LatentGuide):
    """A guide by a density of real coordinates, whose ``local`` parameters and ``density`` a subclass gives."""

    def __init__(self, model: Any, spec: DataSpec) -> None:
        coordinates = Coordinates(model)
        super().__init__(spec, coordinates.site.name)
        self.coordinates = coordinates

    def posterior(self, *batch: Tensor) -> dist.Distribution:
        """q(z | x) for x ``(..., *event)``, on the support of p(z)."""
        return self.coordinates(self.unconstrained(*batch))

    def at(self, *local: Tensor) -> dist.Distribution:
        """The member of the guide's family with these parameters, on the support of p(z)."""
        return self.coordinates(self.density(*local))

    def unconstrained(self, *batch: Tensor) -> dist.Distribution:
        """The density of the real coordinates of z given x."""
        return self.density(*self.local(*batch))

    def density(self, *local: Tensor) -> dist.Distribution:
        """The density of the real coordinates of z, with the event shape ``coordinates.shape`` or flat."""
        raise NotImplementedError


class EncodedGuide(RealGuide):
    """A network's output is the local parameters; a subclass gives their ``density``."""

    encoder: Any
    event_dim: int
    latent_dim: int

    def __init__(self, model: Any, declared: Any, spec: DataSpec) -> None:
        super().__init__(model, spec)
        shape = self.coordinates.shape
        self.event_dim = len(shape)
        self.latent_dim = math.prod(shape)
        self.encoder = encoder(declared.encoder, model, spec, self.parameter_shape(shape, declared))

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The encoder's output ``(..., *parameter_shape)``."""
        return (self.encoder(*batch),)

    def parameter_shape(self, shape: tuple[int, ...], declared: Any) -> tuple[int, ...]:
        """Shape of the parameters of the declared density of ``shape``."""
        raise NotImplementedError
