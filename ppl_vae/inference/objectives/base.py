"""What every objective declaration offers."""

from __future__ import annotations

import abc
import dataclasses
from typing import NamedTuple

from torch import Tensor, nn

from ppl_vae.declaration import Declaration
from ppl_vae.pair import Pair

__all__ = ["Estimate", "Objective"]


class Estimate(NamedTuple):
    """What an objective finds of a batch: scalars in nats per datum.

    ``loss`` is what gradient descent minimizes, minus what is climbed; ``elbo`` is an estimate of the ELBO, whatever is
    climbed, and ``reconstruction`` one of its half E_q[log p(x | z)], both detached.
    """

    loss: Tensor
    elbo: Tensor
    reconstruction: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(Declaration, abc.ABC):
    """A bound on log p(x), or what else a pair is trained to maximize."""

    @property
    def ramp(self) -> float:
        """Epochs until what is climbed no longer changes."""
        return 0.0

    @property
    def draws(self) -> int:
        """S, samples of the latent variables of each datum in a step."""
        return int(getattr(self, "samples", getattr(self, "particles", 1)))

    @abc.abstractmethod
    def build(self, pair: Pair, steps_per_epoch: int = 1) -> nn.Module:
        """A module called with a batch that returns an :class:`Estimate`.

        Args:
            pair: model and guide.
            steps_per_epoch: what an objective that changes with the epochs counts by; it counts its calls in training mode, in
                a buffer.
        """
