"""Posterior collapse as it happens: a latent variable that tells nothing of the data, why, and what to do about it.

Bowman et al. (2016) saw it first, Lucas et al. (2019) explain it by the likelihood's scale, He et al. (2019) by a guide that
lags behind the decoder. What is looked at are numbers that the history has anyway.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

from ppl_vae.data import Data
from ppl_vae.inference.methods.base import Method
from ppl_vae.program.pair import Pair
from ppl_vae.types import Remark, Row

__all__ = ["CollapseWatch"]

NEGLIGIBLE = 0.05  # nats per datum
EPOCHS, STEPS = 3, 500  # for so long at least
HAD = 1.0  # nats per datum that were there before, if it fell
FEW = 0.1  # of the latent dimensions


class CollapseWatch:
    """Sees the rows of one history; remarks once that the posterior has collapsed.

    Args:
        model: the declaration, or a plain Pyro program.
        pair: what is fitted.
        method: how.
        data: to what.
    """

    def __init__(self, model: Any, pair: Pair, method: Method, data: Data) -> None:
        self._units = sum(math.prod(site.event_shape) for site in pair.model_facts.sites.values())
        self._likelihood: Any = getattr(model, "likelihood", None)
        self._pair, self._method, self._data = pair, method, data
        objective = getattr(method, "objective", None)
        continuous = getattr(pair.model, "latent", None) == "continuous" and hasattr(pair.guide, "posterior")
        point = getattr(pair.guide, "point", False) or hasattr(pair.model, "fit_codes")
        self._done = objective is None or not continuous or point
        self._ramp = getattr(objective, "ramp", 0.0)
        steps = math.ceil(len(data.train) / getattr(method, "batch_size", len(data.train)))
        self._wait = max(EPOCHS, math.ceil(STEPS / steps))
        self._since: int | None = None
        self._highest = 0.0

    def __call__(self, row: Row) -> None:
        """Look at a row; say it if it is time."""
        if self._done or row["epoch"] <= self._ramp or "kl" not in row:
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
            warnings.warn(f"the posterior has collapsed: {symptom}. {cause}: {remedy}", Remark, stacklevel=2)

    def _symptom(self, row: Row, kl: float) -> str | None:
        """What is wrong with this epoch."""
        if kl < NEGLIGIBLE:
            return f"its KL from the prior is {max(kl, 0.0):.3f} nats per datum, so z tells nothing of x"
        active, units = row.get("valid_active_units"), self._units
        if active is not None and active < FEW * units:
            return f"{active} of {units} latent dimensions vary with the data"
        return None

    def _cause(self, row: Row) -> tuple[str, str]:
        """The likeliest cause that can be seen, and what helps against it."""
        objective: Any = getattr(self._method, "objective", None)
        if getattr(objective, "beta", 1.0) > 1 and getattr(objective, "capacity", None) is None:
            return f"beta = {objective.beta:g} weighs the KL above the ELBO", "lower it, or give it a capacity"
        if self._highest > HAD:
            return (
                f"The KL was {self._highest:.1f} and fell by epoch {self._since}, as after steps that are too long",
                f"lower the learning_rate (now {row.get('learning_rate', math.nan):.2g}), or set clip_norm",
            )
        if fixed := self._wide_scale():
            return fixed, 'learn it (scale="shared"), or fix it at the size of the noise'
        remedy = "warm the KL up (BetaELBO(warm_up=LinearWarmUp(...))), ask for free_bits, or weaken the decoder"
        if self._pair.model_facts.labelled or self._pair.model_facts.known_entries is not None:
            return "The condition tells the decoder what z could", remedy
        return (
            "It has been so from the first epochs on, as where the decoder learns to do without z before the guide can tell it "
            "anything, or where the data have no structure to tell"
        ), remedy

    def _wide_scale(self) -> str | None:
        """A fixed scale of the likelihood that covers all that varies in the data."""
        if getattr(self._likelihood, "scale", None) != "fixed":
            return None
        rows = self._data.train[:1000]
        x = rows.transformed(torch.Generator(rows.device).manual_seed(0))
        spread = x.flatten(1).std(0).square().mean().sqrt().item()
        if self._likelihood.value < spread:
            return None
        return (
            f"The likelihood's fixed scale of {self._likelihood.value:g} covers the data's standard deviation of {spread:.2g}"
        )
