"""Bounds on log p(x) of each datum, for any pair of Pyro programs with a plate over the data.

    log p(x) >= E_q[log mean_s w_s] >= E_q[mean_s log w_s] = ELBO,    w = p(x, z) / q(z | x)

The middle one is the importance-weighted bound of Burda, Grosse and Salakhutdinov (2016). What a model sums out is no
part of z.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.evaluate.contraction import contracted, latent_part
from ppl_vae.program.pair import Pair, Plates, local_params
from ppl_vae.program.terms import auxiliary
from ppl_vae.types import Terms

__all__ = [
    "At",
    "Bounds",
    "Traces",
    "bounds",
    "elbo_terms",
    "enumerated_elbo",
    "guide_sites",
    "log_joint",
    "log_q",
    "log_weights",
    "per_datum",
    "reconstruction",
    "repeated",
    "sample_sites",
    "site_kl",
    "traces",
]


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
    return bounds(pair, batch, samples=samples).terms


def log_weights(pair: Pair, batch: tuple[Tensor, ...], *, samples: int) -> Tensor:
    """Log p(x, z) - log q(z | x) of each datum and sample, ``(S, B)``, z drawn from the guide."""
    return _log_weights(traces(pair, batch, samples))


class Bounds(NamedTuple):
    """The ELBO and its halves ``(B,)``; log p(x) ``(B,)`` of models that know it; log-weights ``(S, B)`` where asked for."""

    terms: Terms
    log_likelihood: Tensor | None
    log_weights: Tensor | None


def bounds(pair: Pair, batch: tuple[Tensor, ...], *, samples: int, weighted: bool = False) -> Bounds:
    """All that is known of a batch from one run of the programs, ``weighted`` if :func:`log_weights` are wanted as well."""
    exact = pair.model.log_prob(*batch) if hasattr(pair.model, "log_prob") else None
    terms = None if exact is None else _closed_terms(pair, batch[0], exact)
    if terms is not None and not weighted:
        return Bounds(terms, exact, None)
    ran = traces(pair, batch, samples)
    return Bounds(_sampled_terms(pair, ran) if terms is None else terms, exact, _log_weights(ran) if weighted else None)


def _closed_terms(pair: Pair, x: Tensor, log_prob: Tensor) -> Terms | None:
    """Without sampling; ``None`` unless the posterior is known, and to torch its KL from the guide's family."""
    sampled_parameters = getattr(pair.model, "parameter_sites", ())  # a parameter's KL has no closed form
    if sampled_parameters or not hasattr(pair.guide, "posterior"):
        return None
    q = pair.guide.posterior(x)
    try:
        gap = 0.0 if getattr(pair.guide, "exact", False) else kl_divergence(q, pair.model.posterior(x))
        kl = kl_divergence(q, pair.model.prior().expand(q.batch_shape))
    except NotImplementedError:
        return None
    elbo = log_prob - gap
    return Terms(elbo, elbo + kl, kl)


class Traces(NamedTuple):
    """Both programs run once, and a zero for each sample and datum, ``(S, B)``."""

    plates: Plates
    model: poutine.Trace
    guide: poutine.Trace
    zero: Tensor


def _sampled_terms(pair: Pair, ran: Traces) -> Terms:
    q, likelihood = log_q(ran), reconstruction(ran)
    if ran.plates.summed:
        kl = q - (log_joint(ran) - likelihood)
    else:
        names = [site["name"] for site in guide_sites(ran.guide)]
        kl = sum((site_kl(ran.model, ran.guide, name, ran.plates, pair.mean_field) for name in names), ran.zero)
    return Terms((likelihood - kl).mean(0), likelihood.mean(0), kl.mean(0))


def _log_weights(ran: Traces) -> Tensor:
    return log_joint(ran) - log_q(ran)


def log_joint(ran: Traces) -> Tensor:
    """Log p(x, z) of each sample and datum, ``(S, B)``, what the model sums out summed out."""
    sites = contracted(ran.model, ran.guide) if ran.plates.summed else sample_sites(ran.model)
    return _total(sites, ran)


def reconstruction(ran: Traces) -> Tensor:
    """Log p(x | z) of each sample and datum, ``(S, B)``; where variables are summed out it is log p(x, z) - log p(z)."""
    if ran.plates.summed:
        return log_joint(ran) - _total(contracted(latent_part(ran.model), ran.guide), ran)
    return _total([ran.model.nodes[name] for name in ran.model.observation_nodes], ran)


def log_q(ran: Traces) -> Tensor:
    """Log q(z | x) of each sample and datum, ``(S, B)``."""
    return _total(guide_sites(ran.guide), ran)


def _total(sites: list[dict[str, Any]], ran: Traces) -> Tensor:
    terms = [per_datum(site, "log_prob", ran.plates) for site in sites] or [ran.zero]
    total = sum(terms[1:], terms[0])
    return total if total.shape == ran.zero.shape else total + ran.zero  # what all data share has no dimension of theirs


def enumerated_elbo(pair: Pair, batch: tuple[Tensor, ...]) -> Tensor:
    """The ELBO of each datum ``(B,)`` of a guide with one discrete latent variable, summed over its values."""
    plates = pair.plates(*batch)
    with local_params():
        trace = poutine.trace(repeated(pair.programs.guide, 1, plates)).get_trace(*batch)
    ((name, site),) = [(name, trace.nodes[name]) for name in trace.stochastic_nodes if plates.of_data(trace.nodes[name])]
    support = site["fn"].enumerate_support(expand=False)[:, 0]  # without the dimension of the one sample
    values = support.expand(len(support), *site["value"].shape[1:])
    with At({name: lambda fn: values}):
        ran = traces(pair, batch, len(values), always=True)
    q = per_datum(ran.guide.nodes[name], "log_prob", plates)
    return (q.exp() * _log_weights(ran)).sum(0)


class At(Messenger):
    """Latent sites take the value that ``places`` gives them, by name, from their distributions."""

    def __init__(self, places: Mapping[str, Callable[[Any], Tensor]]) -> None:
        super().__init__()
        self.places = places

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.places and not msg["is_observed"]:
            msg["value"] = self.places[msg["name"]](msg["fn"])
            msg["done"] = True


def traces(pair: Pair, batch: tuple[Tensor, ...], samples: int, *, always: bool = False) -> Traces:
    """Both programs run once, several samples in a plate left of their own; one sample has none unless ``always``.

    Raises:
        ValueError: the model sums out a variable of all data, which leaves a datum no term of its own.
    """
    plates = pair.plates(*batch)
    _check_summed(plates)
    stacked = samples > 1 or always
    model_program, guide_program = (repeated(program, samples, plates) if stacked else program for program in pair.programs)
    if plates.summed:
        model_program = EnumMessenger(first_available_dim=-1 - plates.nesting - stacked)(model_program)
    with local_params():
        guide = poutine.trace(guide_program).get_trace(*batch)
        model = poutine.trace(poutine.replay(model_program, trace=guide)).get_trace(*batch)
    guide, model = (poutine.util.prune_subsample_sites(trace) for trace in (guide, model))
    for trace in (guide, model):
        trace.compute_log_prob()
    return Traces(plates, model, guide, batch[0].new_zeros(samples, len(batch[0])))


def _check_summed(plates: Plates) -> None:
    if plates.undivided:
        raise ValueError(
            f"the model sums out {', '.join(plates.undivided)}, which all data share, so that log p(x) is no mean over the "
            "data: move the site into the plate over them, or sample it in the guide; the history has the ELBO of all data"
        )


def repeated(program: Callable, samples: int, plates: Plates) -> Callable:
    """The program in a plate of S samples left of its own plates."""

    def run(*batch: Tensor) -> Any:
        with pyro.plate("_ppl_vae_samples", samples, dim=-1 - plates.nesting):
            return program(*batch)

    return run


def sample_sites(trace: poutine.Trace) -> list[dict[str, Any]]:
    """The sites that carry log-probabilities, latent and observed."""
    return [site for site in trace.nodes.values() if site["type"] == "sample"]


def guide_sites(guide: poutine.Trace) -> list[dict[str, Any]]:
    """The sites whose log-probabilities make up log q(z | x)."""
    beside = auxiliary(guide)
    return [site for site in sample_sites(guide) if site["name"] not in beside]


def site_kl(model: poutine.Trace, guide: poutine.Trace, name: str, plates: Plates, mean_field: bool) -> Tensor:
    """The KL of a latent site of each sample and datum, ``(S, B)``, analytic where that is allowed and known."""
    q, p = guide.nodes[name], model.nodes.get(name)
    if p is None:
        return per_datum(q, "log_prob", plates)
    if mean_field:
        try:
            kl = scale_and_mask(kl_divergence(q["fn"], p["fn"]), q["scale"], q["mask"])
            return per_datum({**q, "kl": kl}, "kl", plates)
        except NotImplementedError:
            pass
    return per_datum(q, "log_prob", plates) - per_datum(p, "log_prob", plates)


def per_datum(site: dict[str, Any], key: str, plates: Plates) -> Tensor:
    """A site's scaled values ``(S, *plates)`` summed to ``(S, B)``; a global site's are shared out among the N data.

    Only the scale that the plate over the data makes is taken back: what other plates and ``poutine.scale`` make counts.
    """
    own = plates.of_data(site)
    values = site[key] / (own.full_size / own.size if own else 1.0)
    values = values.reshape((1,) * (1 + plates.nesting - values.dim()) + values.shape)
    others = [dim for dim in range(-plates.nesting, 0) if not (own and dim == plates.data_dim)]
    values = values.sum(others, keepdim=True) if others else values
    values = values.reshape(len(values), -1)
    return values if own else values / plates.size
