"""Pyro's ELBOs as a module, and with the KL of their latent sites weighed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.inference.objectives.base import Estimate
from ppl_vae.inference.objectives.pyro_parts import AnalyticELBO, EnumeratedELBO, SampledELBO, Traces
from ppl_vae.program.pair import Pair, Plates, weighed
from ppl_vae.program.stacking import stacks
from ppl_vae.program.traces import guide_sites

__all__ = ["PyroELBO", "WeighedELBO"]


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
        self._elbos: dict[tuple[Plates, bool], Any] = {}  # batches that lack a field may have other sites

    def forward(self, *batch: Tensor) -> Estimate:
        """Of a batch."""
        plates = self.pair.plates(*batch)
        together = self.particles > 1 and (bool(plates.undivided) or stacks(self.pair, batch))
        if (plates, together) not in self._elbos:
            kind = EnumeratedELBO if plates.enumerated or plates.summed else self.kind
            self._elbos[plates, together] = kind(
                num_particles=self.particles, vectorize_particles=together, max_plate_nesting=plates.nesting
            )
        self.elbo = self._elbos[plates, together]
        return self.estimate(plates, list(self.elbo._get_traces(*weighed(self.pair, plates), batch, {})))

    def estimate(self, plates: Plates, traces: Traces) -> Estimate:
        """From the traces of a batch, the particles in one plate."""
        loss = self.elbo.loss_of(traces) / plates.size
        beside = self.elbo.beside(traces)
        elbo = -loss.detach() if beside is None else beside / plates.size - loss.detach()
        return Estimate(loss, elbo, self.elbo.reconstruction(traces) / plates.size)


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
        if plates.summed:
            _check_priors(plates, traces)
        with torch.no_grad():
            reconstruction = elbo.reconstruction(traces) / plates.size
            kl = {name: elbo.kl(traces, name) / plates.size for name in _latents(traces)}
            local = [name for name in kl if plates.of_data(traces[0][1].nodes[name])]
            weights, offset = self.weigh(torch.stack([kl[name] for name in local]) if local else reconstruction.new_zeros(0))
        for name, weight in zip(local, weights.unbind(), strict=True):
            for site in (trace.nodes[name] for pair in traces for trace in pair if name in trace.nodes):
                _reweigh(site, weight)
        loss = elbo.loss_of(traces) / plates.size + offset
        return Estimate(loss, reconstruction - sum(kl.values()), reconstruction)


def _check_priors(plates: Plates, traces: Traces) -> None:
    """Raise ``ValueError`` if the prior of a latent variable is a sum over another, and its KL does not stand alone."""
    dims = {traces[0][0].nodes[name]["infer"].get("_enumerate_symbol") for name in plates.summed}
    for name in _latents(traces):
        site = traces[0][0].nodes.get(name)
        if site is not None and dims.intersection(site["packed"]["log_prob"]._pyro_dims):
            raise ValueError(
                f"the prior of {name} hangs on {', '.join(plates.summed)}, which the model sums out, so it has no KL of its "
                "own to weigh: use objective=ELBO() or IWAE()"
            )


def _latents(traces: Traces) -> Iterator[str]:
    return (site["name"] for site in guide_sites(traces[0][1]))


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
