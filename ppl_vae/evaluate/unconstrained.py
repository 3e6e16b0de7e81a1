"""The latent variables of a model as real vectors, and its log-densities there.

    log p(u) = log p(z) + log |det dz/du|,   z = T(u),      log p(x | u) = log p(x | z)

T is :func:`torch.distributions.biject_to` of each site's support.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Transform, biject_to

from ppl_vae.guides.coordinates import unmixed
from ppl_vae.program.context import local_params
from ppl_vae.program.pair import Pair, Plates
from ppl_vae.program.sites import Tree, by_name
from ppl_vae.program.terms import unnormalized, weighed
from ppl_vae.program.traces import Substitute, per_datum, vectorize_particles

__all__ = ["Densities", "Latents"]


class Densities(NamedTuple):
    """Log p(u) and log p(x | u) of each chain and datum, ``(S, B)``, and their gradients by u, ``(S, B, K)``."""

    prior: Tensor
    likelihood: Tensor
    prior_gradient: Tensor
    likelihood_gradient: Tensor


class Latents:
    """The latent variables of a batch, for S chains of each datum: u ``(S, B, K)``.

    Args:
        pair: its model is asked, its guide is not.
        batch: what the programs are called with, first x ``(B, *event)``.
        chains: S.

    Raises:
        ValueError: no latent variable, or one that is discrete, has no density, has no real coordinates, or is shared by all
            data.
    """

    def __init__(self, pair: Pair, batch: tuple[Tensor, ...], chains: int) -> None:
        if pair.score == "reconstruction":
            raise ValueError("codes without p(z) have no log p(x) to estimate: use a model with a prior, such as VAE")
        self.pair = pair
        self.chains = chains
        self.plates = pair.plates(*batch)
        trace = self._trace(batch)
        if others := [*unnormalized(trace), *weighed(trace)]:
            raise ValueError(
                f"annealed importance sampling goes to p(z | x), which {', '.join(others)} of the model makes no density of "
                "(a pyro.factor, or poutine.scale): leave it out of the program"
            )
        sites = {name: trace.nodes[name] for name in trace.stochastic_nodes}
        if not sites:
            raise ValueError("there is no latent variable to anneal: without one the elbo is log p(x) itself")
        for name, site in sites.items():
            _check(name, site, self.plates)
        values = {name: _bijection(site["fn"]).inv(site["value"]) for name, site in sites.items()}
        self.shapes = {name: value.shape for name, value in values.items()}
        self.fns = {name: site["fn"] for name, site in sites.items()}

    def draw(self, batch: tuple[Tensor, ...]) -> Tensor:
        """U ``(S, B, K)`` of draws from the prior."""
        nodes = self._trace(batch).nodes
        return self.pack({name: _bijection(nodes[name]["fn"]).inv(nodes[name]["value"]) for name in self.shapes})

    def placed(self, z: Tree) -> Tensor:
        """U ``(S, B, K)`` of a tree of values ``(S, B, *latent)``."""
        return self.pack({name: _bijection(self.fns[name]).inv(value) for name, value in by_name(self.fns, z).items()})

    def pack(self, values: dict[str, Tensor]) -> Tensor:
        """U ``(S, B, K)`` of coordinates by site, ``(S, *plates, *event)``."""
        place = 1 + self.plates.nesting + self.plates.data_dim
        return torch.cat([_rows(value.movedim(place, 1)) for value in values.values()], -1)

    def unpack(self, u: Tensor) -> dict[str, Tensor]:
        """Coordinates by site, ``(S, *plates, *event)``, of u ``(S, B, K)``."""
        place = 1 + self.plates.nesting + self.plates.data_dim
        moved = {name: [*shape[1:place], *shape[place + 1 :]] for name, shape in self.shapes.items()}
        parts = u.split([math.prod(shape) for shape in moved.values()], dim=-1)
        return {
            name: part.reshape(*u.shape[:2], *shape).movedim(1, place)
            for (name, shape), part in zip(moved.items(), parts, strict=True)
        }

    def densities(self, u: Tensor, *batch: Tensor) -> Densities:
        """Both log-densities at u ``(S, B, K)``, and their gradients."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            prior, likelihood = self._log_densities(u, batch)
            (of_prior,) = torch.autograd.grad(prior.sum(), u, retain_graph=True)
            (of_likelihood,) = torch.autograd.grad(likelihood.sum(), u)
        return Densities(prior.detach(), likelihood.detach(), of_prior, of_likelihood)

    def simulated(self, batch: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Data of the model's own in place of the batch's, and u ``(1, B, K)`` of the latent variables that they came from.

        Entries that the batch misses are missing. Which those are does not depend on z, so u is a draw of the posterior still.

        Raises:
            ValueError: the model does not observe x, and x alone.
        """
        with local_params():
            program = poutine.uncondition(vectorize_particles(self.pair.programs.model, 1, self.plates))
            trace = poutine.util.prune_subsample_sites(poutine.trace(program).get_trace(*batch))
        names = [name for name in trace.stochastic_nodes if name not in self.shapes]
        if len(names) != 1 or trace.nodes[names[0]]["value"].numel() != batch[0].numel():
            raise ValueError(
                f"data can be simulated from a model that observes one variable, x, but this one observes {', '.join(names)}: "
                "use AIS(simulated=0)"
            )
        x = trace.nodes[names[0]]["value"].reshape(batch[0].shape).to(batch[0])
        known = self.pair.model_facts.known_entries
        kept = batch[0].isnan() if known is None else batch[0].isnan() | known.to(x.device)
        x = torch.where(kept, batch[0], x)
        values = {name: _bijection(trace.nodes[name]["fn"]).inv(trace.nodes[name]["value"]) for name in self.shapes}
        return (x, *batch[1:]), self.pack(values)

    def _log_densities(self, u: Tensor, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        volumes: dict[str, Tensor] = {}
        with Substitute({name: partial(_placed, name, value, volumes) for name, value in self.unpack(u).items()}):
            trace = self._trace(batch)
        trace.compute_log_prob()
        zero = u.new_zeros(u.shape[:2])
        prior, likelihood = zero, zero
        for name in self.shapes:
            site = trace.nodes[name]
            volume = {**site, "volume": volumes[name] * site["scale"]}
            prior = prior + per_datum(site, "log_prob", self.plates) + per_datum(volume, "volume", self.plates)
        for name in trace.observation_nodes:
            likelihood = likelihood + per_datum(trace.nodes[name], "log_prob", self.plates)
        return prior, likelihood

    def _trace(self, batch: tuple[Tensor, ...]) -> poutine.Trace:
        with local_params():
            trace = poutine.trace(vectorize_particles(self.pair.programs.model, self.chains, self.plates)).get_trace(*batch)
        return poutine.util.prune_subsample_sites(trace)


def _rows(values: Tensor) -> Tensor:
    """``(S, B, *)`` as ``(S, B, K)``; a number is a vector of one."""
    return values.reshape(*values.shape[:2], math.prod(values.shape[2:]))


def _placed(name: str, u: Tensor, volumes: dict[str, Tensor], fn: Any) -> Tensor:
    """The site's value at its coordinates; notes the log-volume of T."""
    bijection = _bijection(fn)
    z = bijection(u)
    volume = bijection.log_abs_det_jacobian(u, z)
    batch_dim = z.dim() - fn.event_dim
    volumes[name] = volume.sum(list(range(batch_dim, volume.dim()))) if volume.dim() > batch_dim else volume
    return z


def _bijection(fn: Any) -> Transform:
    return biject_to(unmixed(fn.support))


def _check(name: str, site: dict[str, Any], plates: Plates) -> None:
    if not plates.of_data(site):
        raise ValueError(
            f"{name} is shared by all data, so log p(x) is not a mean over them: annealed importance sampling is for latent "
            "variables of each datum; fit a model whose parameters carry no priors"
        )
    support = site["fn"].support
    if support.is_discrete:
        raise ValueError(
            f"{name} is discrete, and annealed importance sampling moves along gradients: use the importance-weighted bound "
            "(samples) instead"
        )
    try:
        _bijection(site["fn"])
    except NotImplementedError:
        raise ValueError(
            f"{name} lies in {support}, which has no real coordinates to move in: use the importance-weighted bound (samples) "
            "instead"
        ) from None
