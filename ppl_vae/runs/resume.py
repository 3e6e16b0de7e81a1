"""Going on with a fit where its run folder left it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from ppl_vae.data import Data, DataSource
from ppl_vae.fitting import Fit
from ppl_vae.fitting.callbacks.arguments import all_callbacks
from ppl_vae.fitting.callbacks.base import Callback
from ppl_vae.fitting.callbacks.loggers import Board
from ppl_vae.fitting.callbacks.progress import Progress
from ppl_vae.fitting.experiment import Experiment
from ppl_vae.fitting.fit import fit_with_callbacks, place
from ppl_vae.inference import Method
from ppl_vae.runs.saved import SavedRun
from ppl_vae.storage import Checkpointer
from ppl_vae.storage.declared import differences

__all__ = ["check_unchanged", "resume_fit", "resume_run"]


def resume_run(
    path: str | Path,
    *,
    method: Method | None = None,
    data: Data | DataSource | str | None = None,
    every: float = 60.0,
    trust: Iterable[str] = (),
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    track: Sequence[str] = (),
    loggers: Sequence[Callback] = (),
    callbacks: Sequence[Callback] = (),
    boards: Sequence[Callback | Board] | None = None,
) -> Fit:
    """Go on with a fit from the last state that its run folder has, to the same bits as if it had never been stopped.

    A run that is finished goes on too if ``method`` says that it is to be longer; its learning rate is then that of the longer
    schedule from here on.

    Args:
        path: the folder that ``fit(..., out=path)`` or ``ppl-vae fit --out`` began.
        method: the same method, or a longer one (more ``epochs`` or ``max_iterations``; of stages those of the last one).
        data: the same data; needed where they were given in memory.
        every: seconds between two states that are kept.
        trust: modules, besides ppl_vae, whose classes the declaration may name.
        device: where; of the same kind as before.
        progress: called with each new row of the history.
        track: numbers that each new row gets besides, as for :func:`~ppl_vae.fit`.
        loggers: where the new rows are shown as well.
        callbacks: what hears of the new rows besides.
        boards: what ``loggers`` were called, for one more release.

    Raises:
        ValueError: no run there, one that another process writes or a newer ppl_vae wrote, a method that cannot be resumed, a
            declaration that is not the same, other data.
    """
    return resume_fit(
        SavedRun.open(path, trust=trust),
        method=method,
        data=data,
        every=every,
        device=device,
        progress=progress,
        track=track,
        loggers=loggers,
        callbacks=callbacks,
        boards=boards,
    )


def resume_fit(
    saved: SavedRun,
    *,
    method: Method | None = None,
    data: Data | DataSource | str | None = None,
    every: float = 60.0,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    track: Sequence[str] = (),
    loggers: Sequence[Callback] = (),
    callbacks: Sequence[Callback] = (),
    boards: Sequence[Callback | Board] | None = None,
) -> Fit:
    """Go on with the fit of an opened run; see :func:`resume_run`."""
    before = saved.experiment
    placed = place(before.model, before.data if data is None else data, device)
    experiment = dataclasses.replace(before, method=method or before.method, data=placed.source)
    check_unchanged(saved, experiment)
    checkpointer = Checkpointer(saved.folder.path, every=every, resume=True)
    return fit_with_callbacks(
        experiment.model,
        placed,
        guide=experiment.guide,
        method=experiment.method,
        device=device,
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


def check_unchanged(saved: SavedRun, experiment: Experiment) -> None:
    """Raise ``ValueError`` if a run cannot go on as this experiment says; the message shows what differs."""
    path, before = saved.folder.path, saved.experiment
    kind, length = type(before.method).__name__, before.method.length
    if length is None:
        raise ValueError(f"{path}: {kind} keeps no state to go on from: fit again with --overwrite, or to another folder")
    if differ := differences(before.fixed, experiment.fixed):
        raise ValueError(f"{path} goes on only as it was declared ({differ}): leave that away, or fit to another folder")
    taken, asked = before.method.taken, experiment.method.taken
    if taken is not None and asked is not None and asked < taken:
        told = f"{kind}'s last of its {length}, of {taken} epochs" if length == "methods" else f"{length} = {taken}"
        raise ValueError(f"{path} was declared with {told}, got {asked}: resume it with at least as many")
