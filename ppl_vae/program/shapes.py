"""Pyro's plate and shape errors in the model's words: which site, the shape that it declares, the shape that it received."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import broadcast_shape
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from ppl_vae.program.wrapped import unwrapped
from ppl_vae.text import as_line

__all__ = ["check_sites", "line_of", "traced"]

Site = dict[str, Any]


def traced(program: Callable[..., Any], role: str, batch: tuple[Tensor, ...], *, size: int | None = None) -> poutine.Trace:
    """The sites of one run of a program.

    Args:
        program: called with the batch.
        role: ``model`` or ``guide``, for messages.
        batch: first x ``(B, *event)``.
        size: N, the number of data that are fitted to, where that is known.

    Raises:
        ValueError: the program fails, or a site's shapes do not fit; the message names the site, and its line in the program.
    """
    tracer = poutine.trace(program)
    size = size if size is not None and len(batch[0]) < size else None  # a batch of all data is no subsample
    try:
        with _Lines() as lines:
            trace = tracer.get_trace(*batch)
    except (NotImplementedError, torch.OutOfMemoryError):
        raise
    except (ValueError, RuntimeError, IndexError) as error:
        check_sites(tracer.trace, role, lines.found, size)  # a wrong shape shows in what is computed from it
        raise _explained(error, tracer.trace, role, batch, size) from error
    check_sites(trace, role, lines.found, size)
    return trace


class _Lines(Messenger):
    """Remembers the line of the user's program at which each site stands."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def _pyro_sample(self, msg: Any) -> None:
        self.found[msg["name"]] = _users_line(traceback.extract_stack(sys._getframe(1)))


def line_of(error: BaseException) -> str:
    """The line of the user's own program in which an error arose, outside the libraries; empty if there is none."""
    return _users_line(traceback.extract_tb(error.__traceback__))


def _users_line(frames: Iterable[traceback.FrameSummary]) -> str:
    libraries = tuple(str(Path(sys.modules[name].__file__ or "").parent) for name in ("torch", "pyro", "ppl_vae"))
    standard = str(Path(os.__file__).parent)
    for frame in reversed(list(frames)):
        own = not frame.filename.startswith((*libraries, "<"))
        if own and ("site-packages" in frame.filename or not frame.filename.startswith(standard)):
            return f"{Path(frame.filename).name}:{frame.lineno} `{frame.line}`: "
    return ""


def check_sites(trace: poutine.Trace, role: str, lines: dict[str, str] | None = None, size: int | None = None) -> None:
    """Raise ``ValueError`` if a site has another shape than its value, or dimensions that no plate is for."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site) and isinstance(site["value"], Tensor):
            line = (lines or {}).get(name, "")
            _check_event(site, role, line)
            _check_truths(site, role, line)
            _check_batch(site, role, line, _batch_shape(site), size)


def _check_event(site: Site, role: str, line: str) -> None:
    event, shape = tuple(site["fn"].event_shape), tuple(site["value"].shape)
    if event != shape[max(0, len(shape) - len(event)) :]:
        source, remedy = ("the data", "the data of one datum") if site["is_observed"] else ("the guide", "both")
        raise ValueError(
            f"{line}site {site['name']!r} of the {role}: declared shape {event} of one datum ({_named(site['fn'])}), received "
            f"{shape} from {source}: give {remedy} the same last dimensions"
        )


def _check_truths(site: Site, role: str, line: str) -> None:
    if site["value"].dtype == torch.bool and isinstance(unwrapped(site["fn"]), Bernoulli):
        raise ValueError(
            f"{line}site {site['name']!r} of the {role}: Bernoulli has no log-probability of booleans: write .float() where "
            "the site takes its value"
        )


def _batch_shape(site: Site) -> tuple[int, ...]:
    """That of the site's log-probabilities."""
    event, shape = len(site["fn"].event_shape), site["value"].shape
    try:
        return tuple(broadcast_shape(site["fn"].batch_shape, shape[: len(shape) - event]))
    except ValueError:
        return tuple(site["fn"].batch_shape)


def _check_batch(site: Site, role: str, line: str, batch_shape: tuple[int, ...], size: int | None) -> None:
    plates = {frame.dim: frame for frame in site["cond_indep_stack"] if frame.vectorized}
    for dim, extent in enumerate(reversed(batch_shape), start=1):
        if extent != 1 and not (-dim in plates and plates[-dim].size in (extent, -1)):
            raise _unfolded(site, role, line, size)


def _explained(error: Exception, trace: poutine.Trace, role: str, batch: tuple[Tensor, ...], size: int | None) -> ValueError:
    """The error of a program, with the site at which it came."""
    site, line = _site_at(error.__traceback__), line_of(error)
    told = str(error).partition("Trace Shapes:")[0]
    if site is not None and "Shape mismatch inside plate" in told:
        return _unfolded(site, role, line, size)
    seen = [site for site in trace.nodes.values() if site["type"] == "sample" and not site_is_subsample(site)]
    place = f"at the site {site['name']!r}" if site else "before its first site"
    if seen and not site:
        place = f"after the site {seen[-1]['name']!r} of shape {tuple(seen[-1]['value'].shape)}"
    remedy = ""
    if "used as indices must be" in told:
        remedy = (
            f"; the first field comes to a program as {batch[0].dtype}: write .long() there, or let another field be the first"
        )
    elif "same dtype" in told or "expected scalar type" in told:
        kinds = ", ".join(str(part.dtype) for part in batch)
        remedy = f"; the data come to a program as {kinds}: let its own tensors be of that type, or convert the data there"
    elif isinstance(error, IndexError) or "out of range" in told or "out of bounds" in told:
        remedy = (
            "; `with pv.data_plate(N, x) as rows` gives the rows of the training data, for parameters of N: x holds those rows "
            "already"
        )
    return ValueError(f"{line}the {role} fails {place}, on a batch of shape {tuple(batch[0].shape)}: {as_line(told)}{remedy}")


def _unfolded(site: Site, role: str, line: str, size: int | None) -> ValueError:
    plates = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    sizes = ", ".join(f"{frame.name!r} of {frame.size}" for frame in plates)
    fn = site["fn"]
    return ValueError(
        f"{line}site {site['name']!r} of the {role}: expected a batch shape that is that of its plates ({sizes or 'none'}), "
        f"got batch shape {tuple(fn.batch_shape)} and event shape {tuple(fn.event_shape)} ({_named(fn)}): "
        f"{_remedy(plates, tuple(fn.batch_shape), size)}"
    )


def _remedy(plates: list[Any], shape: tuple[int, ...], size: int | None) -> str:
    """What to do about a batch shape that is not that of its plates."""
    if size is not None and size in shape and all(frame.size != size for frame in plates):
        return (
            f"a parameter of each of the {size} data goes by the rows of the batch, `with pv.data_plate(N, x) as rows: "
            "parameter[rows]`, or give the method batch_size = N"
        )
    if size is not None and any(frame.full_size == frame.size >= size for frame in plates):
        return "a plate of all data takes the batch as its subsample, pv.data_plate(N, x), or give the method batch_size = N"
    extra = max(0, len(shape) - len(plates)) or (math.prod(shape) > 1 and len(shape)) or 1
    return f"fold the dimensions of one datum into the event with .to_event({extra}), or give one plate for each"


def _site_at(traceback: TracebackType | None) -> Site | None:
    """The site that Pyro was at, in whose frames it is called ``msg``."""
    found = None
    while traceback is not None:
        message = traceback.tb_frame.f_locals.get("msg")
        if isinstance(message, dict) and message.get("type") == "sample" and isinstance(message.get("fn"), Distribution):
            found = message
        traceback = traceback.tb_next
    return found


def _named(distribution: Any) -> str:
    """The name of a distribution, without what wraps it."""
    return type(unwrapped(distribution)).__name__
