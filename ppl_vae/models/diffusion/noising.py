"""The guide of a diffusion: noise is added, by nothing that is learned but the schedule, where that is.

q(z_t | x) = Normal(alpha_t x', sigma_t^2),   q(z_s | z_t, x): u ~ Normal(x', 1 / (SNR_s - SNR_t))

A model given classes that is also to know data without them (Ho and Salimans 2022) is trained on the labels as they are, and
beside that on a share of each batch without: of a dropout p, the KL without labels counts p / (1 - p) times, which is what
leaving out labels with the probability p comes to. It is a loss beside the ELBO, and no part of this.
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.models.diffusion.steps import AT_ONCE, SpreadTimes, alpha, over, sigma
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec, ELBOTerms

__all__ = ["NoisingProgram"]

TIMES = 128  # of continuous time in a sum, one in each of as many equal parts


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

    def forward(self, x: Tensor, *labels: Tensor) -> None:
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
                    z_t = pyro.sample("z_t", self.noisy(centred, step.gamma_t))
                scale = over(step.scale, model.event_dim)
                pyro.sample("z_s", dist.Normal(centred, scale).to_event(model.event_dim))
            if labels and model.label_dropout and model.training and torch.is_grad_enabled():
                loss = self._without_labels(centred, time, z_t)
                # Like pyro.factor, of which TraceMeanField_ELBO takes only what is a part of log q.
                beside = dist.Delta(torch.zeros_like(loss), log_density=loss)
                pyro.sample("unlabelled_loss", beside, obs=beside.v, infer={"is_auxiliary": True})

    def _without_labels(self, centred: Tensor, time: Tensor, z: Tensor) -> Tensor:
        """What the rows cost without labels, p / (1 - p) times ``(..., B)``, from a random share of them."""
        model, rows = self.model, len(centred)
        p = model.label_dropout
        count = max(1, round(p * rows))
        chosen = torch.randperm(rows, device=centred.device)[:count]
        place, z = model.place(time)[..., chosen], z.index_select(-1 - model.event_dim, chosen)
        costs = kl_divergence(self._back(centred[chosen], place), model.reverse(z, place, *model.of_labels()))
        weight = model.steps * p / (1 - p) * rows / count
        return costs.new_zeros(*costs.shape[:-1], rows).index_copy(-1, chosen, weight * costs)

    def _back(self, centred: Tensor, place: Tensor) -> dist.Distribution:
        """q(z_s | z_t, x) as that of u."""
        event_dim = self.model.event_dim
        return dist.Normal(centred, over(self.model.step(place).scale, event_dim)).to_event(event_dim)

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
        """Those that are predicted at all steps, or at the times that stand for them."""
        return int((TIMES if self.model.continuous else self.model.steps) * self.model.width)

    @torch.no_grad()
    def summed_bound(self, x: Tensor, *labels: Tensor, samples: int = 1) -> tuple[ELBOTerms, tuple[Tensor, ...]]:
        """The ELBO of each datum of x ``(B, *event)`` with all T steps summed; its KL of the prior and of the steps ``(B,)``.

        In continuous time the integral is drawn, at one time in each of 128 equal parts, each datum its own: the mean of it is
        without bias, and its standard error over the data tells of both.

        Args:
            x: data.
            labels: of the data ``(B,)``, where they have some.
            samples: draws of the noise at each step.

        Raises:
            ValueError: data without labels, of which the model learned nothing.
        """
        model = self.model
        if not labels:
            model.check_without_labels("data without labels")
        known = model.of_labels(*labels)
        centred = model.centred(x)
        first, last = model.ends()
        prior = kl_divergence(self.noisy(centred, last), model.standard.expand((len(x),)))
        z_0 = self.noisy(centred, first).rsample((samples,))
        reconstruction = model.likelihood_at(z_0).log_prob(x).mean(0)
        steps = torch.stack([self._summed(centred, known) for _ in range(samples)]).mean(0)
        kl = prior + steps
        return ELBOTerms(reconstruction - kl, reconstruction, kl), (prior, steps)

    def _summed(self, centred: Tensor, known: tuple[Tensor, ...]) -> Tensor:
        """The KL of all steps, or the integral over time, each at a draw of z_t, ``(B,)``."""
        model, rows = self.model, len(centred)
        count = TIMES if model.continuous else model.steps
        places = torch.arange(1, count + 1, device=centred.device).to(centred)[:, None]
        if model.continuous:
            places = (places - torch.rand(count, rows, device=centred.device, dtype=centred.dtype)) / count
        pieces = places.split(max(1, AT_ONCE // (rows * model.width)))
        found = torch.stack([self._costs(centred, piece, known).sum(0) for piece in pieces]).sum(0)
        return found / count if model.continuous else found

    def _costs(self, centred: Tensor, places: Tensor, known: tuple[Tensor, ...]) -> Tensor:
        """The KL of steps ``(S, 1)``, or at times ``(S, B)``, at a draw of z_t each, ``(S, B)``."""
        model = self.model
        z = self.noisy(centred, model.step(places).gamma_t).rsample()
        places = places.expand(z.shape[: z.dim() - model.event_dim])
        return kl_divergence(self._back(centred, places), model.reverse(z, places, *known))
