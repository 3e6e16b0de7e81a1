"""Both programs of a pair run on a batch, and the algebra of their traces: terms of each sample and datum, ``(S, B)``.

What a model sums out is no part of z.
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

from ppl_vae.program.context import local_params
from ppl_vae.program.contraction import contracted, latent_part
from ppl_vae.program.pair import Pair, Plates
from ppl_vae.program.terms import auxiliary

__all__ = [
    "Substitute",
    "Traces",
    "guide_sites",
    "log_joint",
    "log_q",
    "per_datum",
    "reconstruction",
    "sample_sites",
    "site_kl",
    "traces",
    "vectorize_particles",
]


class Traces(NamedTuple):
    """Both programs run once, and a zero for each sample and datum, ``(S, B)``."""

    plates: Plates
    model: poutine.Trace
    guide: poutine.Trace
    zero: Tensor


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


class Substitute(Messenger):
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
    model_program, guide_program = (
        vectorize_particles(program, samples, plates) if stacked else program for program in pair.programs
    )
    if plates.summed:
        model_program = EnumMessenger(first_available_dim=-1 - plates.nesting - stacked)(model_program)
    with local_params():
        guide = poutine.trace(guide_program).get_trace(*batch)
        model = poutine.trace(poutine.replay(model_program, trace=guide)).get_trace(*batch)
    guide, model = (poutine.util.prune_subsample_sites(trace) for trace in (guide, model))
    for trace in (guide, model):
        trace.compute_log_prob()
    x = batch[0] if batch[0].is_floating_point() else batch[0].float()  # tokens are integers
    return Traces(plates, model, guide, x.new_zeros(samples, len(x)))


def _check_summed(plates: Plates) -> None:
    if plates.undivided:
        raise ValueError(
            f"the model sums out {', '.join(plates.undivided)}, which all data share, so that log p(x) is no mean over the "
            "data: move the site into the plate over them, or sample it in the guide; the history has the ELBO of all data"
        )


def vectorize_particles(program: Callable[..., Any], samples: int, plates: Plates) -> Callable[..., Any]:
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

    Of weighted data it is shared out among as many rows as these count.

    Only the scale that the plate over the data makes is taken back: what other plates and ``poutine.scale`` make counts.
    """
    own = plates.of_data(site)
    values = site[key] / (own.full_size / own.size if own else 1.0)
    values = values.reshape((1,) * (1 + plates.nesting - values.dim()) + values.shape)
    others = [dim for dim in range(-plates.nesting, 0) if not (own and dim == plates.data_dim)]
    values = values.sum(others, keepdim=True) if others else values
    values = values.reshape(len(values), -1)
    shared: Tensor = values / (plates.size * plates.mean_weight)
    return values if own else shared
