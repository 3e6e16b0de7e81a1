"""The linear-Gaussian program, and what is exact about it: densities, posteriors, steps of EM, the closed form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.exact import (
    Problem,
    Squarem,
    conditional,
    floors,
    linear_gaussian,
    missing,
    moments,
    posterior,
    profile,
    rotations,
)
from ppl_vae.exact.driver import Step
from ppl_vae.models.told import of_factors
from ppl_vae.models.vae import LatentModel
from ppl_vae.program.hooks import Start
from ppl_vae.program.quantities import Quantity

__all__ = ["IncompleteLinearGaussianModel", "LinearGaussianModel", "Loadings"]


WEAK = 0.1  # loadings of factors that nothing is known of yet, in noise scales; none at all EM would leave as they are
FloorMessage = Callable[[linear_gaussian.Parameters], str | None]


class Loadings(nn.Module):
    """The affine map z -> unit * (weight z + bias); gradients see every column in its own unit.

    Parameters ``weight (D, K)`` and ``bias (D,)``; the buffer ``unit (D,)`` is the columns' standard deviation once data are
    seen.
    """

    unit: Tensor

    def __init__(self, latent_dim: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(columns, latent_dim) / latent_dim**0.5)
        self.bias = nn.Parameter(torch.zeros(columns))
        self.register_buffer("unit", torch.ones(columns))

    def forward(self, z: Tensor) -> Tensor:
        """Map z ``(..., K)`` to ``(..., D)``."""
        return self.unit * torch.nn.functional.linear(z, self.weight, self.bias)


class LinearGaussianModel(LatentModel):
    """The program of a VAE with a linear decoder, and what is exact about it."""

    takes_weights = True
    learning_rate = 2e-2  # parameters are in the columns' own units, so larger steps than a network's are safe

    @property
    def parameters_em(self) -> linear_gaussian.Parameters:
        """Mu ``(D,)``, W ``(D, K)`` and the noise variances psi ``(D,)``, in float64."""
        linear = self.decoder.layers
        unit = linear.unit.double()
        loc, W = unit * linear.bias, unit[:, None] * linear.weight
        return linear_gaussian.Parameters(loc, W, self.likelihood.scale.double().flatten().square().expand_as(loc))

    @property
    def free_parameters(self) -> int:
        """D of mu, and of W and psi the dimension of the covariances that they make.

        That is D K - K (K - 1) / 2, W but for its rotations, and D or 1 of the noise; never more than the D (D + 1) / 2 of any
        covariance (Drton, Sturmfels and Sullivant 2007, theorem 2). Noise that stands on its floor counts as any other.
        """
        D, K = self.loadings.shape
        spread = D * K - K * (K - 1) // 2 + (1 if self.isotropic else D)
        return D + min(spread, D * (D + 1) // 2)

    @property
    def prior_em(self) -> posterior.Prior:
        """The moments of p(z), in float64."""
        p = self.prior()
        return posterior.Prior(p.mean.double(), p.variance.double().diag())

    @property
    def isotropic(self) -> bool:
        """Whether one noise scale serves all elements."""
        return self.likelihood.log_scale.dim() == 0

    @property
    def loadings(self) -> Tensor:
        """W ``(D, K)``, which the likelihood fixes only up to a rotation."""
        linear = self.decoder.layers
        return (linear.unit[:, None] * linear.weight).detach()

    def decoded_change(self, direction: Tensor) -> Tensor:
        """What a change ``(K,)`` of the factors adds to the mean of x: W times it, ``(D,)``."""
        return self.loadings @ direction.to(self.loadings)

    def rotated_loadings(self, rotation: Literal["canonical", "varimax"] = "canonical") -> Tensor:
        """Loadings ``(D, K)`` that all fits to one solution share: ``canonical`` (orthogonal, sorted by length) or ``varimax``.

        The canonical form diagonalizes W^T psi^-1 W; for PPCA its columns are the principal axes.
        """
        require(rotation in ("canonical", "varimax"), "a rotation that is canonical or varimax", rotation)
        with torch.no_grad():
            _, W, noise = posterior.fold_prior(self.parameters_em, self.prior_em)
            canonical = rotations.canonical(W, None if self.isotropic else noise)
            return rotations.varimax(canonical) if rotation == "varimax" else canonical

    @torch.no_grad()
    def normal_components(self) -> tuple[Tensor, Tensor, Tensor]:
        """The one that p(x) is: mu ``(1, D)`` and W W^T + psi ``(1, D, D)``, with the weight 1."""
        loc, W, noise = posterior.fold_prior(self.parameters_em, self.prior_em)
        return loc.new_ones(1), loc[None], (W @ W.mT + noise.diag())[None]

    def quantities(self) -> dict[str, Quantity]:
        """Mean, loadings in their canonical rotation, noise variances and communalities, for standard normal factors."""
        folded = posterior.fold_prior(self.parameters_em, self.prior_em)
        return of_factors(folded, self.rotated_loadings(), "canonical rotation, orthogonal in units of the noise, by length")

    def distance(self, other: LinearGaussianModel) -> float:
        """Largest principal angle between the two loadings' column spaces in radians, whatever their rotations."""
        return rotations.principal_angle(self.loadings.double(), other.loadings.double()).item()

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) of each datum in nats, ``(B,)``, x ``(B, *event)``; computed in float64."""
        return posterior.log_prob(self.parameters_em, x.flatten(1), self.prior_em)

    def posterior(self, x: Tensor) -> dist.Distribution:
        """The exact p(z | x) of each datum, x ``(B, *event)``; computed in float64."""
        found = posterior.posterior(self.parameters_em, x.flatten(1).double(), self.prior_em)
        scale_tril = torch.linalg.cholesky(found.covariance).to(x.dtype)
        return dist.MultivariateNormal(found.mean.to(x.dtype), scale_tril=scale_tril)

    @torch.no_grad()
    def impute(self, x: Tensor, draws: int | None = None) -> Tensor:
        """Missing entries (NaN) of x ``(B, *event)`` at their exact conditional means, or drawn; in float64."""
        folded = posterior.fold_prior(self.parameters_em, self.prior_em)
        return conditional.complete_factors(folded, x.flatten(1), draws).unflatten(-1, x.shape[1:])

    def em(self, rows: Any, *, generator: torch.Generator | None = None, accelerate: bool = True) -> Problem:
        """What EM iterates for rows ``(N, D)`` or batches of them; from a random start if there is a generator."""
        seen = self._moments(rows)
        floor = self._measure(seen.mean, seen.covariance.diagonal())
        plain = partial(linear_gaussian.em_step, moments=seen, isotropic=self.isotropic, floor=floor)
        fast = partial(profile.profile_step, moments=seen, isotropic=self.isotropic, floor=floor)
        scheme = Squarem(profile.to_vector, partial(profile.from_vector, moments=seen, floor=floor))
        start = profile.initial(seen, self.latent_shape[0], floor=floor, generator=generator)
        remark = self._remark(floor, seen.mean, seen.covariance.diagonal())
        return self._problem(fast if accelerate else plain, start, scheme if accelerate else None, remark)

    def closed_form(self, rows: Any) -> linear_gaussian.Parameters:
        """The maximum-likelihood PPCA of rows ``(N, D)``.

        Raises:
            ValueError: the noise is diagonal.
        """
        if not self.isotropic:
            raise ValueError("factor analysis with diagonal noise has no closed form, only PPCA has: use EM or SVI")
        seen = moments.moments(rows)
        floor = self._measure(seen.mean, seen.covariance.diagonal())
        return profile.closed_form(seen, self.latent_shape[0], floor=floor)

    def start_fit(self, context: Start) -> None:
        """Start where EM starts, so that methods differ only in how they go on; measure columns in their own units."""
        start = self.em(context.rows).start
        seen = moments.columns(context.rows)
        self.decoder.layers.unit.copy_(floors.units(seen.mean, seen.variance))
        self.assign(start)

    @torch.no_grad()
    def em_state(self) -> linear_gaussian.Parameters:
        """The present parameters in the form with a standard normal prior, which EM iterates and :meth:`assign` takes."""
        return posterior.fold_prior(self.parameters_em, self.prior_em)

    @torch.no_grad()
    def assign(self, parameters: linear_gaussian.Parameters) -> None:
        """Write parameters of the form with a standard normal prior into the modules, whatever their prior is."""
        loc, W, noise = parameters
        linear, likelihood, prior = self.decoder.layers, self.likelihood, self.prior_em
        W = W / prior.covariance.diagonal().sqrt()
        linear.weight.copy_(W / linear.unit[:, None])
        linear.bias.copy_((loc - W @ prior.loc) / linear.unit)
        likelihood.assign(noise.mean().sqrt() if self.isotropic else noise.sqrt())

    @torch.no_grad()
    def grow(self, smaller: Any) -> bool:
        """Take the loadings and the noise of a model of fewer factors, and weak loadings of the others."""
        alike = isinstance(smaller, LinearGaussianModel) and smaller.isotropic == self.isotropic
        if not alike or smaller.likelihood.floor != self.likelihood.floor:
            return False
        loc, W, noise = smaller.em_state()
        more = self.latent_shape[0] - W.shape[1]
        if more <= 0:
            return False
        generator = torch.Generator().manual_seed(0)
        weak = WEAK * noise.sqrt()[:, None] * torch.randn(len(W), more, generator=generator, dtype=W.dtype).to(W)
        self.decoder.layers.unit.copy_(smaller.decoder.layers.unit)
        self.likelihood.measure(smaller.likelihood.unit)
        self.assign(linear_gaussian.Parameters(loc, torch.cat([W, weak], 1), noise))
        return True

    def _problem(self, step: Step, start: linear_gaussian.Parameters, scheme: Squarem | None, remark: FloorMessage) -> Problem:
        if self.isotropic:
            start = start._replace(noise=start.noise.mean().expand_as(start.noise).clone())
            scheme = None  # one noise variance converges in a few steps
        return Problem(step, start, scheme, self.assign, remark)

    def _moments(self, rows: Any) -> moments.Moments:
        seen = moments.moments(rows)
        return moments.rooted(seen) if self.isotropic else seen

    @torch.no_grad()
    def _measure(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Take the columns' units for the noise, which stays what it is, and return the floor of its variances, ``(D,)``."""
        floor = floors.variance_floor(mean, variance, self.likelihood.floor)
        scale = self.likelihood.scale.clone()
        self.likelihood.measure((floors.common(floor) if self.isotropic else floor).sqrt() / self.likelihood.floor)
        self.likelihood.assign(scale)
        return floor

    def _remark(self, floor: Tensor, mean: Tensor, variance: Tensor) -> FloorMessage:
        still = floors.constant(mean, variance)
        return partial(linear_gaussian.floor_message, floor=floor, constant=still, isotropic=self.isotropic)


class IncompleteLinearGaussianModel(LinearGaussianModel):
    """The same model of data with missing entries (NaN), which are integrated out exactly."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p of the observed entries of each datum in nats, ``(B,)``."""
        return missing.log_prob(posterior.fold_prior(self.parameters_em, self.prior_em), x.flatten(1).double())

    def posterior(self, x: Tensor) -> dist.Distribution:
        """The exact posterior given the observed entries of each datum."""
        prior = self.prior_em
        mean, covariance = missing.posterior(posterior.fold_prior(self.parameters_em, prior), x.flatten(1).double())
        scale = prior.covariance.diagonal().sqrt()
        scale_tril = torch.linalg.cholesky(covariance * torch.outer(scale, scale))
        return dist.MultivariateNormal((prior.loc + mean * scale).to(x.dtype), scale_tril=scale_tril.to(x.dtype))

    def em(self, rows: Any, *, generator: torch.Generator | None = None, accelerate: bool = True) -> Problem:
        """What EM iterates for rows ``(N, D)`` with NaN where missing, or batches of them."""
        seen = moments.columns(rows)
        floor = self._measure(seen.mean, seen.variance)
        step = partial(missing.em_step, data=rows, isotropic=self.isotropic, floor=floor)
        scheme = Squarem(missing.to_vector, partial(missing.from_vector, floor=floor))
        start = missing.initial(rows, self.latent_shape[0], floor=floor, generator=generator)
        return self._problem(step, start, scheme if accelerate else None, self._remark(floor, seen.mean, seen.variance))

    def closed_form(self, rows: Any) -> linear_gaussian.Parameters:
        """Missing entries leave no closed form.

        Raises:
            ValueError: always.
        """
        raise ValueError("with missing entries PPCA has no closed form: use EM")
