"""Bounds on log p(x) of each datum, for any pair of Pyro programs with a plate over the data.

    log p(x) >= E_q[log mean_s w_s] >= E_q[mean_s log w_s] = ELBO,    w = p(x, z) / q(z | x)

The middle one is the importance-weighted bound of Burda, Grosse and Salakhutdinov (2016).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.pair import Pair, Plates, local_params
from ppl_vae.types import Terms

__all__ = ["elbo_terms", "log_weights", "per_datum", "sample_sites", "site_kl", "traces"]


def elbo_terms(pair: Pair, batch: tuple[Tensor, ...], *, samples: int = 1) -> Terms:
    """ELBO, reconstruction and KL of each datum, means over samples of the latent variables.

    The KL of a latent site is analytic where the pair is mean field and a closed form exists, else sampled. Of a model that
    knows its posterior everything is in closed form: ELBO = log p(x) - KL(q(z | x) || p(z | x)).

    Args:
        pair: model and guide.
        batch: what the programs are called with, first ``x (B, *event)``.
        samples: S, samples of the latent variables per datum.

    Returns:
        Tensors of shape ``(B,)`` in nats, without the plate's N / B scaling.
    """
    point_estimates = not getattr(pair.model, "parameter_sites", ())  # a parameter's KL has no closed form
    if point_estimates and hasattr(pair.model, "log_prob") and hasattr(pair.guide, "posterior"):
        with contextlib.suppress(NotImplementedError):
            return _exact_terms(pair, batch[0])
    plates, model, guide = traces(pair, batch, samples)
    zero = torch.zeros(samples, len(batch[0]), dtype=batch[0].dtype, device=batch[0].device)
    reconstruction = sum((per_datum(model.nodes[name], "log_prob", plates) for name in model.observation_nodes), zero)
    kl = sum((site_kl(model, guide, name, plates, pair.mean_field) for name in guide.stochastic_nodes), zero)
    return Terms((reconstruction - kl).mean(0), reconstruction.mean(0), kl.mean(0))


def log_weights(pair: Pair, batch: tuple[Tensor, ...], *, samples: int) -> Tensor:
    """Log p(x, z) - log q(z | x) of each datum and sample, ``(S, B)``, z drawn from the guide."""
    plates, model, guide = traces(pair, batch, samples)
    zero = torch.zeros(samples, len(batch[0]), dtype=batch[0].dtype, device=batch[0].device)
    joint = sum((per_datum(site, "log_prob", plates) for site in sample_sites(model)), zero)
    return joint - sum((per_datum(site, "log_prob", plates) for site in sample_sites(guide)), zero)


def _exact_terms(pair: Pair, x: Tensor) -> Terms:
    """No sampling; raises ``NotImplementedError`` where torch has no KL between the guide's family and the posterior's."""
    q = pair.guide.posterior(x)
    gap = 0.0 if getattr(pair.guide, "exact", False) else kl_divergence(q, pair.model.posterior(x))
    elbo = pair.model.log_prob(x) - gap
    kl = kl_divergence(q, pair.model.prior().expand(q.batch_shape))
    return Terms(elbo, elbo + kl, kl)


def traces(pair: Pair, batch: tuple[Tensor, ...], samples: int) -> tuple[Plates, poutine.Trace, poutine.Trace]:
    """Both programs run once with S samples in a plate left of their own."""
    plates = pair.plates(*batch)
    with local_params():
        guide = poutine.trace(_repeated(pair.guide, samples, plates)).get_trace(*batch)
        model = poutine.trace(poutine.replay(_repeated(pair.model, samples, plates), trace=guide)).get_trace(*batch)
    guide, model = (poutine.util.prune_subsample_sites(trace) for trace in (guide, model))
    for trace in (guide, model):
        trace.compute_log_prob()
    return plates, model, guide


def _repeated(program: Callable, samples: int, plates: Plates) -> Callable:
    def run(*batch: Tensor) -> Any:
        with pyro.plate("samples", samples, dim=-1 - plates.nesting):
            return program(*batch)

    return run


def sample_sites(trace: poutine.Trace) -> list[dict[str, Any]]:
    """The sites that carry log-probabilities, latent and observed."""
    return [site for site in trace.nodes.values() if site["type"] == "sample"]


def site_kl(model: poutine.Trace, guide: poutine.Trace, name: str, plates: Plates, mean_field: bool) -> Tensor:
    """The KL of a latent site of each sample and datum, ``(S, B)``, analytic where that is allowed and known."""
    q, p = guide.nodes[name], model.nodes.get(name)
    if mean_field and p is not None:
        try:
            return per_datum({**q, "kl": q["scale"] * kl_divergence(q["fn"], p["fn"])}, "kl", plates)
        except NotImplementedError:
            pass
    sampled = per_datum(q, "log_prob", plates)
    return sampled if p is None else sampled - per_datum(p, "log_prob", plates)


def per_datum(site: dict[str, Any], key: str, plates: Plates) -> Tensor:
    """A site's scaled values ``(S, *plates)`` summed to ``(S, B)``; a global site's are shared out among the N data."""
    values = site[key] / site["scale"]
    values = values.reshape((1,) * (1 + plates.nesting - values.dim()) + values.shape)
    in_plate = any(frame.dim == plates.data_dim for frame in site["cond_indep_stack"])
    others = [dim for dim in range(-plates.nesting, 0) if dim != plates.data_dim]
    values = values.sum(others, keepdim=True) if others else values
    values = values.reshape(len(values), -1)
    return values if in_plate else values / plates.size
