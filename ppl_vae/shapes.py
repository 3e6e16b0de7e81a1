"""Pyro's plate and shape errors in the model's words: which site, the shape that it declares, the shape that it received."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_vae.text import as_line

__all__ = ["check_sites", "traced"]

Site = dict[str, Any]


def traced(program: Callable, role: str, batch: tuple[Tensor, ...]) -> poutine.Trace:
    """The sites of one run of a program.

    Args:
        program: called with the batch.
        role: ``model`` or ``guide``, for messages.
        batch: first x ``(B, *event)``.

    Raises:
        ValueError: the program fails, or a site's shapes do not fit; the message names the site.
    """
    tracer = poutine.trace(program)
    try:
        trace = tracer.get_trace(*batch)
    except (NotImplementedError, torch.OutOfMemoryError):
        raise
    except (ValueError, RuntimeError, IndexError) as error:
        check_sites(tracer.trace, role)  # a wrong shape shows in what is computed from it
        raise _explained(error, tracer.trace, role, batch) from error
    check_sites(trace, role)
    return trace


def check_sites(trace: poutine.Trace, role: str) -> None:
    """Raise ``ValueError`` if a site has another shape than its value, or dimensions that no plate is for."""
    for site in trace.nodes.values():
        if site["type"] == "sample" and not site_is_subsample(site) and isinstance(site["value"], Tensor):
            _check_event(site, role)
            _check_batch(site, role, _batch_shape(site))


def _check_event(site: Site, role: str) -> None:
    event, shape = tuple(site["fn"].event_shape), tuple(site["value"].shape)
    if event != shape[max(0, len(shape) - len(event)) :]:
        source, remedy = ("the data", "the data of one datum") if site["is_observed"] else ("the guide", "both")
        raise ValueError(
            f"site {site['name']!r} of the {role}: declared shape {event} of one datum ({_named(site['fn'])}), received "
            f"{shape} from {source}: give {remedy} the same last dimensions"
        )


def _batch_shape(site: Site) -> tuple[int, ...]:
    """That of the site's log-probabilities."""
    event, shape = len(site["fn"].event_shape), site["value"].shape
    try:
        return tuple(torch.broadcast_shapes(site["fn"].batch_shape, shape[: len(shape) - event]))
    except RuntimeError:
        return tuple(site["fn"].batch_shape)


def _check_batch(site: Site, role: str, batch_shape: tuple[int, ...]) -> None:
    plates = {frame.dim: frame for frame in site["cond_indep_stack"] if frame.vectorized}
    for dim, size in enumerate(reversed(batch_shape), start=1):
        if size != 1 and not (-dim in plates and plates[-dim].size in (size, -1)):
            raise _unfolded(site, role)


def _explained(error: Exception, trace: poutine.Trace, role: str, batch: tuple[Tensor, ...]) -> ValueError:
    """The error of a program, with the site at which it came."""
    site = _site_at(error.__traceback__)
    told = str(error).partition("Trace Shapes:")[0]
    if site is not None and "Shape mismatch inside plate" in told:
        return _unfolded(site, role)
    seen = [site for site in trace.nodes.values() if site["type"] == "sample" and not site_is_subsample(site)]
    place = f"at the site {site['name']!r}" if site else "before its first site"
    if seen and not site:
        place = f"after the site {seen[-1]['name']!r} of shape {tuple(seen[-1]['value'].shape)}"
    return ValueError(f"the {role} fails {place}, on a batch of shape {tuple(batch[0].shape)}: {as_line(told)}")


def _unfolded(site: Site, role: str) -> ValueError:
    plates = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    sizes = ", ".join(f"{frame.name!r} of {frame.size}" for frame in plates)
    fn = site["fn"]
    extra = max(0, len(fn.batch_shape) - len(plates)) or (math.prod(fn.batch_shape) > 1 and len(fn.batch_shape)) or 1
    return ValueError(
        f"site {site['name']!r} of the {role}: expected a batch shape that is that of its plates ({sizes or 'none'}), got "
        f"batch shape {tuple(fn.batch_shape)} and event shape {tuple(fn.event_shape)} ({_named(fn)}): fold the dimensions of "
        f"one datum into the event with .to_event({extra}), or give one plate for each"
    )


def _site_at(traceback: TracebackType | None) -> Site | None:
    """The site that Pyro was at, in whose frames it is called ``msg``."""
    found = None
    while traceback is not None:
        message = traceback.tb_frame.f_locals.get("msg")
        if isinstance(message, dict) and message.get("type") == "sample" and hasattr(message.get("fn"), "event_shape"):
            found = message
        traceback = traceback.tb_next
    return found


def _named(distribution: Any) -> str:
    """The name of a distribution, without what wraps it."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return type(distribution).__name__
