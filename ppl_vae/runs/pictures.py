"""The pictures of a run: what the data, the reconstructions, the samples, the course of the fit and the codes look like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.figure import Figure

from ppl_vae import plots
from ppl_vae.data import Data, Split
from ppl_vae.fitting import Fit
from ppl_vae.program.context import evaluating, seeded

__all__ = ["run_pictures"]

MOST_CLASSES = 20  # in one picture
PICTURED = 2000  # data in the scatter of codes; more only cover each other


def run_pictures(fit: Fit, data: Data) -> Iterator[tuple[str, Figure]]:
    """The pictures of a fit by their names: data, reconstructions, samples, curves, codes."""
    kind = fit.spec.kind
    shown = next((split for split in (data.test, data.valid) if len(split)), data.train)
    rows = shown[:40].fixed(torch.Generator().manual_seed(0))
    x = fit.seen(rows)
    # Fitting asks a program for its sites only, pictures for more.
    decodes, encodes = hasattr(fit.pair.model, "decode"), hasattr(fit.pair.guide, "posterior")
    yield "data", plots.grid(x, kind=kind, title="data")
    if decodes and encodes:
        yield "reconstructions", plots.comparison(x, fit.reconstruct(rows, seen=True), kind=kind)
    if decodes and hasattr(fit.pair.model, "prior"):
        yield _sampled(fit, rows[:10])
    yield "learning_curve", plots.learning_curve(fit.history, score=fit.score)
    if (tracked := plots.tracked(fit.history, score=fit.score)) is not None:
        yield "tracked", tracked
    if encodes:
        yield from _encoded(fit, shown)


def _encoded(fit: Fit, shown: Split) -> Iterator[tuple[str, Figure]]:
    """The codes, their aggregate beside the prior, and what is decoded from a plane of them."""
    codes = shown[:PICTURED]
    latent = fit.encode(codes)
    latent = latent.reshape(len(latent), -1)
    if latent.shape[1] >= 2:
        yield "latent", plots.latent_scatter(latent, codes.y, fit.spec.classes)
    if getattr(fit.pair.model, "latent", None) == "continuous" and not hasattr(fit.pair.model, "condition"):
        yield "aggregate", _aggregate(fit, codes)
    plane = latent.shape[1] == 2 and len(fit.spec.event_shape) > 1
    if plane and hasattr(fit.pair.model, "decode") and not hasattr(fit.pair.model, "condition"):
        yield "manifold", plots.manifold(fit.decode(plots.quantile_grid(20), seen=True), kind=fit.spec.kind)


def _aggregate(fit: Fit, rows: Split) -> Figure:
    """A draw from the posterior of each row, against as many from the prior."""
    with evaluating(fit.pair), seeded(0, fit.device):
        prior = fit.pair.model.prior().sample((PICTURED,))
    return plots.aggregate(fit.encode(rows, samples=1)[0].flatten(1), prior.flatten(1))


def _sampled(fit: Fit, rows: Split) -> tuple[str, Figure]:
    """New data from the prior; of each class, or completed from what is known of the rows, as the model is conditioned.

    Means in place of draws where they are images: a draw of each pixel would hide them.
    """
    kind, known = fit.spec.kind, getattr(fit.pair.model, "known_entries", None)
    means = len(fit.spec.event_shape) > 1
    shown: dict[str, Any] = {"means": means, "seen": True}
    what = "means of new data" if means else "draws"
    if getattr(fit.pair.model, "labelled", False):
        classes = fit.spec.classes[:MOST_CLASSES]
        title = f"{what}; a row: one z; a column: one class"
        return "samples", plots.by_class(fit.by_class(8, **shown)[:, : len(classes)], classes, kind=kind, title=title)
    if known is not None:
        samples = torch.stack([fit.sample(len(rows), x=rows, seed=seed, **shown) for seed in range(4)])
        title = f"completions: {'means' if means else 'draws'} given z"
        return "completions", plots.completions(fit.seen(rows), known, samples, kind=kind, title=title)
    source = getattr(fit.pair.model, "drawn_from", "the prior")
    return "samples", plots.grid(fit.sample(64, **shown), kind=kind, title=f"{what} from {source}")
