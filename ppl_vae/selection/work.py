"""The fit of one candidate, to all training rows or to those outside of a fold, and what it comes to."""

from __future__ import annotations

import dataclasses
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor

from ppl_vae.data import Data, Split
from ppl_vae.data.folds import folds
from ppl_vae.evaluate.rows import mean, standard_error
from ppl_vae.evaluate.scores import row_scores
from ppl_vae.fitting.callbacks.progress import quiet
from ppl_vae.fitting.described import weights
from ppl_vae.fitting.fit import fit, place
from ppl_vae.fitting.fitted import Fit
from ppl_vae.selection.candidates import Candidate
from ppl_vae.storage import Checkpointer, RunFolder
from ppl_vae.text import as_line
from ppl_vae.types import FitWarning, Record

__all__ = ["Outcome", "Plan", "Task", "perform"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One fit.

    Attributes:
        place: of the candidate.
        fold: whose rows are held out; none where all training rows are fitted to.
        smaller: the place of the candidate whose fit it starts from, if it does.
        folder: the run folder that is written, if one is.
    """

    place: int
    fold: int | None = None
    smaller: int | None = None
    folder: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What all tasks share.

    Attributes:
        candidates: the experiments.
        data: as loaded, on the CPU.
        by: the criterion.
        folds: how many, of cross-validation.
        samples: of a bound that stands in for log p(x).
        device: where fits are made.
    """

    candidates: list[Candidate]
    data: Data
    by: str
    folds: int
    samples: int
    device: str

    def data_of(self, task: Task) -> Data:
        """What a task fits to."""
        if task.fold is None:
            return self.data
        return next(part for fold, part in enumerate(folds(self.data, self.folds)) if fold == task.fold)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a task came to.

    Attributes:
        numbers: ``train`` and ``held_out``, each with the mean of a score in nats per datum, its standard error ``*_se``, and
            the number of rows ``*_n``, of weighted ones the sum of their weights; ``*_squares`` and ``*_skew``, the sums of
            w^2 and of w^2 times what a row's score is above the mean; ``parameters`` that the rows chose, ``iterations``,
            ``seconds``.
        remarks: what the fit remarked on.
        error: why there are no numbers.
        state: the fitted tensors, unless they lie in a run folder.
        history: of the fit.
        without_latents: the number that it has to beat.
    """

    numbers: dict[str, float]
    remarks: tuple[str, ...] = ()
    error: str = ""
    state: dict[str, Tensor] | None = None
    history: tuple[Record, ...] = ()
    without_latents: float | None = None


def perform(task: Task, plan: Plan, start: Fit | None = None) -> Outcome:
    """Fit a candidate, from a start if there is one, and score it.

    What the fit remarks on is told afterwards, and what it fails of is part of the outcome.
    """
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FitWarning)
        try:
            data = place(plan.candidates[task.place].model, plan.data_of(task), plan.device)
            fitted = _fitted(task, plan.candidates[task.place], data, start)
            numbers = _numbers(task, fitted, data, plan)
        except (ValueError, FloatingPointError) as error:
            return Outcome(numbers={"seconds": time.perf_counter() - began}, error=as_line(error, most=600))
    kept = task.folder is None and task.fold is None
    return Outcome(
        numbers=numbers
        | {"parameters": fitted.pair.model_facts.free_parameters, "iterations": len(fitted.history)}
        | {"seconds": time.perf_counter() - began},
        remarks=tuple(dict.fromkeys(str(each.message) for each in caught if issubclass(each.category, FitWarning))),
        state={name: value.detach().cpu() for name, value in weights(fitted).items()} if kept else None,
        history=tuple(fitted.history) if kept else (),
        without_latents=fitted.without_latents,
    )


def _fitted(task: Task, candidate: Candidate, data: Data, start: Fit | None) -> Fit:
    return fit(
        candidate.model,
        data,
        guide=candidate.guide,
        method=candidate.method,
        device=data.train.device,
        warm_start=start,
        progress=quiet,
        out=None if task.folder is None else _checkpointer(task.folder),
    )


def _checkpointer(folder: Path) -> Checkpointer:
    """What keeps a fit, which goes on from the state that was kept before it was broken off, or ended unheard."""
    begun = (folder / RunFolder.SNAPSHOT).exists()
    return Checkpointer(folder, resume=begun, overwrite=not begun)


def _numbers(task: Task, fitted: Fit, data: Data, plan: Plan) -> dict[str, float]:
    """The scores of the training rows, where log p(x) is not known what the history ends with, and of those held out."""
    if fitted.pair.can.marginal is not None:
        numbers = _scored("train", fitted, data.train, plan)
    else:
        numbers = {"train": fitted.history[-1][fitted.score.name], "train_n": data.train.total}
    held_out = data.test if task.fold is not None else data.valid if plan.by == "heldout" else None
    return numbers if held_out is None else numbers | _scored("held_out", fitted, held_out, plan)


def _scored(name: str, fitted: Fit, rows: Split, plan: Plan) -> dict[str, float]:
    """Log p(x), or the tightest bound on it: the mean over the rows, its standard error, and how many there are."""
    found = row_scores(fitted.pair, rows, samples=plan.samples).log_prob
    if not bool(found.isfinite().all()):
        raise FloatingPointError(f"the score of {int((~found.isfinite()).sum())} of {len(found)} rows is not finite")
    numbers = {
        name: mean(found, rows.weights),
        f"{name}_se": standard_error(found, rows.weights),
        f"{name}_n": rows.total,
    }
    squares = (torch.ones_like(found) if rows.weights is None else rows.weights.to(found)).double().square()
    skew = float(squares @ (found.double() - numbers[name]))
    return numbers | {f"{name}_squares": float(squares.sum()), f"{name}_skew": skew}
