"""What a fit remarks on once it is over: what it lacks, with the remedy, each in one line."""

from __future__ import annotations

import math
import warnings
from typing import Any

from ppl_vae.data import Data
from ppl_vae.fitting.without_latents import BEGUN, remark_if_far_below, rows_seen
from ppl_vae.inference.methods.base import Method
from ppl_vae.models import Model
from ppl_vae.types import FitWarning, Record

__all__ = ["advise", "climbing", "dominating"]

CLIMBING = 0.1  # of all that a fit climbed, gained in its second half
BELOW = 0.01  # of the independent baseline's size, and in nats
DOMINATING = 0.9  # of the squared deviations of all columns, in one of them


def advise(model: Any, method: Method, best: float | None, data: Data, history: list[Record]) -> None:
    """Remark on a fit that is worse than no latent variable, still climbs, or sees little but one column.

    Args:
        model: the declared model, or a plain program.
        method: how it was fitted.
        best: what the likelihood reaches without latent variables, in nats per datum.
        data: what it was fitted to.
        history: of the fit.
    """
    steps = len(history) * method.steps_per_epoch(len(data.train))
    if not remark_if_far_below(model, method, best, data, history) and steps >= BEGUN:
        _remark(_below(best, history) or climbing(history, length=method.length or ""))
    if isinstance(model, Model):
        _remark(dominating(model, data))


def climbing(history: list[Record], *, length: str) -> str:
    """That the ELBO still climbs, of the validation data where there are some, or nothing.

    It does if the second half of the fit gained more than a tenth of the whole climb.

    Examples:
        >>> climbing([{"elbo": -100.0 + 10 * epoch} for epoch in range(10)], length="epochs")[:46]
        'the ELBO still climbs: the second half of the '
    """
    name = "valid_elbo" if history and "valid_elbo" in history[-1] else "elbo"
    rows = [row for row in history if row.get("stage") == history[-1].get("stage")]
    curve = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
    if length not in ("epochs", "methods") or len(curve) < 4:
        return ""
    window = max(1, len(curve) // 10)  # of which the mean is taken: single epochs are noisy
    half, end = len(curve) // 2, sum(curve[-window:]) / window
    gained, climbed = end - sum(curve[half - window : half]) / window, end - curve[0]
    if not gained > CLIMBING * climbed > 0:
        return ""
    part = "fit" if length == "epochs" else "last stage"
    longer = f"--method.epochs {2 * len(rows)}" if length == "epochs" else f"epochs={2 * len(rows)} of the last of the methods"
    return (
        f"the ELBO still climbs: the second half of the {part} gained {gained:.3g} of {climbed:.3g} nats per datum. Fit for "
        f"more epochs ({longer}; ppl-vae fit --resume goes on with a run)"
    )


def dominating(model: Model, data: Data) -> str:
    """That one column of a table is nearly all that a noise scale shared by all columns sees, or nothing."""
    spec = data.spec
    likelihood = model.without_latents(spec)
    if spec.kind != "real" or len(spec.event_shape) != 1 or likelihood is None or not likelihood.one_scale:
        return ""
    x = rows_seen(data.train, 1)[0].double()
    squares = (x - x.nanmean(0)).square().nansum(0)
    share, place = (squares / squares.sum().clamp_min(1e-300)).max(0)
    if len(squares) < 2 or not share > DOMINATING:
        return ""
    name = spec.columns[int(place)] if spec.columns else f"{int(place)} (from 0)"
    return (
        f"column {name} has {100 * share:.3g} % of the squared deviations of all {len(squares)} columns, and one noise scale "
        "serves them all, so it is nearly all that the score sees: load the data with scale='standardize' "
        "(--data.scale standardize), which changes the unit of no number"
    )


def _below(best: float | None, history: list[Record]) -> str:
    """That the ELBO ends below what the likelihood reaches alike for all data, or nothing."""
    reached = history[-1].get("elbo", math.nan)
    if best is None or not reached < best - BELOW * max(1.0, abs(best)):
        return ""
    return (
        f"the fit ends at an ELBO of {reached:.5g} nats per datum, below the {best:.5g} that the likelihood reaches without "
        "latent variables, alike for all data: they earn nothing yet. Fit for more epochs, or look at fit.latents(data): "
        "another prior, free bits or fewer dimensions may help"
    )


def _remark(message: str) -> None:
    if message:
        warnings.warn(message, FitWarning, stacklevel=5)
