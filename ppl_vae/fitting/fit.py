"""`fit`: a declared model, data and a method in; a fitted object out."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from ppl_vae.data import Data, DataSource, load_data
from ppl_vae.data.fingerprint import fingerprint
from ppl_vae.evaluate.observed import ROWS_AT_ONCE
from ppl_vae.fitting.build import build, default_guide, take_over
from ppl_vae.fitting.callbacks.collapse import CollapseWatch
from ppl_vae.fitting.callbacks.loggers import Board
from ppl_vae.fitting.callbacks.metrics import Track, tracking
from ppl_vae.fitting.callbacks.progress import Progress, passing_steps_to, progress_bar
from ppl_vae.fitting.checks import check_callbacks, check_data, check_declared
from ppl_vae.fitting.described import describe, weights
from ppl_vae.fitting.fitted import Fit
from ppl_vae.fitting.without_latents import remark_if_far_below, without_latents
from ppl_vae.guides import (
    Guide,
)
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.svi import SVI, meet
from ppl_vae.models import Model
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.machine import choose_device
from ppl_vae.program.pair import Pair
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer, Checkpointer
from ppl_vae.storage.declared import fixed
from ppl_vae.text import as_line
from ppl_vae.types import Row

__all__ = ["fit", "place", "watched"]

PARTS = ("model", "guide", "method", "data")
Rows = Data | DataSource | str | np.ndarray | Tensor | tuple | Mapping[str, Any]
"""What :func:`~ppl_vae.load_data` takes or gave."""


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
    check_declared(model, guide, method)
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
    check_callbacks(progress, track, boards)
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
        check_data(model, pair, data)
        if keeper.folder is not None:
            facts = {"data": fingerprint(data.train), "device": data.train.device.type}
            keeper.describe(describe(fit, data), facts, fixed({name: getattr(fit, name) for name in PARTS}))
        if warm_start is not None:
            if pair.plain:
                meet(pair, data, method.batch_size if isinstance(method, SVI) else len(data.train))
            take_over(pair, warm_start, guide, data.spec)
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
