"""What the training of a fit needs to know of how it was declared."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ppl_vae.inference.objectives import Objective
from ppl_vae.inference.training.sampling import Sampling
from ppl_vae.inference.training.schedules import OnNonFinite
from ppl_vae.program.capture import Compile
from ppl_vae.program.machine import Precision

__all__ = ["TrainingPlan"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How a pair is trained by gradient steps, whatever method asks for it.

    Attributes:
        objective: what is climbed.
        optimizer: a name of :data:`~ppl_vae.inference.training.optimizers.OPTIMIZERS`.
        epochs: passes over the training data.
        batch_size: B, data a step.
        learning_rate: of the first epoch.
        schedule: a name of :data:`~ppl_vae.inference.training.schedules.SCHEDULES`, by which it falls.
        clip_norm: gradients of a larger norm are scaled down to it.
        skip_norm: steps whose gradient has a larger norm are not taken.
        alternate: whether guide and model are trained by turns.
        encoder_steps: steps of the guide before each of the model, by turns of steps.
        patience: epochs without a better validation ELBO after which training stops.
        restore_best: whether it ends with the parameters of the best epoch.
        compile: whether steps are recorded and compiled.
        precision: of the networks' layers.
        on_nonfinite: what is done about a step that is not finite.
        sampling: how often each row is drawn in an epoch; ``None``: once.
        seed: of the order of the data.
    """

    objective: Objective
    optimizer: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    clip_norm: float | None
    skip_norm: float | None
    alternate: Literal["steps", "epochs"] | None
    encoder_steps: int
    patience: int | None
    restore_best: bool
    compile: Compile
    precision: Precision
    on_nonfinite: OnNonFinite
    sampling: Sampling | None
    seed: int
