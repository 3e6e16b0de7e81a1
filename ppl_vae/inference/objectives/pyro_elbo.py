"""Pyro's ELBOs as a module, and with the KL of their latent sites weighed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.inference.objectives.base import Estimate
from ppl_vae.inference.objectives.pyro_parts import AnalyticELBO, EnumeratedELBO, SampledELBO, Traces
from ppl_vae.pair import Pair, Plates

__all__ = ["PyroELBO", "WeighedELBO", "in_data_plate"]


class PyroELBO(nn.Module):
    """One of Pyro's ELBOs, divided by the number of data that the pair's plate scales it to.

    Args:
        pair: model and guide.
        particles: S, samples of the latent variables per datum.
        analytic: whether the KL of a site is in closed form where there is one.
    """

    def __init__(self, pair: Pair, particles: int, *, analytic: bool) -> None:
        super().__init__()
        self.pair = pair
        self.kind = AnalyticELBO if analytic else SampledELBO
        self.particles = particles
        self.elbo: Any = None
        self._elbos: dict[Plates, Any] = {}  # batches that lack a field may have other sites

    def forward(self, *batch: Tensor) -> Estimate:
        """Of a batch."""
        plates = self.pair.plates(*batch)
        if plates not in self._elbos:
            kind = EnumeratedELBO if plates.enumerated else self.kind
            self._elbos[plates] = kind(
                num_particles=self.particles, vectorize_particles=self.particles > 1, max_plate_nesting=plates.nesting
            )
        self.elbo = self._elbos[plates]
        return self.estimate(plates, list(self.elbo._get_traces(self.pair.model, self.pair.guide, batch, {})))

    def estimate(self, plates: Plates, traces: Traces) -> Estimate:
        """From the traces of a batch, the particles in one plate."""
        loss = self.elbo.loss_of(traces) / plates.size
        return Estimate(loss, -loss.detach(), self.elbo.reconstruction(traces) / plates.size)


class WeighedELBO(PyroELBO):
    """An ELBO whose KL is weighed site by site: E_q[log p(x | z)] - sum_j w_j KL_j - offset.

    Only latent variables of the data are weighed, those of the whole data set (a parameter with a prior) count once.

    Args:
        pair: model and guide.
        particles: S, samples of the latent variables per datum.
        analytic: whether the KL of a site is in closed form where there is one.
        weigh: from the KL of each site ``(J,)``, in nats per datum, to the weights ``(J,)`` and the offset.
    """

    def __init__(self, pair: Pair, particles: int, *, analytic: bool, weigh: nn.Module) -> None:
        super().__init__(pair, particles, analytic=analytic)
        self.weigh = weigh

    def estimate(self, plates: Plates, traces: Traces) -> Estimate:
        """From the traces of a batch."""
        elbo = self.elbo
        with torch.no_grad():
            reconstruction = elbo.reconstruction(traces) / plates.size
            kl = {name: elbo.kl(traces, name) / plates.size for name in _latents(traces)}
            local = [name for name in kl if in_data_plate(traces[0][1].nodes[name], plates)]
            weights, offset = self.weigh(torch.stack([kl[name] for name in local]) if local else reconstruction.new_zeros(0))
        for name, weight in zip(local, weights.unbind(), strict=True):
            for site in (trace.nodes[name] for pair in traces for trace in pair if name in trace.nodes):
                _reweigh(site, weight)
        loss = elbo.loss_of(traces) / plates.size + offset
        return Estimate(loss, reconstruction - sum(kl.values()), reconstruction)


def in_data_plate(site: dict[str, Any], plates: Plates) -> bool:
    """Whether a site belongs to a datum, not to the whole data set."""
    return any(frame.dim == plates.data_dim for frame in site["cond_indep_stack"])


def _latents(traces: Traces) -> Iterator[str]:
    return (name for name, site in traces[0][1].nodes.items() if site["type"] == "sample")


def _reweigh(site: dict[str, Any], weight: Tensor) -> None:
    """Multiply a site's share of the ELBO; the score of the guide, which multiplies shares, stays as it is."""
    site["scale"] = site["scale"] * weight
    site["log_prob"], site["log_prob_sum"] = site["log_prob"] * weight, site["log_prob_sum"] * weight
    if "score_parts" in site:
        site["score_parts"] = site["score_parts"].scale_and_mask(weight)
    if "packed" in site:
        log_prob = site["packed"]["log_prob"]
        site["packed"]["log_prob"] = log_prob * weight
        site["packed"]["log_prob"]._pyro_dims = log_prob._pyro_dims
