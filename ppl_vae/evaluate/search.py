"""How the best q of a guide's family is looked for, declared; :mod:`ppl_vae.evaluate.gaps` does it."""

from __future__ import annotations

import dataclasses
import math

from ppl_vae.declaration import Declaration, require

__all__ = ["Gaps"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaps(Declaration):
    """How the best q of a guide's family is looked for, for each datum: Adam on what the encoder gives, from there.

    The learning rate is cut to a third when the mean ELBO over a window of steps is not above the best window before by more
    than the tolerance. The search ends with the third cut, or after ``max_steps``; q* has the mean of the parameters over the
    last window. What the guide's networks share between data, such as the maps of a flow, stays as it is.

    Args:
        samples: S of a step's gradient, where the ELBO has no closed form.
        learning_rate: of the first steps.
        window: steps.
        tolerance: in nats per datum.
        max_steps: the most steps for one batch of data.

    Raises:
        ValueError: a number out of range.
    """

    samples: int = 16
    learning_rate: float = 0.03
    window: int = 50
    tolerance: float = 0.01
    max_steps: int = 2000

    def __post_init__(self) -> None:
        require(self.samples >= 1, "at least 1 sample", self.samples)
        require(0 < self.learning_rate < math.inf, "a positive learning_rate", self.learning_rate)
        require(self.window >= 1, "a window of at least 1 step", self.window)
        require(self.tolerance >= 0, "a tolerance of at least 0", self.tolerance)
        require(self.max_steps >= self.window, "max_steps of at least one window", self.max_steps)
