"""`select`: one experiment with several values of a field, and which of them the data favour."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ppl_vae import plots
from ppl_vae.arguments import whole
from ppl_vae.data import load_data
from ppl_vae.data.fingerprint import fingerprints, told
from ppl_vae.declaration import Declaration, require
from ppl_vae.evaluate.metrics import UNIT
from ppl_vae.fitting.fit import DataLike, place
from ppl_vae.guides import Guide
from ppl_vae.inference.methods.base import Method
from ppl_vae.models import Model
from ppl_vae.program.pair import Pair
from ppl_vae.selection.candidates import Candidate, Grid, candidates, grid_of
from ppl_vae.selection.criteria import By, Rule, check_criterion, chosen, is_information
from ppl_vae.selection.fits import Fits
from ppl_vae.selection.kept import Kept
from ppl_vae.selection.result import Selection
from ppl_vae.selection.table import row_of
from ppl_vae.selection.work import Plan
from ppl_vae.storage import Interrupted

__all__ = ["select"]


def select(
    model: Model,
    data: DataLike = "digits",
    *,
    by: By = "bic",
    rule: Rule = "best",
    method: Method | None = None,
    guide: Guide | None = None,
    folds: int = 5,
    samples: int = 100,
    jobs: int = 1,
    device: str | torch.device = "auto",
    out: str | Path | None = None,
    progress: bool = True,
    field: str | None = None,
    values: Iterable[Any] | None = None,
    **fields: Iterable[Any],
) -> Selection:
    """Fit a model with each of several values of a field, and choose the value that the data favour.

    ``bic`` and ``aic`` are of the training rows, and need a model that knows log p(x), as FactorAnalysis, PPCA and GMM do.
    ``heldout`` is the log-likelihood of the validation rows. ``cv`` is that of each training row under a fit to the other
    folds: rows are dealt out by the seed of the data, and a scale that is measured on rows is measured in each fold anew. Where
    log p(x) is not known the importance-weighted bound stands in for it. The test rows are left alone.

    All candidates have one seed, so they depend neither on each other nor on the number of processes. A larger model of a
    family that holds the smaller ones (mixtures, factors) cannot fit its training rows worse: where it ends below a smaller
    one, it is fitted once more from there, and the better of the two fits is kept (not in the folds of ``cv``).

    Args:
        model: the declared model.
        data: what :func:`~ppl_vae.load_data` takes or gave; all rows are training rows with ``valid=0, test=0``.
        by: the criterion: ``bic``, ``aic``, ``heldout`` or ``cv``.
        rule: ``best``, or ``one_se`` for the simplest candidate, by its free parameters, within one standard error of the best.
        method: how each is fitted; by default by formula or EM where the model offers it, else SVI.
        guide: the approximate posterior, likewise.
        folds: of cross-validation.
        samples: of the bound that stands in for log p(x), per datum.
        jobs: processes, each with its part of the cores. Each takes seconds to begin and has the data for itself.
        device: where fits are made.
        out: a folder that keeps each fit as soon as it is done, so that a second call goes on; it holds one experiment.
        progress: whether there may be a bar on standard error.
        field: the name of the field, where it is told as a text; ``prior__components`` of a declaration in another.
        values: its values, then.
        fields: else the values by the name of the field, ``components=range(1, 11)``; of several fields all combinations.
            Fields of the guide and the method have ``guide__`` and ``method__`` before their names.

    Returns:
        The table, the best declaration and its fit.

    Raises:
        ValueError: no field or value that the model takes, a criterion that it does not have, no rows that it needs, a folder
            that holds another experiment, or no candidate that can be fitted.

    Examples:
        >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> selection = select(GMM(), x, components=[1, 2, 3], by="bic", method=EM())
        >>> selection.best.components, [row["free_parameters"] for row in selection.rows]
        (1, [5, 11, 17])
    """
    check_criterion(by, rule)
    grid = grid_of(field, values, fields)
    loaded = load_data(data).to("cpu")
    found = candidates(model, guide, method, grid, loaded)
    plan = Plan(
        candidates=found,
        data=loaded,
        by=by,
        folds=whole("folds", folds),
        samples=whole("samples", samples),
        device=str(device),
    )
    require((jobs := whole("jobs", jobs)) >= 1, "at least 1 process", jobs)
    pairs = _checked(plan)
    kept = None if out is None else Kept(out)
    experiment = _experiment(plan, grid, model, guide, method, kept.fingerprint) if kept else {}
    if kept:
        kept.begin(experiment)
    fits = Fits(plan, kept, [pair.model_facts.free_parameters for pair in pairs])
    try:
        fits.make(jobs=jobs, progress=progress)
    except Interrupted as stop:
        stop.go_on("the same selection again, in the same folder")
        raise
    rows = [row_of(candidate, fits.of(at), plan, pair) for at, (candidate, pair) in enumerate(zip(found, pairs, strict=True))]
    best = chosen(rows, by, rule)
    selection = Selection(
        by=by,
        rule=rule,
        fields=tuple(grid),
        rows=rows,
        place=best,
        best=found[best].model,
        fit=fits.final(best),
        size=len(plan.data.train),
        exact=all(pair.can.marginal is not None or pair.score.bound == "exact" for pair in pairs),
    )
    if kept:
        kept.finish(experiment, selection.to_dict(), f"{model}\n\n{UNIT}\n\n{selection}\n")
        plots.save(selection.plot(), kept.path / Kept.PICTURE)
    return selection


def _checked(plan: Plan) -> list[Pair]:
    """The pairs of the candidates, before anything is fitted.

    Raises:
        ValueError: what would be found after the first long fit otherwise.
    """
    pairs = [each.built(place(each.model, plan.data, "cpu").spec) for each in plan.candidates]
    for candidate, pair in zip(plan.candidates, pairs, strict=True):
        _check_criterion(candidate, pair, plan.by)
    if plan.by == "heldout" and not len(plan.data.valid):
        raise ValueError("by='heldout' needs validation rows, of which there are none: hold some out (valid=0.2), or use 'cv'")
    if plan.by == "cv":
        require(2 <= plan.folds <= len(plan.data.train), "2 folds or more, and no more than training rows", plan.folds)
    require(plan.samples >= 1, "at least 1 sample", plan.samples)
    return pairs


def _check_criterion(candidate: Candidate, pair: Pair, by: str) -> None:
    """Raise ``ValueError`` if a candidate does not have the criterion."""
    if is_information(by) and candidate.model.parameter_priors:
        raise ValueError(
            f"by={by!r} counts parameters that are fitted by maximum likelihood, but those of {candidate.name} carry priors: "
            "use by='heldout' or by='cv'"
        )
    if is_information(by) and pair.can.marginal is None:
        raise ValueError(
            f"by={by!r} needs log p(x), which {type(candidate.model).__name__} ({candidate.name}) does not know: use "
            "by='heldout' or by='cv'"
        )
    if pair.can.marginal is None and pair.score.bound is None:
        raise ValueError(
            f"candidates are judged by log p(x), of which the {pair.score.title} of {type(candidate.model).__name__} "
            f"({candidate.name}) is no bound: use a model with a density, such as PPCA for PCA and VAE for AutoEncoder"
        )


def _experiment(
    plan: Plan, grid: Grid, model: Model, guide: Guide | None, method: Method | None, before: object
) -> dict[str, Any]:
    """What a folder is about, as plain values, where what stood ``before`` for the data may still stand."""
    prints = fingerprints({name: part for name, part in plan.data.parts.items() if name != "test"})
    parts: dict[str, Any] = {"model": model, "guide": guide, "method": method, "data": plan.data.source}
    values = {
        name: [value.to_dict() if isinstance(value, Declaration) else value for value in each] for name, each in grid.items()
    }
    return {
        **{name: None if part is None else part.to_dict() for name, part in parts.items()},
        "fields": values,
        "by": plan.by,
        **({"folds": plan.folds} if plan.by == "cv" else {}),
        "samples": plan.samples,
        "device": plan.device,
        "fingerprint": told(prints, before, plan.data.train),
    }
