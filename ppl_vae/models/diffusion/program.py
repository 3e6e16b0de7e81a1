"""The program of a diffusion: a chain of T factors in a sub-sampled plate (Sohl-Dickstein et al. 2015; Kingma et al. 2021).

for n in 1..N:
z_T ~ Normal(0, I)
z_s ~ p(z_s | z_t),  s = t - 1/T, t = 1, 1 - 1/T, ..., 1/T    by the denoiser
x ~ p(x | z_0)

A run sees one step of each datum, at a time t that it draws; the plate over steps makes it count T times. So Pyro's ELBO of the
pair, with the KL of z_T and of z_s in closed form, is an unbiased estimate of

    ELBO = E[log p(x | z_0)] - KL(q(z_T | x) || p(z_T)) - sum_t E[KL(q(z_s | z_t, x) || p(z_s | z_t))]

The site z_s stands in coordinates in which its factors are u of :mod:`ppl_vae.models.diffusion.steps`. The values z_0 and z_t
that x and the step hang on count for nothing by themselves, in either program: what they cost is in the sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.models.diffusion.denoiser import Denoiser
from ppl_vae.models.diffusion.ends import Centred, Features, count_levels, least_gamma
from ppl_vae.models.diffusion.noising import NoisingProgram
from ppl_vae.models.diffusion.prediction import Direct, LevelMeans
from ppl_vae.models.diffusion.steps import SpreadTimes, Step, alpha, over, sigma
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec

__all__ = ["DiffusionProgram"]

AT_ONCE = 2**20  # elements of noisy data that are denoised together
WIDER: dict[str, Callable[[Tensor], Any]] = {"lower": torch.zeros_like, "upper": torch.ones_like, "learned": lambda raw: raw}
"""Where the scale of a step back lies between the two usual ones, on a logarithmic scale, from what is learned of it."""


class DiffusionProgram(ModelProgram):
    """p(x, z_0, ..., z_T).

    Attributes:
        steps: T.
        noise: gamma, from times to minus log signal-to-noise ratios.
        centred: from x to what noise is added to.
        denoiser: from z_t and t to what is predicted.
        width: how many numbers that is of a datum.
    """

    drawn_from = "the chain of its steps"
    noise: Any
    denoiser: Any
    features: Any
    likelihood: Any
    first: Tensor
    one_step: Tensor

    def __init__(self, declared: Any, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.steps: int = declared.steps
        self.variance: str = declared.variance
        self.event_shape = spec.event_shape
        self.event_dim = len(spec.event_shape)
        self.centred = Centred(declared.likelihood, spec)
        low = least_gamma(declared.likelihood, spec)
        self.noise = declared.noise.build(low)
        period = 2 * 3 * math.exp(low / 2) if declared.fourier else 0.0
        self.prediction = self._prediction(declared, spec)
        outputs = self.prediction.outputs + (declared.variance == "learned")
        self.width = outputs * math.prod(spec.event_shape)
        self.denoiser = Denoiser(declared.denoiser, spec.event_shape, outputs, period)
        self.features = Features(declared.likelihood, declared.decoder, self.centred, spec)
        self.likelihood = declared.likelihood.build(spec.event_shape)
        self.register_buffer("first", torch.zeros(()), persistent=False)
        self.register_buffer("one_step", torch.zeros(1, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Any:
        """The story of one step of each datum, with the batch x ``(B, *event)`` observed."""
        standard = self.standard
        with data_plate(self.size, x):
            time = pyro.sample("time", SpreadTimes(self.first))
            with uncounted():
                z_0 = pyro.sample("z_0", standard)
            pyro.sample("z_T", standard)
            with self.plate():
                with uncounted():
                    z_t = pyro.sample("z_t", standard)
                pyro.sample("z_s", self.reverse(z_t, self.place(time)))
            return pyro.sample("x", self.likelihood_at(z_0), obs=x)

    def noising(self, spec: DataSpec) -> nn.Module:
        """The guide."""
        return NoisingProgram(self, spec)

    def plate(self) -> Any:
        """The plate over T steps, of which a run sees one."""
        return pyro.plate("steps", self.steps, subsample=self.one_step, dim=-2)

    def _prediction(self, declared: Any, spec: DataSpec) -> Any:
        """From what the denoiser finds to x'."""
        if declared.predicts != "levels":
            return Direct(declared.predicts, self.event_dim)
        levels = count_levels(declared.likelihood, spec)
        if levels == 1:
            raise ValueError(f"expected data of levels or bits for predicts='levels', got {spec.kind}: predict the velocity")
        return LevelMeans(self.centred(torch.arange(levels, dtype=self.centred.loc.dtype)), self.event_dim)

    @property
    def standard(self) -> dist.Distribution:
        """The density of pure noise."""
        return dist.Normal(self.first.expand(self.event_shape), 1.0).to_event(self.event_dim)

    def place(self, time: Tensor) -> Tensor:
        """The number of the step at each time, from 1 to T, as floating-point numbers."""
        return (time * self.steps).ceil().clamp(1, self.steps)

    def step(self, place: Tensor) -> Step:
        """The step of this number."""
        return Step(self.noise((place - 1) / self.steps), self.noise(place / self.steps))

    def ends(self) -> tuple[Tensor, Tensor]:
        """gamma(0) and gamma(1)."""
        return self.noise(self.first), self.noise(self.first + 1)

    def reverse(self, z: Tensor, place: Tensor) -> dist.Distribution:
        """p(z_s | z_t), as that of u, for z_t ``(..., *event)`` and steps ``(...)``."""
        step = self.step(place)
        found = self.denoiser(z, place / self.steps)
        axis = -1 - self.event_dim
        known, raw = found.split([self.prediction.outputs, found.shape[axis] - self.prediction.outputs], axis)
        loc = self.prediction(z, known, step.gamma_t)
        wider = over(step.log_ratio, self.event_dim) * WIDER[self.variance](raw.sum(axis))
        return dist.Normal(loc, over(step.scale, self.event_dim) * wider.exp()).to_event(self.event_dim)

    def likelihood_at(self, z: Tensor) -> dist.Distribution:
        """p(x | z_0) for z_0 ``(..., *event)``."""
        return self.likelihood(self.features(z, self.ends()[0]))

    @torch.no_grad()
    def ancestral(self, n: int) -> Tensor:
        """So many new data ``(n, *event)``, z_T first, then step by step."""
        places = torch.arange(self.steps, 0, -1, device=self.first.device).to(self.first)

        def run(z: Tensor) -> Tensor:
            for place in places:
                z = self.step(place).back(z, self.reverse(z, place).sample(), self.event_dim)
            return z

        return self._in_pieces(n, run)

    @torch.no_grad()
    def drawn_in(self, n: int, steps: int) -> Tensor:
        """So many new data ``(n, *event)`` in fewer steps without noise of their own, DDIM (Song, Meng and Ermon 2021).

        Each goes from t to any s < t: z_s = alpha_s x' + sigma_s epsilon', with the noise epsilon' that goes with x' at z_t.

        Raises:
            ValueError: fewer than one step, or more than T.
        """
        if not 1 <= steps <= self.steps:
            raise ValueError(f"expected from 1 to {self.steps} steps, which this diffusion has, got {steps}")
        ends = torch.linspace(self.steps, 0, steps + 1, dtype=torch.float64).round().to(self.first)

        def run(z: Tensor) -> Tensor:
            for place, before in itertools.pairwise(ends):
                x, gamma = self._denoised(z, place), self.noise(place / self.steps)
                end = self.noise(before / self.steps)
                z = alpha(end) * x + sigma(end) * (z - alpha(gamma) * x) / sigma(gamma)
            return z

        return self._in_pieces(n, run)

    def _denoised(self, z: Tensor, place: Tensor) -> Any:
        return self.reverse(z, place).base_dist.loc

    def _in_pieces(self, n: int, run: Callable[[Tensor], Tensor]) -> Tensor:
        """New data from what ``run`` makes of noise z_T, in pieces that fit."""
        most = max(1, AT_ONCE // self.width)
        sizes = (min(most, n - done) for done in range(0, n, most))
        return torch.cat([self.likelihood_at(run(self.standard.sample((rows,)))).sample() for rows in sizes])


def uncounted() -> Any:
    """A site inside has no term in either program."""
    return poutine.mask(mask=False)
