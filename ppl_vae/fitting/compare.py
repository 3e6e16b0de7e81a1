"""`compare`: one declared model fitted by several methods, in one table and one unit."""

from __future__ import annotations

import dataclasses
import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from types import NoneType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.data import Data, DataSource, Split
from ppl_vae.declaration import require
from ppl_vae.deprecation import RenamedAttribute
from ppl_vae.evaluate import log_jacobian
from ppl_vae.evaluate.metrics import UNIT
from ppl_vae.evaluate.rows import mean
from ppl_vae.fitting.build import build, default_guide
from ppl_vae.fitting.callbacks.arguments import all_callbacks
from ppl_vae.fitting.callbacks.base import Callback, FitContext
from ppl_vae.fitting.callbacks.progress import Progress
from ppl_vae.fitting.checks import check_declared
from ppl_vae.fitting.fit import fit_with_callbacks, place, settled
from ppl_vae.fitting.fitted import Fit
from ppl_vae.fitting.priors import with_conjugate_priors
from ppl_vae.fitting.table import COLUMNS, aligned, cell, short
from ppl_vae.guides import Guide
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.em import EM
from ppl_vae.inference.methods.nuts import NUTS
from ppl_vae.models import Model
from ppl_vae.program.capabilities import Marginal
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair
from ppl_vae.types import FitWarning, Record

__all__ = ["Comparison", "Trajectory", "compare"]

M = TypeVar("M", bound=Model | Callable[..., Any])

NEAR = 0.01  # nats per datum to the best: who is so near has arrived
SAMPLES = 100  # per datum, for the bound that stands in where log p(x) is not known
ROWS_AT_ONCE = 1000
FIELDS = (
    "train_log_likelihood",
    "test_log_likelihood",
    "elbo",
    "gap",
    "distance",
    "iterations",
    "seconds",
    "seconds_to_best",
)

Trajectory = list[tuple[float, float]]
"""Seconds since the fit began and the log-likelihood of the training data then, in nats per datum."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What :func:`compare` found; ``print`` shows the table.

    ``rows`` holds a dictionary per method and guide; log-likelihoods, ELBO and gap are in nats per datum:

    - ``method``, ``guide``: the class and those of its fields that are not the defaults.
    - ``train_log_likelihood``, ``test_log_likelihood``: exact if ``exact``, where the model knows log p(x); elsewhere the
      importance-weighted bound with 100 samples. ``None`` without test data.
    - ``elbo``: of the training data; ``gap``: log-likelihood - ELBO, the KL from the guide to the exact posterior; ``None`` of
      points in place of posteriors, such as MAP estimates.
    - ``distance`` to the solution of EM, or of the best row if EM is not compared: the largest principal angle between the
      loadings' subspaces in radians, or for mixtures the root mean square distance of matched means. ``None`` for models
      that define none.
    - ``iterations`` (steps of EM, epochs of SVI), ``seconds``, and ``seconds_to_best``: those until the log-likelihood of the
      training data came within 0.01 of the best that any method ended at from this seed; ``None`` if never, or for a model
      that does not know log p(x).
    - ``integrated``, of models with priors alone: the parameters that carry them. Log-likelihoods are at point estimates of
      them; ``elbo`` of such a row bounds the log evidence log p(x_1, ..., x_N) / N, with these parameters integrated out, so
      that it pays for their number.
    - with several seeds all these are means, and ``*_sd`` their standard deviations.

    Attributes:
        model: the declared model.
        data: what it was fitted to, as the model saw it.
        rows: the table.
        trajectories: of each row and seed the way up; by the history's ELBO if the model does not know log p(x).
        fits: of each row and seed the fit.
    """

    model: Model | Callable[..., Any]
    data: Data
    rows: list[Record]
    trajectories: list[list[Trajectory]]
    fits: list[list[Fit]]

    climbs = RenamedAttribute("trajectories")

    def __str__(self) -> str:
        return self.to_markdown()

    def to_dict(self) -> dict[str, Any]:
        """The unit and the rows, as plain values."""
        return {"unit": UNIT, "rows": self.rows}

    def to_markdown(self) -> str:
        """The rows as a Markdown table whose columns are also aligned as text; ± is the standard deviation over the seeds."""
        names = ("method", "guide", *FIELDS)
        table = [[COLUMNS.get(name, name) for name in names], *([cell(row, name) for name in names] for row in self.rows)]
        return "\n".join([aligned(table, words=2), *self._notes()])

    def _notes(self) -> list[str]:
        """What the ELBOs of rows are of whose parameters are integrated out."""
        of_rows = {row["method"]: ", ".join(row["integrated"]) for row in self.rows if row.get("integrated")}
        told = "integrated out; log-likelihoods are at point estimates"
        return [f"{method}: the ELBO bounds log p(x_1, ..., x_N) / N with {names} {told}" for method, names in of_rows.items()]


def compare(
    model: Model | Callable[..., Any],
    data: Data | DataSource | str | np.ndarray | Tensor = "digits",
    *,
    methods: Sequence[Method],
    guides: Sequence[Guide | Callable[..., Any]] | None = None,
    seeds: int | Sequence[int] = 1,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> Comparison:
    """Fit one model by several methods and put what they reach, and how fast, side by side.

    EM and closed forms, which fit point estimates, leave declared priors of parameters out. CAVI and NUTS, which need priors,
    take weakly informative conjugate ones of the scale of the data where mixtures and factor analysis declare none.

    For one seed all methods start from the same parameters where the model defines a start (linear-Gaussian models and
    mixtures do). The log-likelihood of the training data is recorded after every iteration, off the clock.

    Args:
        model: a declared model, or a plain Pyro program.
        data: what :func:`~ppl_vae.load_data` takes or gave.
        methods: how to fit, each.
        guides: tried with every method that fits guides; a method that needs the exact posterior takes that. By default each
            method's own default guide.
        seeds: how many, counted from each method's own seed; or which.
        device: where, as for :func:`~ppl_vae.fit`.
        progress: called with each row of each history; by default a progress bar if standard error is a terminal.

    Raises:
        ValueError: no methods, guides or seeds, or a method that cannot fit the model: why, and which can.

    Examples:
        >>> blobs = torch.randn(200, 2)
        >>> comparison = compare(GMM(components=1), blobs, methods=[EM(), SVI(epochs=20)])
        >>> [row["method"] for row in comparison.rows]
        ['EM', 'SVI(epochs=20)']
    """
    require(isinstance(methods, (list, tuple)), "methods as a list, such as [EM(), SVI()]", methods)
    require(isinstance(guides, (list, tuple, NoneType)), "guides as a list, such as [AmortizedNormal()], or None", guides)
    require(len(methods) > 0, "at least one method to compare", list(methods))
    require(guides is None or len(guides) > 0, "at least one guide, or None for the defaults", guides)
    for method in methods:
        for guide in guides or (None,):
            check_declared(model, guide, method)
    seeds = [whole("seeds", seed) for seed in seeds] if isinstance(seeds, Iterable) else whole("seeds", seeds)
    require(seeds >= 1 if isinstance(seeds, int) else len(seeds) > 0, "at least one seed", seeds)
    data = place(model, data, device)
    model = settled(model, data)
    entries = [
        (method, guide, declared)
        for method in methods
        for declared in [_declared(model, method, data)]
        for guide in _guides(declared, method, guides)
    ]
    names = [(short(method), short(guide)) for method, guide, _ in entries]
    require(len(set(names)) == len(names), "methods and guides that differ", names)
    with seeded(0):
        for _, guide, declared in entries:
            _check_comparable(build(declared, guide, data.spec))  # what cannot be compared is refused before the first long fit
    runs = [
        [_run(declared, data, guide, each, progress) for each in _with_seeds(method, seeds)]
        for method, guide, declared in entries
    ]
    for same_seed in zip(*runs, strict=True):
        _relate([method for method, *_ in entries], same_seed)
    return Comparison(
        model=model,
        data=data,
        rows=[_row(*entry, of_seeds) for entry, of_seeds in zip(entries, runs, strict=True)],
        trajectories=[[run.trajectory for run in of_seeds] for of_seeds in runs],
        fits=[[run.fit for run in of_seeds] for of_seeds in runs],
    )


def _declared(model: M, method: Method, data: Data) -> M:
    """The model as a method can fit it: point estimates without priors by EM and formulas, with priors by what needs such."""
    if method.posterior_guide == "exact" and isinstance(model, Model) and model.parameter_priors:
        return dataclasses.replace(model, **dict.fromkeys(model.parameter_priors))
    sampled = isinstance(method, NUTS) and isinstance(model, Model) and not model.parameter_priors
    return with_conjugate_priors(model, data) if sampled or method.posterior_guide == "factors" else model


def _check_comparable(pair: Pair) -> None:
    if pair.score.bound or pair.can.marginal is not None:
        return
    if not pair.score.points:
        raise ValueError(
            f"fits are compared by log p(x), of which a {pair.score.title} gives no bound: use programs without weights and "
            "factors, or evaluate each fit"
        )
    raise ValueError(
        "fits are compared by log p(x), of which codes that are points without a density give no bound: use a guide with a "
        "density and a model with a prior, such as AmortizedNormal and VAE, or evaluate each fit"
    )


class _Run(NamedTuple):
    """One fit and what is known of it; ``_relate`` adds to the numbers what takes the other fits."""

    fit: Fit
    trajectory: Trajectory
    numbers: dict[str, Any]


def _guides(
    model: Model | Callable[..., Any], method: Method, guides: Sequence[Guide | Callable[..., Any]] | None
) -> Sequence[Guide | Callable[..., Any]]:
    return guides if guides is not None and method.posterior_guide == "any" else [default_guide(model, method)]


def _with_seeds(method: Method, seeds: int | Sequence[int]) -> list[Method]:
    numbers = range(method.seed, method.seed + seeds) if isinstance(seeds, int) else seeds
    return [dataclasses.replace(method, seed=seed) for seed in numbers]


class _Recorder(Callback):
    """Notes a trajectory: the log-likelihood of the training data, exact where the model knows it, after each row."""

    def begin(self, context: FitContext) -> None:
        """Start a new one."""
        self.trajectory: Trajectory = []
        self._pair, self._train, self._live = context.pair, context.data.train, context.method.live

    def record(self, row: Record) -> None:
        """Add a point; nothing is added to the row."""
        _check_comparable(self._pair)  # what a plain program's terms are is known from its first batch on
        if "log_likelihood" in row:
            value = row["log_likelihood"]
        elif self._live and self._pair.can.marginal is not None:
            value = _log_likelihood(self._pair, self._pair.can.marginal, self._train)
        else:
            value = row[self._pair.score.name]
        self.trajectory.append((row["seconds"], value))


def _run(
    model: Model | Callable[..., Any],
    data: Data,
    guide: Guide | Callable[..., Any],
    method: Method,
    progress: Progress | None,
) -> _Run:
    recorder = _Recorder()
    callbacks = all_callbacks(progress=progress, callbacks=[recorder])
    fit = fit_with_callbacks(model, data, guide=guide, method=method, device=data.train.device, callbacks=callbacks)
    return _Run(fit, recorder.trajectory, _numbers(fit, data))


def _log_likelihood(pair: Pair, model: Marginal, split: Split) -> float:
    """Mean of the exact log p(x); any noise of the data is not drawn from the fit's own random numbers."""
    with evaluating(pair), seeded(0, split.device):
        values = torch.cat([model.log_prob(x).double() for x in split.batches(ROWS_AT_ONCE)])
    return mean(values, split.weights) + log_jacobian(pair, split)


def _numbers(fit: Fit, data: Data) -> dict[str, Any]:
    score = fit.pair.score
    exact = fit.pair.can.marginal is not None or score.bound == "exact"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # that a bound may be loose: the table marks it as one
        train, test = (
            fit.evaluate(split, samples=1 if exact else SAMPLES, summed="auto") if len(split) else {}
            for split in (data.train, data.test)
        )
    bound = next(name for name in ("log_likelihood", "iwae", score.name) if name in train)
    elbo = train.get("elbo")  # there is none of a point, such as a MAP estimate
    return {
        "exact": exact,
        "train_log_likelihood": train[bound],
        "test_log_likelihood": test.get(bound),
        "elbo": elbo,
        "gap": None if elbo is None or bound == "elbo" else train[bound] - elbo,
        "iterations": fit.history[-1]["epoch"],
        "seconds": fit.history[-1]["seconds"],
    }


def _relate(methods: Sequence[Method], runs: Sequence[_Run]) -> None:
    """What one seed's fits are to each other: the distance to the reference, and the seconds until the best was near."""
    candidates = [run for method, run in zip(methods, runs, strict=True) if isinstance(method, EM)] or runs
    reference = max(candidates, key=lambda run: run.numbers["train_log_likelihood"]).fit.pair.model
    best = max(run.numbers["train_log_likelihood"] for run in runs)
    for run in runs:
        model = run.fit.pair.can.compare
        run.numbers["distance"] = None if model is None else model.distance(reference)
        near = (seconds for seconds, value in run.trajectory if run.numbers["exact"] and value >= best - NEAR)
        run.numbers["seconds_to_best"] = next(near, None)


def _row(method: Method, guide: Guide | Callable[..., Any], model: Model | Callable[..., Any], runs: Sequence[_Run]) -> Record:
    row: Record = {"method": short(method), "guide": short(guide), "exact": runs[0].numbers["exact"]}
    if isinstance(model, Model) and model.parameter_priors:
        row["integrated"] = list(model.parameter_priors)
    for name in FIELDS:
        values = [run.numbers[name] for run in runs]
        known = None not in values
        row[name] = (values[0] if len(values) == 1 else statistics.fmean(values)) if known else None
        if len(values) > 1:
            row[f"{name}_sd"] = statistics.stdev(values) if known else None
    return row
