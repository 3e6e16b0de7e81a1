"""What every objective declaration offers."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple

from pyro import infer
from torch import Tensor, nn

from ppl_vae.declaration import Declaration
from ppl_vae.program.pair import Pair

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

    @classmethod
    def takes(cls, value: Any) -> bool:
        """A loss in Pyro's form may stand for an objective."""
        return isinstance(value, (cls, infer.ELBO)) or (callable(value) and not isinstance(value, type))

    @property
    def ramp(self) -> float:
        """Epochs until what is climbed no longer changes."""
        return 0.0

    @property
    def draws(self) -> int:
        """S, samples of the latent variables of each datum in a step."""
        return 1

    @property
    def heavy_kl(self) -> tuple[str, str] | None:
        """Whether the KL counts for more than in the ELBO: how, and what helps if the posterior collapses by it, in words."""
        return None

    @property
    def tells_elbo(self) -> bool:
        """Whether its estimates hold the ELBO."""
        return True

    @property
    def bounds(self) -> bool:
        """Whether it is about log p(x), so that the log-determinant of the data's transform is part of it."""
        return True

    @property
    def recordable(self) -> bool:
        """Whether its steps may be recorded."""
        return True

    @property
    def takes_weights(self) -> bool:
        """Whether the terms of rows that have weights count by them, see :mod:`ppl_vae.program.weighing`."""
        return False

    @property
    def adds_up(self) -> bool:
        """Whether what it finds of a batch is the mean of what it finds of its rows, so that processes can share a batch."""
        return False

    @property
    def honours_baselines(self) -> bool:
        """Whether it reads the guide's ``infer={"baseline": ...}``."""
        return False

    @property
    def remark(self) -> str:
        """What a fit by it has to tell, if anything."""
        return ""

    @property
    def name(self) -> str:
        """What the history calls it, if it is not ours."""
        return ""

    @abc.abstractmethod
    def build(self, pair: Pair, steps_per_epoch: int = 1) -> nn.Module:
        """A module called with a batch that returns an :class:`Estimate`.

        Args:
            pair: model and guide.
            steps_per_epoch: what an objective that changes with the epochs counts by; it counts its calls in training mode, in
                a buffer.
        """
