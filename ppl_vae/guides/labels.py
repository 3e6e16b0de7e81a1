"""What guides of a class share that is observed where a row has a label: how it is drawn, and what known labels teach.

Of a row with a label y is that. Pyro sums over the classes of the others, so that no gradient is sampled through y.
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.program.base import GuideProgram
from ppl_vae.program.hooks import Start

__all__ = ["ClassGuide"]


class ClassGuide(GuideProgram):
    """A subclass says by ``class_given`` what q(y | h) is, h the data or a code of them.

    Args:
        model: with ``codes_of`` and ``classes``.
        size: N.
        weight: of the mean log q(y | h) of known labels, against nats per datum.
    """

    rows_per_label: Tensor

    def __init__(self, model: Any, size: int | None, weight: float) -> None:
        super().__init__()
        self.size = size
        self.weight = weight
        self._model = (model,)  # in a tuple, so that its parameters are not listed twice
        self.register_buffer("rows_per_label", torch.ones(()))

    def class_given(self, h: Tensor) -> dist.Distribution:
        """q(y | h), one-hot."""
        raise NotImplementedError

    def class_of(self, h: Tensor, *labels: Tensor) -> dist.Distribution:
        """q(y | h), or certain where there are labels."""
        return dist.OneHotCategorical(probs=self._model[0].codes_of(*labels)) if labels else self.class_given(h)

    def draw_class(self, h: Tensor, *labels: Tensor) -> Tensor:
        """Inside the program: the classes of labels, else every class, for Pyro to sum over."""
        if not labels:
            proposed: Tensor = pyro.sample("y", self.class_given(h), infer={"enumerate": "parallel"})
            return proposed
        y: Tensor = self._model[0].codes_of(*labels)
        if self.weight:  # what the guide observes is a loss beside the ELBO
            gain = self.weight * self.rows_per_label * self.class_given(h).log_prob(y)
            # Like pyro.factor, of which TraceMeanField_ELBO takes only what is a part of log q.
            loss = dist.Delta(torch.zeros_like(gain), log_density=-gain)
            pyro.sample("classified", loss, obs=loss.v, infer={"is_auxiliary": True})
        return y

    def start_fit(self, context: Start) -> None:
        """Count the training rows for each one with a label, each by its weight."""
        split = context.split
        found = float(split.has_label.sum()) if split.weights is None else float(split.weights[split.has_label].sum())
        self.rows_per_label.fill_(split.total / (found or 1.0))
