"""Bounds on log p(x) of each datum, for any pair of Pyro programs with a plate over the data.

    log p(x) >= E_q[log mean_s w_s] >= E_q[mean_s log w_s] = ELBO,    w = p(x, z) / q(z | x)

The middle one is the importance-weighted bound of Burda, Grosse and Salakhutdinov (2016). What a model sums out is no
part of z.
"""

from __future__ import annotations

from typing import NamedTuple

from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.program.context import local_params
from ppl_vae.program.pair import Pair
from ppl_vae.program.traces import (
    Substitute,
    Traces,
    guide_sites,
    log_joint,
    log_q,
    per_datum,
    reconstruction,
    site_kl,
    traces,
    vectorize_particles,
)
from ppl_vae.types import ELBOTerms

__all__ = ["Bounds", "bounds", "elbo_terms", "enumerated_elbo", "log_weights"]


def elbo_terms(pair: Pair, batch: tuple[Tensor, ...], *, samples: int = 1) -> ELBOTerms:
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
    return bounds(pair, batch, samples=samples).terms


def log_weights(pair: Pair, batch: tuple[Tensor, ...], *, samples: int) -> Tensor:
    """Log p(x, z) - log q(z | x) of each datum and sample, ``(S, B)``, z drawn from the guide."""
    return _log_weights(traces(pair, batch, samples))


class Bounds(NamedTuple):
    """The ELBO and its halves ``(B,)``; log p(x) ``(B,)`` of models that know it; log-weights ``(S, B)`` where asked for.

    Parts of the KL ``(B,)`` of guides that sum them.
    """

    terms: ELBOTerms
    log_likelihood: Tensor | None
    log_weights: Tensor | None
    parts: tuple[Tensor, ...] = ()


def bounds(pair: Pair, batch: tuple[Tensor, ...], *, samples: int, weighted: bool = False, summed: bool = True) -> Bounds:
    """All that is known of a batch from one run of the programs, ``weighted`` if :func:`log_weights` are wanted as well.

    ``summed`` if plates of which a run sees a sample are summed, where the guide can.
    """
    if summed and pair.can.sum_bound is not None:
        of_sum, parts = pair.can.sum_bound.summed_bound(*batch, samples=samples)
        return Bounds(of_sum, None, None, parts)
    exact = None if pair.can.marginal is None else pair.can.marginal.log_prob(*batch)
    if pair.can.bound is not None:
        terms: ELBOTerms | None = pair.can.bound.bound(*batch)
    else:
        terms = None if exact is None else _closed_terms(pair, batch, exact)
    if terms is not None and not weighted:
        return Bounds(terms, exact, None)
    if terms is not None and exact is not None and pair.guide_facts.exact and not pair.model_facts.parameter_sites:
        return Bounds(terms, exact, exact.expand(samples, -1))  # p(x, z) / p(z | x) is p(x) whatever z, missing entries or not
    ran = traces(pair, batch, samples)
    return Bounds(_sampled_terms(pair, ran) if terms is None else terms, exact, _log_weights(ran) if weighted else None)


def _closed_terms(pair: Pair, batch: tuple[Tensor, ...], log_prob: Tensor) -> ELBOTerms | None:
    """Without sampling; ``None`` unless the posterior is known, and to torch its KL from the guide's family."""
    can = pair.can
    sampled_parameters = pair.model_facts.parameter_sites  # a parameter's KL has no closed form
    if pair.guide_facts.exact and not sampled_parameters and not pair.plates(*batch).drawn:
        return ELBOTerms(log_prob, log_prob, log_prob.new_zeros(len(log_prob)))  # all that is latent is summed out
    if sampled_parameters or can.encode is None or can.generate is None:
        return None
    q = can.encode.posterior(*batch)
    try:
        if pair.guide_facts.exact:
            gap: float | Tensor = 0.0
        elif can.know_posterior is None:
            return None
        else:
            gap = kl_divergence(q, can.know_posterior.posterior(*batch))
        kl = kl_divergence(q, can.generate.prior().expand(q.batch_shape))
    except NotImplementedError:
        return None
    elbo = log_prob - gap
    return ELBOTerms(elbo, elbo + kl, kl)


def _sampled_terms(pair: Pair, ran: Traces) -> ELBOTerms:
    q, likelihood = log_q(ran), reconstruction(ran)
    if ran.plates.summed:
        kl = q - (log_joint(ran) - likelihood)
    else:
        names = [site["name"] for site in guide_sites(ran.guide)]
        kl = sum((site_kl(ran.model, ran.guide, name, ran.plates, pair.mean_field) for name in names), ran.zero)
    return ELBOTerms((likelihood - kl).mean(0), likelihood.mean(0), kl.mean(0))


def _log_weights(ran: Traces) -> Tensor:
    return log_joint(ran) - log_q(ran)


def enumerated_elbo(pair: Pair, batch: tuple[Tensor, ...]) -> Tensor:
    """The ELBO of each datum ``(B,)`` of a guide with one discrete latent variable, summed over its values."""
    plates = pair.plates(*batch)
    with local_params():
        trace = poutine.trace(vectorize_particles(pair.programs.guide, 1, plates)).get_trace(*batch)
    ((name, site),) = [(name, trace.nodes[name]) for name in trace.stochastic_nodes if plates.of_data(trace.nodes[name])]
    support = site["fn"].enumerate_support(expand=False)[:, 0]  # without the dimension of the one sample
    values = support.expand(len(support), *site["value"].shape[1:])
    with Substitute({name: lambda fn: values}):
        ran = traces(pair, batch, len(values), always=True)
    q = per_datum(ran.guide.nodes[name], "log_prob", plates)
    return (q.exp() * _log_weights(ran)).sum(0)
