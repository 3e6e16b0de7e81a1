"""What the sites of two Pyro programs add to the ELBO, and whether their sum is one.

    E_q[sum over the model's sites of s m log p - sum over the guide's sites of s m log q],   s the scale, m the mask

Subsampling makes the scales of plates; what ``poutine.scale`` adds to them weighs the sum. A ``pyro.factor`` is no density.
What the guide observes is a loss of its own beside the ELBO; a factor too, but with ``has_rsample=True`` it is a part of log q.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.distributions import Delta, Unit
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from ppl_vae.program.wrapped import unwrapped

__all__ = ["auxiliary", "kind_of_sum", "points", "sampled", "summed_out", "unnormalized", "weighed"]

Site = dict[str, Any]


def kind_of_sum(model: Trace, guide: Trace, still: list[str]) -> str:
    """What the sum of a pair's terms is, by the names of :data:`ppl_vae.types.SCORES`.

    Args:
        model: of one run.
        guide: of the same run.
        still: the latent variables of which the guide has a point alone, see :func:`points`.
    """
    if unnormalized(model) or set(unnormalized(guide)) - set(auxiliary(guide)):
        return "unnormalized_objective"
    if weighed(model) or weighed(guide) or _masked_apart(model, guide):
        return "weighted_objective"
    return "log_joint" if still else "elbo"


def sampled(trace: Trace) -> Iterator[tuple[str, Site]]:
    """The sites that have a term, by name: neither subsampled rows nor ``pyro.deterministic``."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site) and not site["infer"].get("_deterministic"):
            yield name, site


def unnormalized(trace: Trace) -> list[str]:
    """The names of the sites that are no densities, ``pyro.factor``."""
    return [name for name, site in sampled(trace) if isinstance(unwrapped(site["fn"]), Unit)]


def auxiliary(guide: Trace) -> list[str]:
    """The names of the guide's terms that are neither latent variables nor a part of their density."""
    observed = [(name, unwrapped(site["fn"])) for name, site in sampled(guide) if site["is_observed"]]
    return [name for name, fn in observed if not (isinstance(fn, Unit) and fn.has_rsample)]


def weighed(trace: Trace) -> list[str]:
    """The names of the sites with another scale than their plates' subsampling makes."""
    return [name for name, site in sampled(trace) if not _is(site["scale"], _of_plates(site))]


def summed_out(model: Trace, guide: Trace) -> tuple[str, ...]:
    """The discrete latent sites of the model that its marks ask to be summed out, and the guide leaves to it."""
    return tuple(
        name
        for name, site in sampled(model)
        if not site["is_observed"] and name not in guide.nodes and site["infer"].get("enumerate") == "parallel"
    )


def _of_plates(site: Site) -> Any:
    return math.prod(frame.full_size / frame.size for frame in site["cond_indep_stack"] if frame.full_size)


def _is(scale: Any, expected: Any) -> bool:
    return bool((torch.as_tensor(scale / expected) - 1).abs().max() < 1e-5)


def _masked_apart(model: Trace, guide: Trace) -> bool:
    """Whether a latent variable counts in one of the programs where it does not in the other."""
    masks = ((site["mask"], model.nodes[name]["mask"]) for name, site in sampled(guide) if name in model.nodes)
    return any(not _alike(q, p) for q, p in masks)


def _alike(q: Any, p: Any) -> bool:
    q, p = (torch.as_tensor(True if mask is None else mask) for mask in (q, p))
    return bool((q == p).all())


def points(model: Trace, guide: Trace, again: Callable[[], Trace]) -> list[str]:
    """The continuous latent variables that the guide has no density of, and always the same value.

    Args:
        model: of one run.
        guide: of the same run.
        again: runs the guide once more, with other random numbers.
    """
    found = {name: site for name, site in sampled(guide) if name in model.nodes and _is_point(site, model.nodes[name])}
    other = again().nodes if found else {}
    return [name for name, site in found.items() if name in other and torch.equal(site["value"], other[name]["value"])]


def _is_point(q: Site, p: Site) -> bool:
    fn, of_model = unwrapped(q["fn"]), unwrapped(p["fn"])
    if not isinstance(fn, Delta) or isinstance(of_model, Delta) or _any(fn.log_density):
        return False
    return not bool(of_model.support.is_discrete) and _has_coordinates(p["fn"])


def _has_coordinates(fn: Any) -> bool:
    """Whether there is more than one value to take, unlike the weights of a single component."""
    try:
        return bool(math.prod(biject_to(fn.support).inverse_shape(fn.event_shape)) > 0)
    except NotImplementedError:
        return True


def _any(value: Any) -> bool:
    return bool(value.any()) if isinstance(value, Tensor) else bool(value)
