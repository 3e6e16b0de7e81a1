"""`fit`: a declared model, data and a method in; a fitted object out."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pyro
import torch
from torch import Tensor

from ppl_vae.data import Data, DataSource, load_data
from ppl_vae.data.fingerprint import fingerprints, names, told
from ppl_vae.data.matrices import Batches
from ppl_vae.evaluate.observed import ROWS_AT_ONCE
from ppl_vae.fitting.advice import advise
from ppl_vae.fitting.build import build, default_guide, take_over
from ppl_vae.fitting.callbacks.arguments import all_callbacks
from ppl_vae.fitting.callbacks.base import Callback, CallbackList, FitContext
from ppl_vae.fitting.callbacks.loggers import Board
from ppl_vae.fitting.callbacks.progress import Progress
from ppl_vae.fitting.checks import check_data, check_declared
from ppl_vae.fitting.defaults import default_method
from ppl_vae.fitting.described import describe, weights
from ppl_vae.fitting.experiment import Experiment
from ppl_vae.fitting.fitted import Fit
from ppl_vae.fitting.priors import with_conjugate_priors
from ppl_vae.fitting.together import SharedCallbacks, check_alike, quiet_others, shared
from ppl_vae.fitting.without_latents import without_latents
from ppl_vae.guides import Guide
from ppl_vae.inference.methods.base import Method, run_method
from ppl_vae.inference.methods.svi import SVI
from ppl_vae.inference.training.start import meet
from ppl_vae.models import Model
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.hooks import Finish, finish
from ppl_vae.program.machine import choose_device
from ppl_vae.program.processes import current
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer, Checkpointer
from ppl_vae.text import as_line
from ppl_vae.types import Record

__all__ = ["DIGITS", "fit", "fit_with_callbacks", "place", "settled", "without_data"]

M = TypeVar("M", bound=Model | Callable[..., Any])

DataLike = Data | DataSource | str | np.ndarray | Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What :func:`~ppl_vae.load_data` takes or gave."""

DIGITS = DataSource()
NAMES = "list of columns, categories and classes"
"""The data where none are given; declared data that equal it are another object."""


def fit(
    model: Model | Callable[..., Any],
    data: DataLike | None = DIGITS,
    *,
    guide: Guide | Callable[..., Any] | None = None,
    method: Method | None = None,
    warm_start: Fit | None = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    out: str | Path | Checkpointer | None = None,
    track: Sequence[str] = (),
    loggers: Sequence[Callback] = (),
    callbacks: Sequence[Callback] = (),
    boards: Sequence[Callback | Board] | None = None,
) -> Fit:
    """Fit a model to data.

    In a process group of torch.distributed every process calls this alike, with the same data, and gets the same fit; methods
    that one process runs alone say so. Callbacks, loggers, progress and the run folder are those of the first process.

    Args:
        model: a declared model, or a plain Pyro program called with a batch ``x (B, *event)`` and the batch's other fields.
        data: what :func:`~ppl_vae.load_data` takes or gave, by default the digits, or none for models that have no data, such
            as an :class:`~ppl_vae.Ising` alone; for programs of several arguments a tuple of arrays, in their
            order, or a mapping of arrays by the arguments' names.
        guide: a declared guide (by default :func:`default_guide`), or a plain Pyro program if the model is one.
        method: how; by default :func:`~ppl_vae.default_method`: by formula or EM where the model offers it, else SVI with
            epochs and batches by the number of rows.
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
        loggers: where the rows are shown as well, such as :class:`~ppl_vae.TensorBoard`.
        callbacks: what hears of the fit besides, and may add to its rows; see :class:`~ppl_vae.Callback`.
        boards: what ``loggers`` were called, for one more release.

    Returns:
        The fitted pair with everything that is known about it.

    Raises:
        ValueError: data outside the model's support or without the labels it is conditioned on, a guide that does not go with
            the model, a warm start from another model, an unknown device, a run folder that is taken, an unknown number to
            track or one that this pair or these data do not have.
        NonFiniteError: training does not stay finite; a ``FloatingPointError`` that says where and why.
        Interrupted: SIGINT or SIGTERM while a run folder is written; a ``KeyboardInterrupt``.

    Examples:
        >>> fitted = fit(VAE(latent_dim=2), "digits", method=SVI(epochs=1))
        >>> fitted.decode(torch.zeros(5, 2)).shape
        torch.Size([5, 1, 8, 8])
    """
    check_declared(model, guide, SVI() if method is None else method)
    if not isinstance(warm_start, Fit | None):
        raise ValueError(f"expected an earlier fit for warm_start, got {as_line(repr(warm_start))}: give what fit returned")
    if not isinstance(out, str | Path | Checkpointer | None):
        raise ValueError(f"expected a run folder for out, got {as_line(repr(out))}: give its path or a Checkpointer")
    data = without_data(model, data)
    checkpointer = out if isinstance(out, Checkpointer) else NULL_CHECKPOINTER if out is None else Checkpointer(out)
    if method is None:
        data = place(model, data, device)
        method = default_method(settled(model, data), guide, data)
    return fit_with_callbacks(
        model,
        data,
        guide=guide,
        method=method,
        device=device,
        warm_start=warm_start,
        checkpointer=checkpointer,
        callbacks=all_callbacks(
            progress=progress,
            track=track,
            callbacks=callbacks,
            loggers=loggers,
            boards=boards,
            checkpointer=checkpointer,
        ),
    )


def fit_with_callbacks(
    model: Model | Callable[..., Any],
    data: DataLike,
    *,
    guide: Guide | Callable[..., Any] | None,
    method: Method,
    device: str | torch.device,
    callbacks: CallbackList,
    warm_start: Fit | None = None,
    checkpointer: AnyCheckpointer = NULL_CHECKPOINTER,
) -> Fit:
    """:func:`fit` with all that hears of it in one list, and what keeps it, which is asked after every step."""
    _check_kept(model, guide, method, checkpointer)
    processes = current()
    data = place(model, data, device)
    model = settled(model, data)
    if method.posterior_guide == "factors":
        model = with_conjugate_priors(model, data)
    guide = guide or default_guide(model, method)
    check_alike(processes, model, guide, method, data)
    heard, checkpointer = SharedCallbacks(callbacks, processes), shared(checkpointer, processes)
    with quiet_others(processes), checkpointer, seeded(method.seed, data.train.device):
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
            held_out=data.test if len(data.test) else data.valid,
        )
        check_data(model, pair, data)
        _describe(fit, data, checkpointer)
        _take_over(fit, data, warm_start)
        fit.history.extend(_run(fit, data, heard, checkpointer))
        with evaluating(pair):
            rows = Batches(data.train, ROWS_AT_ONCE)
            finish(Finish(model=pair.model, guide=pair.guide, batches=rows, lengths=data.train.sizes))
        checkpointer.finish(weights(fit), fit.history)
        fit = dataclasses.replace(fit, without_latents=without_latents(model, pair, data))
    with quiet_others(processes):
        advise(model, method, fit.without_latents, data, fit.history)
    return fit


def place(model: Model | Callable[..., Any], data: DataLike, device: str | torch.device) -> Data:
    """The data as the model takes them, where the fit is to be."""
    data = load_data(data)
    model = settled(model, data)
    data = model.resolve(data) if isinstance(model, Model) else data.as_given()
    data = data.to(choose_device(device))
    if len(data.train) == 0:
        raise ValueError("expected at least one training datum, got none")
    return data


def without_data(model: Model | Callable[..., Any], data: DataLike | None) -> Any:
    """The data, or of a model that has none, where none are given, the row that stands for them."""
    none = data is None or data is DIGITS
    return model.no_data() if none and isinstance(model, Model) and model.data_free else data


def settled(model: M, data: Data) -> M:
    """The model with what it leaves to the data declared, such as ``likelihood: auto``; plain programs leave nothing."""
    return cast(M, model.settled(data)) if isinstance(model, Model) else model


def _check_kept(model: Any, guide: Any, method: Method, checkpointer: AnyCheckpointer) -> None:
    """Raise ``ValueError`` if a fit that is to be kept has no declaration that could be written."""
    if checkpointer.folder is None:
        return
    if not (isinstance(model, Model) and isinstance(guide, Guide | None)):
        raise ValueError("plain Pyro programs have no declaration to save: fit them without a run folder (out)")
    method.to_dict()


def _describe(fit: Fit, data: Data, checkpointer: AnyCheckpointer) -> None:
    """Tell what keeps the fit, if it is kept, what it is."""
    if checkpointer.folder is None or not (isinstance(fit.model, Model) and isinstance(fit.guide, Guide)):
        return
    experiment = Experiment(model=fit.model, guide=fit.guide, method=fit.method, data=fit.data)
    prints, restored = fingerprints(data.parts), checkpointer.restored
    kept = restored.metadata.get("data") if restored else None
    facts = {"data": told(prints, kept, data.train), "device": data.train.device.type}
    if restored is None or NAMES in restored.metadata:  # a run of old has none
        facts[NAMES] = names(data.spec)
    checkpointer.describe(describe(fit, prints), facts, experiment.fixed, experiment.defaults)


def _take_over(fit: Fit, data: Data, warm_start: Fit | None) -> None:
    """Start from an earlier fit if there is one."""
    pair, rows = fit.pair, data.train
    if warm_start is not None:
        if pair.plain:
            meet(pair, data, fit.method.first_batch or len(rows))
        take_over(pair, warm_start, fit.guide, data.spec)


def _run(fit: Fit, data: Data, callbacks: SharedCallbacks, checkpointer: AnyCheckpointer) -> list[Record]:
    """The method's history, each row passed to the callbacks; Pyro checks no more than the method asks for."""
    done = len(checkpointer.restored.history) if checkpointer.restored else 0
    context = FitContext(pair=fit.pair, model=fit.model, guide=fit.guide, method=fit.method, data=data, done=done)
    with callbacks, pyro.validation_enabled(False), warnings.catch_warnings():
        callbacks.begin(context)
        warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)  # what is not finite shows in the numbers
        warnings.filterwarnings("ignore", ".* was not registered in the param store", UserWarning)  # which a user froze
        # What keeps no snapshot ends at once when it is asked to.
        with checkpointer.listening() if fit.method.length is not None else contextlib.nullcontext():
            return run_method(fit.method, fit.pair, data, callbacks.report, checkpointer)
