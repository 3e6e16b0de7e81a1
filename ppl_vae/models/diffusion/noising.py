"""The guide of a diffusion: noise is added, by nothing that is learned but the schedule, where that is.

q(z_t | x) = Normal(alpha_t x', sigma_t^2),   q(z_s | z_t, x): u ~ Normal(x', 1 / (SNR_s - SNR_t))
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.models.diffusion.steps import SpreadTimes, alpha, over, sigma
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec, ELBOTerms

__all__ = ["NoisingProgram"]

AT_ONCE = 2**20  # elements of noisy data that are denoised together


class NoisingProgram(GuideProgram):
    """q(z_0, ..., z_T | x); the model is the only owner of parameters."""

    bound_parts = ("kl_prior", "kl_steps")

    def __init__(self, model: Any, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self._model = (model,)  # in a tuple, so that its parameters are not listed twice

    @property
    def model(self) -> Any:
        """The diffusion."""
        return self._model[0]

    def forward(self, x: Tensor) -> None:
        """Draw what one step of each datum of the batch x ``(B, *event)`` takes."""
        model = self.model
        centred = model.centred(x)
        first, last = model.ends()
        with data_plate(self.size, x):
            time = pyro.sample("time", SpreadTimes(model.first))
            with poutine.mask(mask=False):
                pyro.sample("z_0", self.noisy(centred, first))
            pyro.sample("z_T", self.noisy(centred, last))
            with model.plate():
                step = model.step(model.place(time))
                with poutine.mask(mask=False):
                    pyro.sample("z_t", self.noisy(centred, step.gamma_t))
                scale = over(step.scale, model.event_dim)
                pyro.sample("z_s", dist.Normal(centred, scale).to_event(model.event_dim))

    def noisy(self, centred: Tensor, gamma: Tensor) -> dist.Distribution:
        """q(z_t | x) for x' ``(..., *event)`` and gamma ``(...)``."""
        event_dim = self.model.event_dim
        return dist.Normal(over(alpha(gamma), event_dim) * centred, over(sigma(gamma), event_dim)).to_event(event_dim)

    def posterior(self, *batch: Tensor) -> Any:
        """There is no code.

        Raises:
            ValueError: always.
        """
        raise ValueError("the latent variables of a diffusion are the data with noise, which are no codes of them")

    @property
    def summed_elements(self) -> int:
        """Those that are predicted at all steps."""
        return int(self.model.steps * self.model.width)

    @torch.no_grad()
    def summed_bound(self, x: Tensor, *, samples: int = 1) -> tuple[ELBOTerms, tuple[Tensor, ...]]:
        """The ELBO of each datum of x ``(B, *event)`` with all T steps summed; its KL of the prior and of the steps ``(B,)``.

        Args:
            x: data.
            samples: draws of the noise at each step.
        """
        model = self.model
        centred = model.centred(x)
        first, last = model.ends()
        prior = kl_divergence(self.noisy(centred, last), model.standard.expand((len(x),)))
        z_0 = self.noisy(centred, first).rsample((samples,))
        reconstruction = model.likelihood_at(z_0).log_prob(x).mean(0)
        at_once = max(1, AT_ONCE // (len(x) * model.width))
        steps = x.new_zeros(len(x))
        for _ in range(samples):
            for start in range(1, model.steps + 1, at_once):
                places = torch.arange(start, min(start + at_once, model.steps + 1), device=x.device)
                steps += self._costs(centred, places.to(centred)[:, None]).sum(0)
        steps = steps / samples
        kl = prior + steps
        return ELBOTerms(reconstruction - kl, reconstruction, kl), (prior, steps)

    def _costs(self, centred: Tensor, places: Tensor) -> Tensor:
        """The KL of steps ``(S, 1)`` at a draw of z_t each, ``(S, B)``."""
        model = self.model
        step = model.step(places)
        z = self.noisy(centred, step.gamma_t).rsample()
        q = dist.Normal(centred, over(step.scale, model.event_dim)).to_event(model.event_dim)
        return kl_divergence(q, model.reverse(z, places.expand(z.shape[: z.dim() - model.event_dim])))
