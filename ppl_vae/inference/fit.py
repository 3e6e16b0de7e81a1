"""`fit`: a declared model, data and a method in; a fitted object out."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from ppl_vae.data import Data, DataSource, Split, load_data
from ppl_vae.data.fingerprint import fingerprint
from ppl_vae.evaluate import evaluating
from ppl_vae.guides import (
    AmortizedDelta,
    AmortizedGumbel,
    AmortizedLinear,
    AmortizedNormal,
    AmortizedProjectedNormal,
    BayesianGuide,
    ExactPosterior,
    Guide,
)
from ppl_vae.inference.boards import Board
from ppl_vae.inference.collapse import CollapseWatch
from ppl_vae.inference.fitted import ROWS_AT_ONCE, Fit, describe, weights
from ppl_vae.inference.machine import choose_device
from ppl_vae.inference.method import Method, Remark, Row
from ppl_vae.inference.progress import Progress, passing_steps_to, progress_bar
from ppl_vae.inference.svi import SVI, meet
from ppl_vae.inference.track import Track, tracking
from ppl_vae.inference.without_latents import remark_if_far_below, without_latents
from ppl_vae.memory import allocating, free
from ppl_vae.models import Model
from ppl_vae.pair import Pair, seeded
from ppl_vae.reads import reads
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer, Checkpointer
from ppl_vae.storage.declared import fixed
from ppl_vae.text import as_line
from ppl_vae.types import DataSpec

__all__ = ["build", "default_guide", "fit", "place", "refuse_others", "watched"]

# Guides of latent variables that no bijection maps to real vectors, by the prior's support.
WITHOUT_COORDINATES: dict[str, Guide] = {"sphere": AmortizedProjectedNormal(), "one_hot": AmortizedGumbel()}
PARTS = ("model", "guide", "method", "data")
Rows = Data | DataSource | str | np.ndarray | Tensor | tuple | Mapping[str, Any]
"""What :func:`~ppl_vae.load_data` takes or gave."""
EXAMPLES = {"model": "VAE(), or a Pyro program", "guide": "AmortizedNormal(), or a Pyro program", "method": "SVI()"}


def fit(
    model: Model | Callable,
    data: Rows = "digits",
    *,
    guide: Guide | Callable | None = None,
    method: Method | None = None,
    warm_start: Fit | None = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    out: str | Path | Checkpointer | None = None,
    track: Sequence[str] = (),
    boards: Sequence[Board] = (),
) -> Fit:
    """Fit a model to data.

    Args:
        model: a declared model, or a plain Pyro program called with a batch ``x (B, *event)`` and the batch's other fields.
        data: what :func:`~ppl_vae.load_data` takes or gave; for programs of several arguments a tuple of arrays, in their
            order, or a mapping of arrays by the arguments' names.
        guide: a declared guide (by default :func:`default_guide`), or a plain Pyro program if the model is one.
        method: how; ``SVI()`` by default.
        warm_start: an earlier fit of the same model, by any method, whose parameters are the start; the guide's too if it is
            declared alike.
        device: where; ``auto`` takes CUDA or MPS where it works, else the CPU.
        progress: called with each row of the history; by default a progress bar if standard error is a terminal.
        out: a run folder that is written as the fit goes on, so that it survives what ends its process:
            :func:`~ppl_vae.resume_run` goes on from there. With a ``Checkpointer`` it is told how often, and whether it
            may replace another run.
        track: numbers of the validation data that each row of the history gets besides, as ``valid_*``: ``active_units``,
            ``mutual_information``, ``marginal_kl``, ``total_correlation``, ``dimension_wise_kl``, ``kl_per_dimension``,
            ``iwae:50`` with any number of samples, ``probe``.
        boards: show the rows as well, such as :class:`~ppl_vae.TensorBoard`.

    Returns:
        The fitted pair with everything that is known about it.

    Raises:
        ValueError: data outside the model's support or without the labels it is conditioned on, a guide that does not go with
            the model, a warm start from another model, an unknown device, a run folder that is taken, an unknown number to
            track or one that this pair or these data do not have.
        NonFiniteError: training does not stay finite; a ``FloatingPointError`` that says where and why.
        Interrupted: SIGINT or SIGTERM while a run folder is written; a ``KeyboardInterrupt``.

    Example:
        >>> fitted = fit(VAE(latent_dim=2), "digits", method=SVI(epochs=1))
        >>> fitted.decode(torch.zeros(5, 2)).shape
        torch.Size([5, 1, 8, 8])
    """
    method = SVI() if method is None else method
    refuse_others(model, guide, method)
    if not isinstance(warm_start, Fit | None):
        raise ValueError(f"expected an earlier fit for warm_start, got {as_line(repr(warm_start))}: give what fit returned")
    if not isinstance(out, str | Path | Checkpointer | None):
        raise ValueError(f"expected a run folder for out, got {as_line(repr(out))}: give its path or a Checkpointer")
    keeper = out if isinstance(out, Checkpointer) else NULL_CHECKPOINTER if out is None else Checkpointer(out)
    return watched(
        model,
        data,
        guide=guide,
        method=method,
        warm_start=warm_start,
        device=device,
        progress=progress,
        keeper=keeper,
        track=track,
        boards=boards,
    )


def watched(
    model: Model | Callable,
    data: Rows,
    *,
    guide: Guide | Callable | None,
    method: Method,
    device: str | torch.device,
    progress: Progress | None,
    warm_start: Fit | None = None,
    watch: Callable[[Pair, Row], Any] = lambda pair, row: None,
    keeper: AnyCheckpointer = NULL_CHECKPOINTER,
    track: Sequence[str] = (),
    boards: Sequence[Board] = (),
) -> Fit:
    """:func:`fit` with ``watch`` looking at the pair as it is after each row of the history; it must draw no random numbers."""
    _refuse_watchers(progress, track, boards)
    if keeper.folder is not None and not (isinstance(model, Model) and isinstance(guide, Guide | None)):
        raise ValueError("plain Pyro programs have no declaration to save: fit them without a run folder (out)")
    if keeper.folder is not None:
        method.to_dict()
    data = place(model, data, device)
    guide = guide or default_guide(model, method)
    with keeper, seeded(method.seed, data.train.device):
        pair = build(model, guide, data.spec).to(data.train.device)
        fit = Fit(
            pair=pair,
            model=model,
            guide=guide,
            method=method,
            data=data.source,
            spec=data.spec,
            transform=data.train.transform,
            history=[],
        )
        _check_data(model, pair, data)
        if keeper.folder is not None:
            facts = {"data": fingerprint(data.train), "device": data.train.device.type}
            keeper.describe(describe(fit, data), facts, fixed({name: getattr(fit, name) for name in PARTS}))
        if warm_start is not None:
            if pair.plain:
                meet(pair, data, method.batch_size if isinstance(method, SVI) else len(data.train))
            _take_over(pair, warm_start, guide, data.spec)
        if hasattr(pair.model, "prepare") and "model" not in pair.warm:
            pair.model.prepare(data.train, torch.Generator(data.train.device).manual_seed(method.seed))
        looks = (tracking(track, method, data, pair), watch)
        with contextlib.ExitStack() as stack:
            after = [stack.enter_context(board) for board in boards] + [CollapseWatch(model, pair, method, data)]
            fit.history.extend(_run(method, pair, data, progress, looks, keeper, after))
        if hasattr(pair.model, "fit_codes"):
            with evaluating(pair):
                pair.model.fit_codes(pair.guide.posterior(x).mean for x in data.train.batches(ROWS_AT_ONCE))
        keeper.finish(weights(fit), fit.history)
        fit = dataclasses.replace(fit, without_latents=without_latents(model, pair, data))
    remark_if_far_below(model, method, fit.without_latents, data, fit.history)
    return fit


def place(model: Model | Callable, data: Rows, device: str | torch.device) -> Data:
    """The data as the model takes them, where the fit is to be."""
    data = load_data(data)
    data = model.resolve(data) if isinstance(model, Model) else data.as_given()
    data = data.to(choose_device(device))
    if len(data.train) == 0:
        raise ValueError("expected at least one training datum, got none")
    return data


def refuse_others(model: Any, guide: Any, method: Any) -> None:
    """Raise ``ValueError`` for a class where its object is meant, a name where a declaration is, and the like."""
    for what, value, base, plain in (
        ("model", model, Model, callable(model)),
        ("guide", guide, Guide, callable(guide) or guide is None),
        ("method", method, Method, False),
    ):
        if isinstance(value, type):
            raise ValueError(f"expected a declared {what}, got the class {value.__name__}: write {value.__name__}()")
        if not isinstance(value, base) and not plain:
            raise ValueError(f"expected a declared {what}, got {value!r}: give an object such as {EXAMPLES[what]}")


def _refuse_watchers(progress: Any, track: Any, boards: Any) -> None:
    """Raise ``ValueError`` for what cannot be told of the rows, or names nothing to add to them."""
    if progress is not None and not callable(progress):
        raise ValueError(f"expected a function of a row for progress, got {as_line(repr(progress))}")
    if not isinstance(track, (list, tuple)) or not all(isinstance(name, str) for name in track):
        raise ValueError(f"expected a list of names to track, such as ['active_units'], got {as_line(repr(track))}")
    if not isinstance(boards, (list, tuple)) or not all(callable(board) and hasattr(board, "__exit__") for board in boards):
        raise ValueError(f"expected a list of boards, such as [TensorBoard(folder)], got {as_line(repr(boards))}")


def _check_data(model: Model | Callable, pair: Pair, data: Data) -> None:
    """Raise ``ValueError`` if rows to fit to or to stop by lack labels that are needed, or lie outside the model's support."""
    labelled = getattr(pair.model, "labelled", False)
    for split in (data.train, data.valid):
        for name in pair.reads[1:] if len(split) else ():
            split.column(name)
        if isinstance(model, Model) and not split.transform.binarize:  # whose draws are zeros and ones
            for raw in split.chunks():
                model.check_values(split.transform(raw, torch.Generator(split.device).manual_seed(0)))
    if isinstance(model, Model) and not data.train.transform.noisy and (spare := model.spare(lambda: _highest(data.train))):
        warnings.warn(spare, Remark, stacklevel=4)
    if labelled and (alone := _untaught(data)):
        warnings.warn(
            f"the model learns nothing of classes without a row of training data, and scores them all the same: {alone}",
            Remark,
            stacklevel=4,
        )


def _highest(split: Split) -> Tensor:
    """The highest value of each element ``(*event)``, as the model sees it."""
    return torch.stack([split.transform(raw).nan_to_num(nan=-math.inf).amax(0) for raw in split.chunks()]).amax(0)


def _untaught(data: Data) -> str:
    """Names of the classes that stand in held-out rows alone."""
    taught = set(data.train.labels.unique().tolist())
    held_out = {place for split in (data.valid, data.test) if split.y is not None for place in split.y.unique().tolist()}
    names = data.spec.classes
    return ", ".join(names[place] for place in sorted(held_out - taught) if 0 <= place < len(names))


def _run(
    method: Method,
    pair: Pair,
    data: Data,
    progress: Progress | None,
    looks: tuple[Track, Callable[[Pair, Row], Any]],
    keeper: AnyCheckpointer,
    after: Sequence[Callable[[Row], Any]],
) -> list[Row]:
    """The method's history, each row added to, watched and then reported; Pyro checks no more than the method asks for."""
    add, watch = looks
    done = len(keeper.restored.history) if keeper.restored else 0
    with pyro.validation_enabled(False), warnings.catch_warnings(), progress_bar(method, progress, done) as report:
        warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)  # what is not finite shows in the numbers
        warnings.filterwarnings("ignore", ".* was not registered in the param store", UserWarning)  # which a user froze

        def tell(row: Row) -> None:
            row.update(add(pair))
            watch(pair, row)
            report(row)
            keeper.row(row)
            for see in after:
                see(row)

        told = passing_steps_to(report, tell)
        if method.length is None:
            return method.run(pair, data, told)
        with keeper.listening():
            return method.run(pair, data, told, keeper)  # type: ignore[call-arg]


def build(model: Model | Callable, guide: Guide | Callable, spec: DataSpec) -> Pair:
    """A declared model and guide, or two plain Pyro programs, as a pair.

    Raises:
        ValueError: data outside the model's support, a declared half with a plain one, or a guide that leaves out parameters.
    """
    what = f"{as_line(model)} for data of shape {spec.event_shape}"
    try:
        with allocating(free(), what):
            return _built(model, guide, spec)
    except (TypeError, RuntimeError) as error:
        if "Overflow when unpacking" not in str(error):
            raise
        raise ValueError(f"{what}: expected sizes that memory holds, got one beyond 64 bits: give less") from None


def _built(model: Model | Callable, guide: Guide | Callable, spec: DataSpec) -> Pair:
    if isinstance(model, Model) and isinstance(guide, Guide):
        if spec.fields[1:]:
            raise ValueError(
                f"expected data of one field for a declared model, got {len(spec.fields)}: give x alone, and class labels as "
                "load_data(x, y=labels)"
            )
        model.check(spec)
        if model.parameter_priors and not isinstance(guide, BayesianGuide):
            raise ValueError(
                f"the parameters {', '.join(model.parameter_priors)} of this model carry priors, which {guide!r} leaves out: "
                f"use BayesianGuide(latents={guide!r}) and fit by SVI or NUTS; EM and closed forms fit the model without priors"
            )
        program = model.build(spec)
        proposal = guide.build(program, spec)
        prior: Any = getattr(program, "prior", None)
        if hasattr(prior, "attach"):  # a prior made of posteriors
            prior.attach(proposal.posterior, spec)
        # A sampled KL makes the ELBO of the exact posterior log p(x) for every sample; an analytic one does not.
        mean_field = getattr(proposal, "mean_field", not getattr(proposal, "exact", False))
        return Pair(program, proposal, mean_field=mean_field, size=spec.size, plain=False)
    if isinstance(model, Model) or isinstance(guide, Guide):
        raise ValueError("a declared model goes with a declared guide, and a plain Pyro model with a plain guide function")
    return Pair(model, guide, mean_field=False, size=spec.size, reads=reads(model, guide, spec))


def _take_over(pair: Pair, start: Fit, guide: Guide | Callable, spec: DataSpec) -> None:
    """Copy the parameters of an earlier fit, the guide's only if it is declared alike."""
    for what, earlier, now in (("columns", start.spec.columns, spec.columns), ("classes", start.spec.classes, spec.classes)):
        if earlier and now and earlier != now and (what == "columns" or getattr(pair.model, "labelled", False)):
            told = f"{', '.join(earlier)}, got {', '.join(now)}"
            raise ValueError(f"a warm start needs the {what} of the earlier fit in their order: expected {told}")
    try:
        pair.model.load_state_dict(start.pair.model.state_dict())
        if guide == start.guide:
            pair.guide.load_state_dict(start.pair.guide.state_dict())
            pair.warm.add("guide")
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"a warm start needs an earlier fit of the same model to data of the same shape: {reason}") from None
    pair.warm.add("model")


def default_guide(model: Model | Callable, method: Method) -> Guide:
    """The guide that a method gives a model if none is declared: as rich as the posterior is known to be, no richer."""
    family = getattr(model, "posterior_family", "unknown")
    if getattr(model, "parameter_priors", ()) and method.posterior_guide == "any":
        return BayesianGuide()
    if method.posterior_guide == "exact" or family in ("discrete", "projection"):
        return ExactPosterior()
    if family == "point":
        return AmortizedDelta()
    if family == "linear":
        return AmortizedLinear()
    support = getattr(getattr(model, "prior", None), "support", "real")
    return WITHOUT_COORDINATES.get(support, AmortizedNormal())
