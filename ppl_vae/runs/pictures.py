"""The pictures of a run: what the data, the reconstructions, the samples, the course of the fit and the codes look like."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ppl_vae import plots
from ppl_vae.data import Data, Split
from ppl_vae.evaluate.documents import topics_of
from ppl_vae.fitting import Fit
from ppl_vae.models import Model
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.capabilities import Quantized
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.sites import leaves
from ppl_vae.runs.row_pictures import row_pictures
from ppl_vae.types import FitWarning

__all__ = ["run_pictures"]

MOST_CLASSES = 20  # in one picture
AT_ONCE = 2**22  # elements of the rows that are read together
PICTURED = 2000  # data in the scatter of codes; more only cover each other

Named = tuple[str, Figure]


def run_pictures(fit: Fit, data: Data) -> Iterator[Named]:
    """The pictures of a fit by their names: data, reconstructions, samples, curves, codes.

    Of several latent variables those of codes are of each, with its name at the end of theirs. Programs that only run may
    not do all that is pictured; what they do not do is remarked on and left out.
    """
    shown = next((split for split in (data.test, data.valid) if len(split)), data.train)
    if isinstance(fit.model, Model) and fit.model.data_free:
        yield from _without_data(fit, shown)
        return
    of_rows = fit.spec.ragged or fit.pair.can.continue_rows is not None
    yield from row_pictures(fit, shown) if of_rows else _of_data(fit, shown)
    yield "learning_curve", plots.learning_curve(fit.history, score=fit.score)
    if (tracked := plots.tracked(fit.history, score=fit.score)) is not None:
        yield "tracked", tracked
    yield from _charts(fit)
    without = fit.pair.can.draw_data if fit.pair.can.draw_data is not None else fit.pair.can.continue_rows
    if (without is None or fit.pair.model_facts.sites) and fit.pair.can.find_path is None:
        yield from _if_possible(fit, "codes", lambda: _encoded(fit, shown[:PICTURED]))


def _of_data(fit: Fit, shown: Split) -> Iterator[Named]:
    """Data, what they are reconstructed as, and new ones, where they are images or rows of columns."""
    rows = shown[:40].fixed(torch.Generator().manual_seed(0))
    x = fit.seen(rows)
    yield "data", plots.grid(x, kind=fit.spec.kind, title="data", names=fit.spec.columns)
    if (network := fit.pair.can.answer) is not None:
        yield "graph", plots.graph(network.parents, hidden=network.hidden, numbers=network.numbers)
    if fit.pair.model_facts.documents:
        yield from _if_possible(fit, "topics", lambda: _topics(fit, shown[:PICTURED]))
    if fit.pair.can.draw_data is None:
        yield from _if_possible(fit, "reconstructions", lambda: _reconstructed(fit, rows, x))
    yield from _if_possible(fit, "samples", lambda: _sampled(fit, rows[:10]))


def _charts(fit: Fit) -> Iterator[Named]:
    """The tables that the model shows."""
    if (model := fit.pair.can.chart) is not None:
        vocabulary = fit.spec.fields[0].vocabulary if fit.spec.ragged else ()
        for name, chart in model.charts().items():
            names = vocabulary if chart.tokens else ()
            yield name, plots.chart(chart.values, rows=chart.rows, columns=chart.columns, names=names)


def _without_data(fit: Fit, rows: Split) -> Iterator[Named]:
    """Of a model that has no data: its own draws, the course of the fit, the means of what is latent."""
    if fit.pair.can.draw_data is not None:
        title = f"draws from {fit.pair.model_facts.drawn_from}"
        yield "samples", plots.grid(fit.sample(64, seen=True), kind=fit.spec.kind, title=title)
    yield "learning_curve", plots.learning_curve(fit.history, score=fit.score)
    means = {name: code[0] for name, code in leaves(fit.encode(rows)).items() if code.dim() in (2, 3)}
    if means:
        yield "marginals", plots.lattice(means, label="mean")


def _if_possible(fit: Fit, what: str, make: Callable[[], Iterator[Named]]) -> list[Named]:
    """What is made, or nothing and a remark where that takes an ability which a program does not have."""
    try:
        return list(make())
    except ValueError as error:
        if fit.pair.can.generate is not None and fit.pair.can.encode is not None:
            raise
        warnings.warn(f"there is no picture of {what}: {error}", FitWarning, stacklevel=2)
        return []


def _reconstructed(fit: Fit, rows: Split, x: Tensor) -> Iterator[Named]:
    found = fit.reconstruct(rows, seen=True)
    yield "reconstructions", plots.comparison(x, _of_x(found, fit), kind=fit.spec.kind, names=fit.spec.columns)


def _topics(fit: Fit, rows: Split) -> Iterator[Named]:
    """The topics of a model that has some, and how much of these rows' words each has."""
    with evaluating(fit.pair):
        shares = topics_of(fit.pair)
    if shares is None:
        return
    words = torch.cat([x.flatten(1).sum(1) for x in rows.batches(max(1, AT_ONCE // rows.elements))])
    of_topics = words @ fit.encode(rows).to(words)
    names = fit.spec.columns if len(fit.spec.columns) == shares.shape[1] else ()
    yield "topics", plots.topics(shares, of_topics / of_topics.sum().clamp_min(1e-30), names)


def _sampled(fit: Fit, rows: Split) -> Iterator[Named]:
    """New data from the prior; of each class, or completed from what is known of the rows, as the model is conditioned.

    Means in place of draws where they are images: a draw of each pixel would hide them.
    """
    kind, model = fit.spec.kind, fit.pair.model_facts
    means = len(fit.spec.event_shape) > 1 and fit.pair.can.draw_data is None
    shown: dict[str, Any] = {"means": means, "seen": True}
    what = "means of new data" if means else "draws"
    if model.labelled:
        classes = fit.spec.classes[:MOST_CLASSES]
        title = f"{what}; a row: one z; a column: one class"
        yield "samples", plots.by_class(fit.by_class(8, **shown)[:, : len(classes)], classes, kind=kind, title=title)
    elif model.known_entries is not None:
        samples = torch.stack([fit.sample(len(rows), x=rows, seed=seed, **shown) for seed in range(4)])
        title = f"completions: {'means' if means else 'draws'} given z"
        yield "completions", plots.completions(fit.seen(rows), model.known_entries, samples, kind=kind, title=title)
    else:
        title = f"{what} from {model.drawn_from}"
        yield "samples", plots.grid(_of_x(fit.sample(64, **shown), fit), kind=kind, title=title, names=fit.spec.columns)


def _of_x(found: Any, fit: Fit) -> Tensor:
    """Rows ``(n, *event)``.

    Raises:
        ValueError: the model observes something else.
    """
    if isinstance(found, Tensor) and math.prod(found.shape[1:]) == math.prod(fit.spec.event_shape):
        return found.reshape(-1, *fit.spec.event_shape)
    raise ValueError(f"the model observes {', '.join(leaves(found, 'a part of x'))}, not x itself")


def _encoded(fit: Fit, rows: Split) -> Iterator[Named]:
    """The codes, their aggregate beside the prior, and what is decoded from a plane of the topmost."""
    codes, model = leaves(fit.encode(rows)), fit.pair.model_facts
    if isinstance(model, Quantized):
        yield from _grids(model, codes)
        return
    codes = {name: code.reshape(len(rows), -1) for name, code in codes.items() if name not in fit.shared}
    endings = {name: "_" + re.sub(r"[^\w.-]", "_", name) if len(codes) > 1 else "" for name in codes}
    for name, code in codes.items():
        if code.shape[1] >= 2:
            yield f"latent{endings[name]}", plots.latent_scatter(code, rows.y, fit.spec.classes)
    if fit.pair.can.generate is None or model.latent != "continuous" or _conditioned(model):
        return
    yield from ((f"aggregate{endings[name]}", figure) for name, figure in _aggregates(fit, rows))
    top = next(iter(model.sites))
    if math.prod(model.sites[top].event_shape) == 2 and len(fit.spec.event_shape) > 1:
        plane = plots.quantile_grid(20).reshape(20, 20, *model.sites[top].event_shape)
        yield "manifold", plots.manifold(fit.decode({top: plane}, seen=True), kind=fit.spec.kind)


def _grids(model: Quantized, codes: Mapping[str, Tensor]) -> Iterator[Named]:
    """The grids of codes of some rows, and how often each code stands in them."""
    for (name, grids), (site, _) in zip(codes.items(), model.sites.items(), strict=True):
        ending = f"_{name}" if len(codes) > 1 else ""
        yield f"codes{ending}", plots.codes(grids, size=model.codebook(site).size)


def _conditioned(model: ModelProgram) -> bool:
    """Whether codes are of data whose condition is told beside them."""
    return model.labelled or bool(model.covariates) or model.known_entries is not None


def _aggregates(fit: Fit, rows: Split) -> Iterator[Named]:
    """A draw from the posterior of each row, against as many from the prior."""
    with evaluating(fit.pair), seeded(0, fit.device):
        prior = leaves(fit.pair.model.prior().sample((PICTURED,)))
    for name, drawn in leaves(fit.encode(rows, samples=1)).items():
        yield name, plots.aggregate(*(codes.reshape(len(codes), -1) for codes in (drawn[0], prior[name])))
