"""Pyro's ELBOs with their parts told apart."""

from __future__ import annotations

from typing import Any, cast

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.traceenum_elbo import _compute_dice_elbo, _compute_model_factors
from pyro.infer.util import Dice
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.program.contraction import latent_part
from ppl_vae.program.terms import auxiliary

__all__ = ["AnalyticELBO", "EnumeratedELBO", "SampledELBO", "Traces"]

Traces = list[tuple[Trace, Trace]]
"""Of model and guide; more than one only where Pyro enumerates one value after another."""


class ELBOMixin:
    """Mixed into one of Pyro's ELBOs: its loss and its parts from the programs' traces, summed over the data.

    The parts are means over the particles.
    """

    num_particles: int
    _get_traces: Any
    _differentiable_loss_particle: Any

    def loss_of(self, traces: Traces) -> Tensor:
        """As Pyro's own ``differentiable_loss``, without reading numbers to log them or to look for NaN."""
        losses = [self._differentiable_loss_particle(*pair) for pair in traces]
        return cast(Tensor, sum(surrogate + (loss - surrogate).detach() for loss, surrogate in losses) / self.num_particles)

    def reconstruction(self, traces: Traces) -> Tensor:
        """Log p(x | z) of all observed sites, detached."""
        observed = (model.nodes[name]["log_prob_sum"].detach() for model, _ in traces for name in model.observation_nodes)
        return cast(Tensor, sum(observed) / self.num_particles)

    def beside(self, traces: Traces) -> Tensor | None:
        """The guide's losses beside the ELBO, detached; ``None`` if it has none."""
        names = auxiliary(traces[0][1])
        losses = [self._log_q(*pair, name).detach() for pair in traces for name in names]
        return cast(Tensor, sum(losses) / self.num_particles) if losses else None

    def kl(self, traces: Traces, name: str) -> Tensor:
        """Of a latent site, as the loss takes it."""
        return cast(Tensor, sum(self._kl(*pair, name) for pair in traces) / self.num_particles)

    def _log_q(self, model: Trace, guide: Trace, name: str) -> Tensor:
        return cast(Tensor, guide.nodes[name]["log_prob_sum"])

    def _kl(self, model: Trace, guide: Trace, name: str) -> Tensor:
        sampled: Tensor = guide.nodes[name]["log_prob_sum"]
        return sampled - cast(Tensor, model.nodes[name]["log_prob_sum"]) if name in model.nodes else sampled


class SampledELBO(ELBOMixin, Trace_ELBO):
    """Pyro's ELBO with every term sampled."""


class AnalyticELBO(ELBOMixin, TraceMeanField_ELBO):
    """Pyro's ELBO with the closed-form KL of each latent site where there is one."""

    def _kl(self, model: Trace, guide: Trace, name: str) -> Tensor:
        q = guide.nodes[name]
        try:
            each = kl_divergence(q["fn"], model.nodes[name]["fn"])
            return cast(Tensor, scale_and_mask(each, q["scale"], q["mask"]).sum())
        except NotImplementedError:
            return super()._kl(model, guide, name)


class EnumeratedELBO(ELBOMixin, TraceEnum_ELBO):
    """Pyro's ELBO with every discrete latent variable summed out: the guide's, and those that it leaves to the model."""

    def loss_of(self, traces: Traces) -> Tensor:
        """As Pyro's own, without looking for NaN."""
        return cast(Tensor, -(sum(_compute_dice_elbo(*pair) for pair in traces) / self.num_particles))

    @torch.no_grad()
    def reconstruction(self, traces: Traces) -> Tensor:
        """E_q[log p(x | z)], the guide's discrete variables summed over; E_q[log p(x, z) - log p(z)] of those of the model."""
        return cast(Tensor, sum(self._reconstruction(*pair) for pair in traces) / self.num_particles)

    def _reconstruction(self, model: Trace, guide: Trace) -> Tensor:
        if any(name not in guide.nodes for name in model.stochastic_nodes):
            # Both hold E_q[-log q], which falls out.
            return cast(Tensor, _compute_dice_elbo(model, guide) - _compute_dice_elbo(latent_part(model), guide))
        return _expectation(model, guide, [(model, name) for name in model.observation_nodes])

    def _log_q(self, model: Trace, guide: Trace, name: str) -> Tensor:
        return _expectation(model, guide, [(guide, name)])

    def _kl(self, model: Trace, guide: Trace, name: str) -> Tensor:
        return _expectation(model, guide, [(guide, name)]) - _expectation(model, guide, [(model, name)])


def _expectation(model: Trace, guide: Trace, sites: list[tuple[Trace, str]]) -> Tensor:
    """Of the log-probabilities of some sites."""
    _, _, ordering, _, _ = _compute_model_factors(model, guide)
    costs: dict[Any, list[Tensor]] = {}
    for trace, name in sites:
        if trace.nodes.get(name) is not None:
            costs.setdefault(ordering[name], []).append(trace.nodes[name]["packed"]["log_prob"])
    return cast(Tensor, Dice(guide, ordering).compute_expectation(costs))
