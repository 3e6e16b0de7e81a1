"""What SVI climbs."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.traceenum_elbo import _compute_dice_elbo
from torch import Tensor, nn

from ppl_vae.declaration import Declaration, require
from ppl_vae.pair import Pair

__all__ = ["ELBO", "Objective"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(Declaration, abc.ABC):
    """A bound on log p(x), or what else a pair is trained to maximize."""

    @abc.abstractmethod
    def build(self, pair: Pair) -> nn.Module:
        """A module called with a batch that returns ``(loss, reconstruction)``, scalars in nats per datum.

        ``loss`` is what gradient descent minimizes; ``reconstruction`` is the detached mean of log p(x | z).
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class ELBO(Objective):
    """E_q[log p(x | z)] - KL(q(z | x) || p(z)), through Pyro's ``TraceMeanField_ELBO`` or ``Trace_ELBO``.

    Args:
        particles: S, samples of the latent variables per datum and step.
        kl: ``analytic`` where a closed form exists (less noise), or ``sampled``.

    Raises:
        ValueError: fewer than one particle, or an unknown kind of KL.
    """

    particles: int = 1
    kl: Literal["analytic", "sampled"] = "analytic"

    def __post_init__(self) -> None:
        require(self.particles >= 1, "at least 1 particle", self.particles)
        require(self.kl in ("analytic", "sampled"), "a kl that is analytic or sampled", self.kl)

    def build(self, pair: Pair) -> nn.Module:
        """The ELBO of a pair as a module."""
        analytic = self.kl == "analytic" and pair.mean_field
        return PyroELBO(pair, AnalyticELBO if analytic else SampledELBO, self.particles)


class PyroELBO(nn.Module):
    """One of Pyro's ELBOs, divided by the number of data that the pair's plate scales it to."""

    def __init__(self, pair: Pair, elbo: type[AnalyticELBO | SampledELBO], particles: int) -> None:
        super().__init__()
        self.pair = pair
        self.kind: type[AnalyticELBO | SampledELBO | EnumeratedELBO] = elbo
        self.particles = particles
        self.elbo: AnalyticELBO | SampledELBO | EnumeratedELBO | None = None

    def forward(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and reconstruction of a batch."""
        plates = self.pair.plates(*batch)
        if self.elbo is None:
            kind = EnumeratedELBO if plates.enumerated else self.kind
            self.elbo = kind(
                num_particles=self.particles, vectorize_particles=self.particles > 1, max_plate_nesting=plates.nesting
            )
        loss = self.elbo.differentiable_loss(self.pair.model, self.pair.guide, *batch)
        return loss / plates.size, self.elbo.reconstruction / plates.size


class _Recording:
    """Mixed into one of Pyro's ELBOs: keeps the observed sites' share of the last loss in ``reconstruction``."""

    num_particles: int
    reconstruction: Any
    _differentiable_loss_particle: Any

    def _get_traces(self, model: nn.Module, guide: nn.Module, args: tuple, kwargs: dict) -> Iterator[tuple]:
        self.reconstruction = 0.0
        for model_trace, guide_trace in super()._get_traces(model, guide, args, kwargs):  # type: ignore[misc]
            observed = sum(model_trace.nodes[name]["log_prob_sum"].detach() for name in model_trace.observation_nodes)
            self.reconstruction = self.reconstruction + observed / self.num_particles
            yield model_trace, guide_trace

    def differentiable_loss(self, model: nn.Module, guide: nn.Module, *args: Tensor) -> Tensor:
        """As Pyro's own, without reading numbers to log them or to look for NaN."""
        losses = [self._differentiable_loss_particle(*traces) for traces in self._get_traces(model, guide, args, {})]
        return sum(surrogate + (loss - surrogate).detach() for loss, surrogate in losses) / self.num_particles


class AnalyticELBO(_Recording, TraceMeanField_ELBO):
    """Pyro's ELBO with the closed-form KL of each latent site where there is one."""


class EnumeratedELBO(TraceEnum_ELBO):
    """Pyro's ELBO with every discrete latent variable of the guide summed out; its two halves are not told apart."""

    reconstruction: Any

    def differentiable_loss(self, model: nn.Module, guide: nn.Module, *args: Tensor) -> Tensor:
        """As Pyro's own, without looking for NaN."""
        elbo = sum(_compute_dice_elbo(*traces) for traces in self._get_traces(model, guide, args, {})) / self.num_particles
        self.reconstruction = torch.full_like(elbo.detach(), torch.nan)
        return -elbo


class SampledELBO(_Recording, Trace_ELBO):
    """Pyro's ELBO with every term sampled."""
