"""How an annealed run is laid out: the declaration, and the powers b_0 < ... < b_T of the likelihood."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from ppl_vae.declaration import Declaration, require

__all__ = ["AIS", "PILOT", "spaced"]

PILOT = 4  # temperatures of the run for each one of the pilot run
STEEPNESS = 4.0  # of the sigmoid


@dataclasses.dataclass(frozen=True, kw_only=True)
class AIS(Declaration):
    """Annealed importance sampling by Hamiltonian Monte Carlo (Neal 2001; Wu, Burda, Salakhutdinov and Grosse 2017).

    Step sizes, one for each datum and temperature, come from a pilot run of a quarter of the temperatures, which steers its
    chains' acceptance to 0.65; the run proper takes them as given, so that its weights are unbiased.

    Args:
        temperatures: T, the number of intermediate distributions.
        chains: of each datum; the log of their mean weight is the bound. The sandwich takes at least two.
        leapfrog: steps of each Hamiltonian trajectory.
        schedule: of b_t: ``linear``; ``sigmoid``, slow at both ends (Grosse et al. 2015); or ``adaptive``, steps of equal
            length in standard deviations of log p(x | u), which is least variance (Gelman and Meng 1998), by the pilot run.
        simulated: data simulated from the model for the sandwich, at most as many as are evaluated; 0 for no sandwich.

    Raises:
        ValueError: a number out of range, or an unknown schedule.
    """

    temperatures: int = 1000
    chains: int = 16
    leapfrog: int = 5
    schedule: Literal["adaptive", "sigmoid", "linear"] = "adaptive"
    simulated: int = 100

    def __post_init__(self) -> None:
        require(self.temperatures >= 2, "at least 2 temperatures", self.temperatures)
        require(self.chains >= 1, "at least 1 chain", self.chains)
        noisy = self.chains >= 2 or self.simulated == 0
        require(noisy, "at least 2 chains, whose spread widens the sandwich, or simulated=0", self.chains)
        require(self.leapfrog >= 1, "at least 1 leapfrog step", self.leapfrog)
        schedules = ("adaptive", "sigmoid", "linear")
        require(self.schedule in schedules, f"a schedule of {', '.join(schedules)}", self.schedule)
        require(self.simulated >= 0, "0 simulated data or more", self.simulated)

    def powers(self, count: int | None = None) -> list[float]:
        """B_0 to b_T, from 0 to 1; if they are adaptive, those of the pilot run.

        Args:
            count: T, by default the declared one.

        Examples:
            >>> AIS(schedule="linear").powers(4)
            [0.0, 0.25, 0.5, 0.75, 1.0]
        """
        import torch

        places = torch.linspace(0, 1, (count or self.temperatures) + 1, dtype=torch.float64)
        if self.schedule != "linear":
            places = torch.sigmoid(STEEPNESS * (2 * places - 1))
            places = (places - places[0]) / (places[-1] - places[0])
        return places.tolist()


def spaced(powers: list[float], spreads: list[float], ais: AIS) -> list[float]:
    """Powers from 0 to 1 whose steps are equally long in standard deviations, which are given at other powers."""
    lengths = np.diff(powers) * (np.array(spreads[1:]) + spreads[:-1]) / 2
    covered = np.concatenate([[0.0], np.cumsum(lengths)])
    if not 0 < covered[-1] < math.inf:  # of a single chain
        return ais.powers()
    return np.interp(np.linspace(0, covered[-1], ais.temperatures + 1), covered, powers).tolist()
