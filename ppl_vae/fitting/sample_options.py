"""How new data are to be drawn: what can be checked before any model is looked at."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from ppl_vae.fitting.inputs import Classes, Given
from ppl_vae.fitting.sequences import Beginning
from ppl_vae.text import as_line

__all__ = ["SampleOptions"]


LEFT_OUT = {
    "element after element": ("steps", "guidance"),
    "below their first lines": ("temperature", "top_p", "steps", "guidance"),
    "in steps": ("temperature", "top_p", "frame"),
    "from codes": (),
}
"""What each kind of drawing has no use for, of what the model itself does not refuse."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SampleOptions:
    """The arguments of :meth:`ppl_vae.Fit.sample`, which says what they mean.

    Raises:
        ValueError: fewer than one datum, or a temperature or a ``top_p`` that is no number or out of range.
    """

    n: int
    x: Given | None
    y: Classes | Mapping[str, Any] | None
    given: Beginning | None
    length: int | Sequence[int] | None
    temperature: float | Mapping[str, float]
    top_p: float
    steps: int | None
    guidance: float
    means: bool
    seed: int
    seen: bool
    frame: Any

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"expected to draw at least 1 datum, got n = {self.n}")
        told: Any = self.temperature
        temperatures = list(told.values()) if isinstance(told, Mapping) else [told]
        numbers = (*(("temperature", each) for each in temperatures), ("top_p", self.top_p), ("guidance", self.guidance))
        for name, value in numbers:
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ValueError(f"expected a number for {name}, got {as_line(repr(value))}")
        if not all(0 <= (low := each) < math.inf for each in temperatures):
            raise ValueError(f"expected a temperature of at least 0, got {low:g}")
        if not 0 <= self.guidance < math.inf:
            raise ValueError(f"expected a guidance of at least 0, which is none, got {self.guidance:g}")

    @property
    def begun(self) -> bool:
        """Whether anything is said of elements that come one after the other: how they begin, or how many they are."""
        return self.given is not None or self.length is not None

    @property
    def bold(self) -> dict[str, Any]:
        """How boldly elements are drawn, where that is not as they are distributed."""
        return {name: value for name, value in (("temperature", self.temperature), ("top_p", self.top_p)) if value != 1}

    def check_taken(self, how: str) -> None:
        """Raise ``ValueError`` for what this kind of drawing has no use for."""
        told = {"steps": self.steps is not None, "guidance": self.guidance != 0, "frame": self.frame is not None}
        told |= dict.fromkeys(self.bold, True)
        if unused := [name for name in LEFT_OUT[how] if told.get(name)]:
            raise ValueError(f"expected no {' or '.join(unused)} for data that are drawn {how}, got one: leave it out")

    def check_bold(self, *, of_rows: bool, tempered: bool) -> None:
        """Raise ``ValueError`` for elements drawn boldly of a model that cannot be told to.

        Args:
            of_rows: whether the model is one of rows; of another the temperature is of its latent variables.
            tempered: whether it can be told.
        """
        if (self.bold if of_rows else "top_p" in self.bold) and not tempered:
            raise ValueError(
                f"expected a causal network and a likelihood of tokens for {', '.join(self.bold)}, got another model"
            )
        if of_rows and isinstance(self.temperature, Mapping):
            raise ValueError("expected a number for the temperature of a model of rows, got one for each latent variable")
