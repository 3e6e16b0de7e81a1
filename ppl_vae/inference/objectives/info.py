"""The InfoVAE's objective: the aggregate posterior is drawn to the prior as a whole.

E_q[log p(x | z)] - kl_weight KL(q(z | x) || p(z)) - mmd_weight MMD^2(q(z), p(z)),    q(z) = 1/N sum_n q(z | x_n)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import torch
from pyro.poutine import Trace
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.inference.objectives.base import Estimate, Objective
from ppl_vae.inference.objectives.pyro_elbo import WeighedELBO
from ppl_vae.inference.objectives.pyro_parts import Traces
from ppl_vae.program.pair import Pair, Plates
from ppl_vae.program.weighing import batch_weights

__all__ = ["InfoVAE", "squared_mmd"]

KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "rbf": lambda distance: (-distance).exp(),
    "inverse_multiquadratic": lambda distance: 1 / (1 + distance),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoVAE(Objective):
    """E_q[log p(x | z)] - kl_weight KL - mmd_weight MMD^2(q(z), p(z)) (Zhao, Song and Ermon 2019).

    In the paper's letters kl_weight = 1 - alpha and mmd_weight = alpha + lambda - 1; without KL it is the MMD-VAE. What is
    climbed is not a bound on log p(x), and may lie above it: compare by ``elbo``.

    MMD^2 = mean k(z, z') - 2 mean k(z, y) + mean k(y, y') over all pairs of the batch's draws z ~ q(z | x_n) and as many
    y ~ p(z), a draw with itself included: biased upwards, never negative. With d = (z - z')^2 / (2 K bandwidth^2), K the
    dimensions of z, the kernel ``rbf`` is exp(-d), ``inverse_multiquadratic`` 1 / (1 + d). It moves a learned prior only where
    that prior's draws are reparameterized. Of rows that have weights a draw z counts in the means by its row's share of the
    batch, so that q(z) is sum_n w_n q(z | x_n) / sum_n w_n; draws y of the prior count alike.

    Args:
        kl_weight: of the KL of each datum.
        mmd_weight: of MMD^2, which is at most 2.
        kernel: k.
        bandwidth: about the scale of one coordinate of the prior.
        particles: S, samples of the latent variables per datum and step; all S B draws of a batch stand for q(z).
        kl: ``analytic`` where a closed form exists (less noise), or ``sampled``.

    Raises:
        ValueError: a number out of range, an unknown kernel or kind of KL; when first called, a guide with other than one
            reparameterized latent variable per datum.

    Examples:
        >>> InfoVAE(mmd_weight=500.0).kl_weight
        0.0
    """

    kl_weight: float = 0.0
    mmd_weight: float = 100.0
    kernel: Literal["rbf", "inverse_multiquadratic"] = "inverse_multiquadratic"
    bandwidth: float = 1.0
    particles: int = 1
    kl: Literal["analytic", "sampled"] = "analytic"

    def __post_init__(self) -> None:
        require(0 <= self.kl_weight < math.inf, "a kl_weight of at least 0", self.kl_weight)
        require(0 <= self.mmd_weight < math.inf, "an mmd_weight of at least 0", self.mmd_weight)
        require(self.kernel in KERNELS, f"a kernel of {', '.join(KERNELS)}", self.kernel)
        require(0 < self.bandwidth < math.inf, "a positive bandwidth", self.bandwidth)
        require(self.particles >= 1, "at least 1 particle", self.particles)
        require(self.kl in ("analytic", "sampled"), "a kl that is analytic or sampled", self.kl)

    @property
    def draws(self) -> int:
        """The particles."""
        return self.particles

    @property
    def takes_weights(self) -> bool:
        """Each datum's own terms count by its weight, and so do its draws in q(z)."""
        return True

    def build(self, pair: Pair, steps_per_epoch: int = 1) -> nn.Module:
        """The objective of a pair as a module."""
        return InfoObjective(pair, self)


class InfoObjective(WeighedELBO):
    """A weighed ELBO, and the discrepancy of the latent site's draws from the prior's."""

    def __init__(self, pair: Pair, declared: InfoVAE) -> None:
        analytic = declared.kl == "analytic" and pair.mean_field
        super().__init__(pair, declared.particles, analytic=analytic, weigh=SameWeight(declared.kl_weight))
        self.declared = declared

    def estimate(self, plates: Plates, traces: Traces) -> Estimate:
        """From the traces of a batch."""
        (model, guide), *_ = traces
        site = _latent_site(guide, plates)
        q, p = guide.nodes[site], model.nodes[site]["fn"]
        event_dim = p.event_dim
        prior = p.rsample() if p.has_rsample else p.sample()
        share = _shares(q["value"], q["value"].dim() - event_dim, batch_weights(), plates.data_dim)
        z, y = (value.reshape(-1, math.prod(value.shape[value.dim() - event_dim :])) for value in (q["value"], prior))
        weighed = super().estimate(plates, traces)
        mmd = squared_mmd(z, y, KERNELS[self.declared.kernel], self.declared.bandwidth, share)
        return weighed._replace(loss=weighed.loss + self.declared.mmd_weight * mmd)


class SameWeight(nn.Module):
    """One weight for every site."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, kl: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``(J,)`` and no offset."""
        return torch.full_like(kl, self.weight), kl.new_zeros(())


def squared_mmd(
    z: Tensor, y: Tensor, kernel: Callable[[Tensor], Tensor], bandwidth: float, share: Tensor | None = None
) -> Tensor:
    """The squared maximum mean discrepancy (Gretton et al. 2012, equation 5) of draws z ``(n, K)`` and y ``(m, K)``, biased.

    Draws z count alike, or by their ``share (n,)``, which sum to 1.
    """
    shift = y.detach().mean(0)  # which no distance knows, and about which less cancels
    z, y = z - shift, y - shift

    def kernels(a: Tensor, b: Tensor) -> Tensor:
        squared = a.square().sum(-1)[:, None] + b.square().sum(-1) - 2 * a @ b.T
        return kernel(squared.clamp_min(0) / (2 * a.shape[-1] * bandwidth**2))

    if share is None:
        return kernels(z, z).mean() - 2 * kernels(z, y).mean() + kernels(y, y).mean()
    return share @ kernels(z, z) @ share - 2 * share @ kernels(z, y).mean(1) + kernels(y, y).mean()


def _shares(z: Tensor, batch_dim: int, weights: Tensor | None, dim: int) -> Tensor | None:
    """What part of q(z) each draw is ``(n,)``, of draws z ``(*batch, *event)`` whose rows lie in ``dim`` of the batch.

    ``None`` where all count alike.
    """
    if weights is None:
        return None
    each = weights.to(z).reshape(-1, *(1 for _ in range(-dim - 1))).expand(z.shape[:batch_dim]).reshape(-1)
    return each / each.sum().clamp_min(torch.finfo(each.dtype).tiny)


def _latent_site(guide: Trace, plates: Plates) -> str:
    """The one latent variable of a datum."""
    local: list[str] = [name for name, site in guide.nodes.items() if site["type"] == "sample" and plates.of_data(site)]
    if len(local) != 1 or not guide.nodes[local[0]]["fn"].has_rsample or guide.nodes[local[0]]["infer"].get("is_auxiliary"):
        raise ValueError(
            f"InfoVAE compares draws of one reparameterized latent variable per datum with its prior, this guide has "
            f"{', '.join(local) or 'none'}: use objective=BetaELBO(), or a guide whose draws are reparameterized"
        )
    return local[0]
