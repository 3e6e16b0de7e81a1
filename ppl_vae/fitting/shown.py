"""What a notebook shows of a fit: its story, its numbers, its data and its curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ppl_vae.data import DataSource
from ppl_vae.fitting.table import short
from ppl_vae.inference.methods.base import Method
from ppl_vae.notebook import box, curves, table
from ppl_vae.types import DataSpec, Record, Score, pass_name

__all__ = ["Shown"]


class Shown:
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that notebooks ask for."""

    model: Any
    guide: Any
    method: Method
    data: DataSource
    spec: DataSpec
    history: list[Record]
    score: Score
    without_latents: float | None

    def _repr_html_(self) -> str:
        last = self.history[-1] if self.history else {}
        numbers = {name: f"{value:.4g}" for name, value in last.items() if isinstance(value, float)}
        best = {} if self.without_latents is None else {"without latent variables": f"{self.without_latents:.4g}"}
        told = {
            "model": self.model,
            "guide": self.guide,
            "method": short(self.method),
            "data": f"{self.data.source}: {self.spec.size} training rows of shape {self.spec.event_shape}, {self.spec.kind}",
            f"{pass_name(self.history)}s": len(self.history),
        }
        reached = table({**numbers, **best}, "nats per datum, in the last row of the history")
        return box("Fit", table(told), reached, self._curve())

    def _curve(self) -> str:
        name = self.score.name
        both = {self.score.label: name, f"{self.score.label}, validation data": f"valid_{name}"}
        return curves({label: _column(self.history, column) for label, column in both.items()})


def _column(history: Sequence[Record], name: str) -> list[float]:
    return [float(row.get(name, math.nan)) for row in history]
