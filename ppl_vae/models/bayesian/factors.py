"""Factor analysis whose parameters carry priors (Bishop 1999)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.exact import Problem, Sweep, conditional, linear_gaussian, moments, profile, rotations
from ppl_vae.exact import posterior as exact
from ppl_vae.models.bayesian.factors_ascent import FactorAnalysisGuide, factors_problem
from ppl_vae.models.bayesian.parameters import BayesianModel, Given, Values
from ppl_vae.models.told import of_factors
from ppl_vae.priors import Prior, StandardNormal
from ppl_vae.priors.base import Support
from ppl_vae.program.hooks import Start
from ppl_vae.program.quantities import Quantity
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.types import DataSpec

__all__ = ["BayesianFactorModel"]


class BayesianFactorModel(BayesianModel):
    """Factor analysis, z standard normal: ``weights (D, K)``, ``loc (D,)``, ``scale (D,)``, or ``(1,)`` if isotropic.

    Noise scales below ``floor`` count as ``floor``. An event of several axes is modelled as one vector of D elements.
    """

    learning_rate = 2e-2
    takes_weights = True
    supports: Mapping[str, Support] = {"weights": "real", "loc": "real", "scale": "positive"}

    def __init__(
        self, *, size: int, columns: int, latent_dim: int, isotropic: bool, floor: float, priors: Mapping[str, Prior]
    ) -> None:
        starts = {
            "weights": torch.randn(columns, latent_dim) / latent_dim**0.5,
            "loc": torch.zeros(columns),
            "scale": torch.full((1 if isotropic else columns,), max(0.5, 2 * floor)),
        }
        super().__init__(size, {name: Given(priors.get(name), self.supports[name], start) for name, start in starts.items()})
        self.latent_shape = (latent_dim,)
        self.isotropic = isotropic
        self.axes = {"weights": ("column", "factor"), "loc": ("column",), "scale": ("" if isotropic else "column",)}
        self.floor = floor
        self.prior = StandardNormal().build(self.latent_shape)

    def forward(self, x: Tensor) -> Tensor:
        """The story, with the batch x ``(B, *event)`` observed."""
        theta = self.draw()
        with data_plate(self.size, x):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(z, **theta), obs=x.flatten(1))

    def likelihood(self, z: Tensor, weights: Tensor, loc: Tensor, scale: Tensor) -> dist.Distribution:
        """p(x | z, theta) for z ``(..., K)``."""
        mean = torch.einsum("...dk,...k->...d", weights, z) + loc
        return dist.Normal(mean, scale.clamp_min(self.floor)).to_event(1)

    def decode(self, z: Tensor) -> dist.Distribution:
        """p(x | z) for z ``(..., K)``."""
        return self.likelihood(z, **self.values)

    @property
    def sites(self) -> dict[str, Site]:
        """The factors."""
        return {"z": Site("z", self.latent_shape)}

    @property
    def parameters_em(self) -> linear_gaussian.Parameters:
        """Mu ``(D,)``, W ``(D, K)`` and the noise variances psi ``(D,)``, in float64."""
        return self._em(self.values)

    @property
    def loadings(self) -> Tensor:
        """W ``(D, K)``, which the likelihood fixes only up to a rotation."""
        return self.values["weights"].detach()

    def quantities(self) -> dict[str, Quantity]:
        """Mean, loadings, noise variances and communalities."""
        return of_factors(self.parameters_em, self.values["weights"], "as their prior has them, draws rotated towards this")

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) of each datum at the point estimates, in nats, ``(B,)``; computed in float64."""
        return exact.log_prob(self.parameters_em, x.flatten(1))

    @torch.no_grad()
    def impute(self, x: Tensor, draws: int | None = None) -> Tensor:
        """Missing entries (NaN) of x ``(B, *event)`` at their conditional means given the point estimates, or drawn."""
        return conditional.complete_factors(self.parameters_em, x.flatten(1), draws).unflatten(-1, x.shape[1:])

    def posterior(self, x: Tensor) -> dist.Distribution:
        """The exact p(z | x, theta) of each datum, x ``(B, *event)``; draws may lie in a batch left of the data's."""
        loc, W, psi = self.parameters_em
        scaled = W / psi.unsqueeze(-1)
        precision = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device) + W.mT @ scaled
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        projected = torch.einsum("...dk,...d->...k", scaled, x.flatten(1) - loc)
        mean = torch.einsum("...jk,...k->...j", covariance, projected)
        return dist.MultivariateNormal(mean.to(x.dtype), scale_tril=torch.linalg.cholesky(covariance).to(x.dtype))

    def log_likelihood(self, rows: Any) -> Callable[[Values], Tensor]:
        """From all parameters by name to log p(rows | theta) in nats, z integrated out; its cost does not grow with N."""
        seen = moments.moments(rows)
        return lambda values: seen.rows * linear_gaussian.log_likelihood(self._em(values), seen)

    def align(self, draws: Values) -> dict[str, Tensor]:
        """Draws ``(S, ...)`` with each one's loadings rotated towards the point estimate's: p(x) knows no rotation."""
        W = draws["weights"]
        U, _, V = torch.linalg.svd(W.mT @ self.loadings.to(W))
        return {**draws, "weights": W @ (U @ V)}

    def distance(self, other: Any) -> float:
        """Largest principal angle between the two loadings' column spaces in radians, whatever their rotations."""
        return rotations.principal_angle(self.loadings.double(), other.loadings.double()).item()

    def mean_field(self, spec: DataSpec) -> FactorAnalysisGuide:
        """The guide that coordinate ascent fits.

        Raises:
            ValueError: a parameter without a conjugate prior.
        """
        return FactorAnalysisGuide(self, spec)

    def cavi(self, guide: FactorAnalysisGuide, rows: Any, sweep: Sweep) -> Problem:
        """What coordinate ascent iterates."""
        return factors_problem(self, guide, rows, sweep)

    def start_fit(self, context: Start) -> None:
        """Start where EM starts, so that methods differ only in how they go on."""
        seen = moments.moments(context.rows)
        floor = linear_gaussian.noise_floor(seen).clamp_min(self.floor**2)
        loc, W, noise = profile.initial(seen, self.latent_shape[0], floor=floor)
        scale = noise.mean(0, keepdim=True).sqrt() if self.isotropic else noise.sqrt()
        self.assign({"weights": W, "loc": loc, "scale": scale})

    def _em(self, values: Values) -> linear_gaussian.Parameters:
        loc = values["loc"].double()
        noise = values["scale"].double().clamp_min(self.floor).square()
        noise = noise.expand(*noise.shape[:-1], loc.shape[-1])
        return linear_gaussian.Parameters(loc, values["weights"].double(), noise)
