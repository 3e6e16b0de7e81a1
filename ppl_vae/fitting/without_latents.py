"""What a model would reach without its latent variable: the number that a fit has to beat, and a word if it does not.

    max_h (1/N) sum_n log p(x_n | h)

The features h and the likelihood's own parameters are the same for all data. Of elements that are independent given h these are
independent columns: the entropy of each for a Bernoulli or categorical one, a normal density of each for a Gaussian.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.optim.rprop import rprop

from ppl_vae.data import Data, Split
from ppl_vae.evaluate import log_jacobian
from ppl_vae.exact.floors import common, variance_floor
from ppl_vae.inference.methods.base import Method
from ppl_vae.likelihoods import Likelihood
from ppl_vae.models import Model
from ppl_vae.program.context import seeded
from ppl_vae.program.pair import Pair
from ppl_vae.scores import ELBO
from ppl_vae.types import FitWarning, Record

__all__ = ["BEGUN", "likeliest", "remark_if_far_below", "rows_seen", "without_latents"]

ELEMENTS, FEWEST_ROWS, STEPS = 2**19, 50, 300  # features at once, rows at least, steps at most
GAIN, PATIENCE = 1e-6, 10  # the ascent ends when so many steps in a row gain less, relatively
FAR_BELOW, PER_ELEMENT = 5.0, 0.5  # nats per datum, and for each of its elements
ODD_SCALE = 10.0  # how far from 0, and how many times wider or narrower than 1, data make a network's work hard
RISING, BEGUN = 0.01, 500  # the part of what is lacking that the last fifth still gained, in a fit of so many steps at least


def without_latents(model: Any, pair: Pair, data: Data) -> float | None:
    """The most that the likelihood reaches on the training rows without z, in nats per datum; ``None`` where it is no measure.

    That is so for plain programs, conditional models, codes without p(z), and parameters that carry priors. Of many rows some
    from all over the data are looked at; rows that have weights count by them.
    """
    if not isinstance(model, Model) or model.parameter_priors or pair.score != ELBO:
        return None
    likelihood = model.without_latents(data.spec)
    if likelihood is None:
        return None
    x, weights = rows_seen(data.train, likelihood.features)
    if model.relative_floor is not None:
        found = _likeliest_normals(x, floor=model.relative_floor, isotropic=model.isotropic, weights=weights)
    else:
        with seeded(0, data.train.device), torch.enable_grad():
            found = likeliest(likelihood, x, weights)
    return found + log_jacobian(pair, data.train) if math.isfinite(found) else None


def likeliest(likelihood: Likelihood, x: Tensor, weights: Tensor | None = None) -> float:
    """The highest mean of log p(x | h) over data x ``(N, *event)``, nearly, features and parameters alike for all.

    It is the weighted mean where there are weights ``(N,)``.

    Each is climbed by steps of its own length (Riedmiller and Braun 1993, "RPROP"), so that columns of any unit are reached.

    Examples:
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
        >>> round(likeliest(Bernoulli(), x), 4)  # log 1/2 of the first column, 0 of the second
        -0.6931
    """
    x = x.double()
    built = likelihood.build(tuple(x.shape[1:])).to(x)
    h = x.new_zeros(1, likelihood.features, *x.shape[1:]).requires_grad_()
    places: list[Tensor] = [h, *(parameter for parameter in built.parameters() if parameter.requires_grad)]
    slopes, lengths = ([torch.full_like(place, value) for place in places] for value in (0.0, 0.1))
    counts = [torch.zeros(()) for _ in places]
    best, idle = -math.inf, 0
    for _ in range(STEPS):
        density = built(h).log_prob(x)
        loss = -(density.mean() if weights is None else weights.to(density) @ density / weights.sum())
        if not bool(loss.isfinite()):
            break
        idle = idle + 1 if -loss.item() <= best + GAIN * max(1.0, abs(best)) else 0
        best = max(best, -loss.item())
        if idle == PATIENCE:
            break
        found = list(torch.autograd.grad(loss, places, allow_unused=True, materialize_grads=True))
        with torch.no_grad():
            rprop(places, found, slopes, lengths, counts, step_size_min=1e-12, step_size_max=1e9, etaminus=0.5, etaplus=1.2)
    return best


def remark_if_far_below(model: Any, method: Method, best: float | None, data: Data, history: list[Record]) -> bool:
    """Remark if a fit ends where no latent variable at all would have done much better, with the likeliest cause; if it did.

    Far is 5 nats per datum and half a nat for each of its elements, a density that is 1.6 times too low in each. Nothing is
    said of a fit that has only begun, and of which nothing is odd but that.
    """
    reached = history[-1].get("elbo", math.nan)
    if best is None or not math.isfinite(reached):
        return False
    lacking = best - reached
    if lacking <= FAR_BELOW + PER_ELEMENT * math.prod(data.spec.event_shape):
        return False
    steps = len(history) * method.steps_per_epoch(len(data.train))
    cause = _odd_scale(model, data) or (_other_cause(history, lacking) if steps >= BEGUN else "")
    if cause:
        warnings.warn(
            f"the fit ends at an ELBO of {reached:.5g} nats per datum, far below the {best:.5g} that the likelihood reaches "
            f"without latent variables, alike for all data. {cause}",
            FitWarning,
            stacklevel=5,
        )
    return bool(cause)


def _odd_scale(model: Model, data: Data) -> str:
    """That networks cannot reach what the model sees, and how they can, if it is so."""
    likelihood, free = model.without_latents(data.spec), model.free_units(data.spec.event_shape)
    scalable = free is not None or (likelihood is not None and likelihood.unit_free)
    x, _ = rows_seen(data.train, 1)
    columns = _odd_columns(x if free is None else x[:, free.to(x.device)]) if scalable else ""
    scale = "standardize" if free is None else "auto"
    return columns and (
        f"The model sees {columns}, which networks do not reach: load the data with scale={scale!r} (--data.scale {scale}), "
        "which changes the unit of no number"
    )


def _other_cause(history: list[Record], lacking: float) -> str:
    """What else is likely, and what helps against it."""
    climbed = [row["elbo"] for row in history if "elbo" in row]
    fifth = climbed[-1] - climbed[-1 - max(1, len(climbed) // 5)] if len(climbed) > 1 else math.inf
    if fifth > RISING * lacking:
        return "It was still rising: fit for more epochs"
    return "Lower the learning_rate, set clip_norm, or look at the data for entries that are no values"


def _likeliest_normals(x: Tensor, *, floor: float, isotropic: bool, weights: Tensor | None = None) -> float:
    """The same in closed form of normal columns ``(N, *event)``, whose floor is a share of their standard deviations."""
    x = x.double().flatten(1)
    if weights is None:
        mean, share = x.nanmean(0), (~x.isnan()).double().mean(0)
        variance = (x - mean).square().nanmean(0)
    else:
        w = torch.where(x.isnan(), 0.0, (weights / weights.sum()).to(x)[:, None])
        share = w.sum(0)
        mean = (w * x).nansum(0) / share
        variance = (w * (x - mean).square()).nansum(0) / share
    least = variance_floor(mean, variance, floor)
    if isotropic:
        pooled = torch.maximum((share * variance).sum() / share.sum(), common(least)).expand_as(variance)
    else:
        pooled = torch.maximum(variance, least)
    return -0.5 * float((share * ((2 * math.pi * pooled).log() + variance / pooled)).sum())


def _odd_columns(x: Tensor) -> str:
    """How far from zero, and how wide, the elements of x ``(N, *event)`` lie, if that is not of order one."""
    x = x.double().flatten(1)
    loc, number = x.nanmean(0), (~x.isnan()).sum(0)
    scale = ((x - loc).square().nansum(0) / number.clamp(min=1)).sqrt()
    varying = scale > 0
    if not bool(varying.any()):
        return ""
    loc, scale = loc[varying].abs().nan_to_num(0.0), scale[varying]
    if loc.max() <= ODD_SCALE and 1 / ODD_SCALE <= scale.max() <= ODD_SCALE:
        return ""
    spread = f"{scale.min():.3g}" if len(scale) == 1 else f"{scale.min():.3g} to {scale.max():.3g}"
    return f"columns as far from zero as {loc.max():.3g}, with standard deviations of {spread}"


def rows_seen(split: Split, features: int) -> tuple[Tensor, Tensor | None]:
    """Rows from all over a split, as the model sees them, so many that their features stay bounded; and their weights."""
    if split.weights is not None:
        split = split[split.weights > 0]
    most = max(FEWEST_ROWS, ELEMENTS // (features * math.prod(split.event_shape)))
    count = min(most, len(split), split.at_once)
    places = torch.linspace(0, len(split) - 1, count, dtype=torch.float64).long()
    some = split[places]
    return some.transformed(torch.Generator(split.device).manual_seed(0)), some.weights
