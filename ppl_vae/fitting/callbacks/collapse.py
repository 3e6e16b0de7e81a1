"""Posterior collapse as it happens: a latent variable that tells nothing of the data, why, and what to do about it.

Bowman et al. (2016) saw it first, Lucas et al. (2019) explain it by the likelihood's scale, He et al. (2019) by a guide that
lags behind the decoder. What is looked at are numbers that the history has anyway.
"""

from __future__ import annotations

import math
import warnings
from typing import Protocol, runtime_checkable

import torch

from ppl_vae.fitting.callbacks.base import Callback, FitContext
from ppl_vae.fitting.callbacks.remedies import remedies
from ppl_vae.guides import AmortizedNormal
from ppl_vae.likelihoods import Likelihood
from ppl_vae.models import Model
from ppl_vae.types import FitWarning, Record

__all__ = ["CollapseMonitor"]

NEGLIGIBLE = 0.05  # nats per datum
EPOCHS, STEPS = 3, 500  # for so long at least
HAD = 1.0  # nats per datum that were there before, if it fell
FEW = 0.1  # of the latent dimensions


@runtime_checkable
class _Decoded(Protocol):
    """A declared model that has its likelihood as a field."""

    likelihood: Likelihood


@runtime_checkable
class _Scaled(Protocol):
    """A declared likelihood whose scale is learned, or fixed at a value."""

    scale: str
    value: float


class CollapseMonitor(Callback):
    """Sees the rows of one history; remarks once that the posterior has collapsed."""

    _done = True

    def begin(self, context: FitContext) -> None:
        """Find out whether there is a code to lose, and how long to wait."""
        pair, method = context.pair, context.method
        self._context = context
        self._objective = method.objective
        self._ramp = method.ramp
        self._floor = context.guide.min_kl if isinstance(context.guide, AmortizedNormal) else 0.0
        continuous = pair.can.generate is not None and pair.can.generate.latent == "continuous" and pair.can.encode is not None
        self._done = self._objective is None or not continuous or pair.guide_facts.point
        self._wait = max(EPOCHS, math.ceil(STEPS / method.steps_per_epoch(len(context.data.train))))
        self._since: int | None = None
        self._highest = 0.0

    def record(self, row: Record) -> None:
        """Look at a row; say it if it is time."""
        if self._done or self._objective is None or row["epoch"] <= self._ramp or "kl" not in row:
            return
        kl: float = row["valid_kl"] if "valid_kl" in row else row["kl"]
        symptom = self._symptom(row, kl)
        if symptom is None:
            self._since, self._highest = None, max(self._highest, kl)
            return
        self._since = self._since or row["epoch"]
        if row["epoch"] - self._since + 1 >= self._wait:
            self._done = True
            cause, remedy = self._cause(row)
            warnings.warn(f"the posterior has collapsed: {symptom}. {cause}: {remedy}", FitWarning, stacklevel=2)

    def _symptom(self, row: Record, kl: float) -> str | None:
        """What is wrong with this epoch."""
        if kl - self._floor < NEGLIGIBLE:
            above = f", {self._floor:g} of them its min_kl" if self._floor else ""
            return f"its KL from the prior is {max(kl, 0.0):.3f} nats per datum{above}, so z tells nothing of x"
        sites = self._context.pair.model_facts.sites
        active, units = row.get("valid_active_units"), sum(math.prod(site.event_shape) for site in sites.values())
        if active is not None and active < FEW * units:
            return f"{active} of {units} latent dimensions vary with the data"
        return None

    def _cause(self, row: Record) -> tuple[str, str]:
        """The likeliest cause that can be seen, and what helps against it."""
        if self._objective is not None and (heavy := self._objective.heavy_kl):
            return heavy
        if self._highest > HAD:
            return (
                f"The KL was {self._highest:.1f} and fell by epoch {self._since}, as after steps that are too long",
                f"lower the learning_rate (now {row.get('learning_rate', math.nan):.2g}), or set clip_norm",
            )
        if fixed := self._wide_scale():
            return fixed, 'learn it (scale="shared"), or fix it at the size of the noise'
        remedy = remedies(self._context)
        if isinstance(self._context.model, Model) and self._context.model.takes_ragged:
            return "The decoder learns from the elements before each what z could tell it", remedy
        model = self._context.pair.model_facts
        if model.labelled or model.covariates or model.known_entries is not None:
            return "The condition tells the decoder what z could", remedy
        return (
            "It has been so from the first epochs on, as where the decoder learns to do without z before the guide can tell it "
            "anything, or where the data have no structure to tell"
        ), remedy

    def _wide_scale(self) -> str | None:
        """A fixed scale of the likelihood that covers all that varies in the data."""
        model = self._context.model
        likelihood = model.likelihood if isinstance(model, Model) and isinstance(model, _Decoded) else None
        if not isinstance(likelihood, _Scaled) or likelihood.scale != "fixed":
            return None
        rows = self._context.data.train[:1000]
        x = rows.transformed(torch.Generator(rows.device).manual_seed(0))
        spread = x.flatten(1).std(0).square().mean().sqrt().item()
        if likelihood.value < spread:
            return None
        return f"The likelihood's fixed scale of {likelihood.value:g} covers the data's standard deviation of {spread:.2g}"
