"""Values of a program's sites as rows, and rows as values: where a program runs, and what its sites are given.

A site's value has the shape ``(*plates, *event)``, with the plate over the data anywhere among the plates. Its rows are
``(B, *others, *event)``: the data first, then the other plates that it stands in. What all data share has no axis of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pyro import poutine
from pyro.distributions import MaskedDistribution, Unit
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Categorical, Independent

from ppl_vae.likelihoods.base import point_prediction
from ppl_vae.program.context import local_params
from ppl_vae.program.joint import central_value
from ppl_vae.program.pair import Plates
from ppl_vae.program.terms import sampled

__all__ = ["Site", "Take", "as_rows", "as_value", "at_mean", "latent_sites", "observed_sites", "prediction", "ran"]

Site = dict[str, Any]
"""A node of a Pyro trace."""

Take = Callable[[Site], Tensor | None]
"""From a site to the value that it gets; ``None`` lets it be drawn."""


ENUMERATED = ("_enumerate_dim", "_dim_to_id")  # what Pyro notes at a site that it gives all its values


class Taking(Messenger):
    """Sites that are not observed get the values that ``take`` gives them."""

    def __init__(self, take: Take) -> None:
        super().__init__()
        self.take = take

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        value = self.take(msg)
        if value is not None:
            msg["value"], msg["done"] = value, True
            msg["infer"] = {name: said for name, said in msg["infer"].items() if name not in ENUMERATED}


def ran(
    program: Callable[..., Any], batch: tuple[Tensor, ...], take: Take, *, enumerated: Plates | None = None
) -> poutine.Trace:
    """The program run once, its sites at the values that they are given.

    Args:
        program: a half of a pair.
        batch: what it is called with.
        take: the values.
        enumerated: its plates, if what it sums out is to have all its values, in dimensions left of them.
    """
    if enumerated is not None and enumerated.summed:
        program = EnumMessenger(first_available_dim=-1 - enumerated.nesting)(program)
    with local_params():
        return poutine.util.prune_subsample_sites(poutine.trace(Taking(take)(program)).get_trace(*batch))


def at_mean(site: Site) -> Tensor:
    """The mean of a site's distribution, or of a discrete one its mode.

    Raises:
        ValueError: it has neither.
    """
    try:
        return central_value(site["fn"])
    except NotImplementedError as error:
        raise ValueError(f"{site['name']}: {error}, as fit.encode(x, samples=...) does") from None


def latent_sites(trace: poutine.Trace) -> Iterator[tuple[str, Site]]:
    """The latent variables of a run, in its order, by name; without what automatic guides draw on their way to them."""
    for name, site in sampled(trace):
        if not (site["is_observed"] or site["infer"].get("was_observed") or site["infer"].get("is_auxiliary")):
            yield name, site


def observed_sites(trace: poutine.Trace, plates: Plates) -> Iterator[tuple[str, Site]]:
    """The sites at which a datum is observed, also those of a run that drew them instead; without ``pyro.factor``."""
    for name, site in sampled(trace):
        observed = site["is_observed"] or site["infer"].get("was_observed")
        if observed and plates.of_data(site) and not isinstance(site["fn"], Unit):
            yield name, site


def as_rows(value: Tensor, site: Site, plates: Plates, *, event_dim: int | None = None, samples: bool = False) -> Tensor:
    """A site's value as rows.

    Args:
        value: ``(*plates, *event)``; with ``samples`` the plate of the samples is the leftmost.
        site: where the value is from.
        plates: of the program.
        event_dim: of the value, by default that of the site's distribution.
        samples: whether it has an axis of samples, which stays the first.

    Returns:
        ``(B, *others, *event)``, or ``(*others, *event)`` of what all data share; ``(S, ...)`` with samples.
    """
    event_dim = site["fn"].event_dim if event_dim is None else event_dim
    least = plates.nesting + samples
    event = value.shape[value.dim() - event_dim :]
    batch: tuple[int, ...] = tuple(value.shape[: value.dim() - event_dim])
    batch = (1,) * (least - len(batch)) + batch
    kept = _kept(batch[samples:], site)
    value = value.reshape((*batch[:samples], *(batch[samples + axis] for axis in kept), *event))
    place = _place(kept, len(batch) - samples, site, plates)
    return value if place is None else value.movedim(samples + place, int(samples))


def as_value(rows: Tensor, site: Site, plates: Plates) -> Tensor:
    """Rows ``(B, *others, *event)`` as the value of a site that is about to get it; the inverse of :func:`as_rows`."""
    fn = site["fn"]
    batch = tuple(fn.batch_shape)[-plates.nesting :] if plates.summed else tuple(fn.batch_shape)
    place = _place(_kept(batch, site), len(batch), site, plates)
    rows = rows if place is None else rows.movedim(0, place)
    return rows.reshape((*batch, *fn.event_shape))


def _kept(batch: tuple[int, ...], site: Site) -> list[int]:
    """The axes of a batch shape along which a site differs or stands in a plate."""
    own = {len(batch) + frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    return [axis for axis, size in enumerate(batch) if size > 1 or axis in own]


def _place(kept: list[int], dims: int, site: Site, plates: Plates) -> int | None:
    """Which of the kept axes is that of the data; ``None`` of what they share."""
    return kept.index(dims + plates.data_dim) if plates.of_data(site) else None


def prediction(fn: Any) -> tuple[Tensor, int, Callable[[Tensor], Tensor]]:
    """What stands for a datum under p(x | z): numbers that may be averaged, their event axes, and the datum made of them.

    The mean; of categories their probabilities, of which the largest tells the datum.
    """
    inner = fn
    while isinstance(inner, Independent | MaskedDistribution):
        inner = inner.base_dist
    if isinstance(inner, Categorical):
        probabilities = inner.probs.expand(*fn.shape(), inner.probs.shape[-1])
        return probabilities, fn.event_dim + 1, lambda averaged: averaged.argmax(-1)
    return point_prediction(fn), fn.event_dim, Tensor.contiguous
