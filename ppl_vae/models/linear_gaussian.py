"""Factor analysis and probabilistic PCA: the linear VAE, whose every quantity has a closed form.

    for n in 1..N:
        z_n ~ Normal(mu0, Sigma0)             Normal(0, I) by default
        x_n ~ Normal(W z_n + mu, diag(psi))   psi_1 = ... = psi_D in PPCA

Rubin and Thayer (1982); Tipping and Bishop (1999); as a VAE with a linear decoder: Lucas et al. (2019). With priors on W, mu
or psi the program is the one of :mod:`ppl_vae.models.bayesian`.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.exact import Problem, Squarem, floors, linear_gaussian, missing, moments, posterior, profile, rotations
from ppl_vae.exact.driver import Step
from ppl_vae.likelihoods import Gaussian, Likelihood
from ppl_vae.likelihoods.noise import NoiseScale
from ppl_vae.models.base import Model, independent_columns
from ppl_vae.models.bayesian import BayesianFactorModel, check_complete, check_priors
from ppl_vae.models.vae import LatentModel
from ppl_vae.nn.base import Flattened
from ppl_vae.priors import Normal, Prior, StandardNormal
from ppl_vae.types import DataSpec, Kind

__all__ = ["PPCA", "FactorAnalysis", "LinearGaussianModel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LinearGaussian(Model, abc.ABC):
    """What factor analysis and PPCA share."""

    posterior_family: ClassVar[Literal["unknown", "linear", "discrete"]] = "linear"

    latent_dim: int = 8
    prior: Prior = StandardNormal()
    floor: float = 1e-3

    def __post_init__(self) -> None:
        require(self.latent_dim >= 1, "a latent_dim of at least 1", self.latent_dim)
        given = isinstance(self.prior, StandardNormal) or (isinstance(self.prior, Normal) and not self.prior.learned)
        require(given, "a normal prior with given moments (StandardNormal, Normal), for W and mu fit any others", self.prior)
        require(0 < self.floor < math.inf, "a positive floor", self.floor)

    @property
    @abc.abstractmethod
    def isotropic(self) -> bool:
        """Whether one noise scale serves all elements."""

    @property
    def likelihood(self) -> Gaussian:
        """p(x | z) of the same program's VAE form."""
        return Gaussian(scale="shared" if self.isotropic else "per_feature", value=max(0.5, 2 * self.floor), floor=self.floor)

    @property
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that lie on the real line."""
        return self.likelihood.accepts

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are not numbers, or fewer than the factors."""
        self.likelihood.check(spec)
        limit = math.prod(spec.event_shape) - self.isotropic
        if self.latent_dim > limit:
            raise ValueError(f"expected at most {limit} factors for data of shape {spec.event_shape}, got {self.latent_dim}")

    @property
    def relative_floor(self) -> float:
        """The floor."""
        return self.floor

    def without_latents(self, spec: DataSpec) -> Likelihood:
        """Independent normal columns."""
        return independent_columns(spec, floor=self.floor, isotropic=self.isotropic)

    def build(self, spec: DataSpec) -> LinearGaussianModel:
        """The Pyro program for data of this shape and number."""
        shape = (self.latent_dim,)
        program = IncompleteLinearGaussianModel if spec.missing else LinearGaussianModel
        return program(
            size=spec.size,
            latent_shape=shape,
            prior=self.prior.build(shape),
            decoder=Flattened(Loadings(self.latent_dim, math.prod(spec.event_shape)), shape, (1, *spec.event_shape)),
            likelihood=NoiseScale(self.likelihood, spec.event_shape),
        )

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        noise = "sigma^2 I" if self.isotropic else "diag(psi)"
        return f"z ~ {self.prior.story((self.latent_dim,))}; x | z ~ Normal(W z + mu, {noise})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorAnalysis(_LinearGaussian):
    """Factor analysis: x = W z + mu + eps, eps ~ Normal(0, diag(psi)).

    Args:
        latent_dim: K, the number of factors.
        prior: p(z), normal; another one than N(0, I) gives the same p(x) in other coordinates.
        floor: least noise scale of an element, as a share of its standard deviation in the training data. A constant column,
            or one that the factors explain entirely (a Heywood case), stands on it: without it the likelihood has no upper
            bound. Where parameters have priors it is in the units of what the model sees, as they are.
        noise: ``diagonal``, or ``isotropic``, which is PPCA.
        weights: prior of each element of W, by default none: a point estimate. Priors are in the units of what the model sees.
        loc: prior of mu, likewise.
        scale: prior of the noise scales psi^(1/2), likewise.

    Raises:
        ValueError: fewer than one factor, a prior that is not normal, a floor that is not positive, a prior of a parameter that
            cannot lie in its support.

    Example:
        >>> print(FactorAnalysis(latent_dim=3))
        z ~ Normal(0, I_3); x | z ~ Normal(W z + mu, diag(psi))
    """

    noise: Literal["diagonal", "isotropic"] = "diagonal"
    weights: Prior | None = None
    loc: Prior | None = None
    scale: Prior | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise in ("diagonal", "isotropic"), "a noise that is diagonal or isotropic", self.noise)
        check_priors(BayesianFactorModel.supports, self.parameter_priors)
        standard = self.prior == StandardNormal() or not self.parameter_priors
        require(standard, "StandardNormal() as p(z) of a model whose parameters have priors", self.prior)

    @property
    def parameter_priors(self) -> Mapping[str, Prior]:
        """The priors of parameters that have one."""
        priors = {"weights": self.weights, "loc": self.loc, "scale": self.scale}
        return {name: prior for name, prior in priors.items() if prior is not None}

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are not numbers, fewer than the factors, or incomplete for a Bayesian treatment."""
        super().check(spec)
        check_complete(spec, self.parameter_priors)

    def build(self, spec: DataSpec) -> Any:
        """The Pyro program for data of this shape and number."""
        if not self.parameter_priors:
            return super().build(spec)
        return BayesianFactorModel(
            size=spec.size,
            columns=math.prod(spec.event_shape),
            latent_dim=self.latent_dim,
            isotropic=self.isotropic,
            floor=self.floor,
            priors=self.parameter_priors,
        )

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        symbols = {"weights": "W", "loc": "mu", "scale": "sigma" if self.isotropic else "psi^(1/2)"}
        return "".join(f"{symbols[name]} ~ {p.story(())}; " for name, p in self.parameter_priors.items()) + super().story()

    @property
    def isotropic(self) -> bool:
        """Whether one noise scale serves all elements."""
        return self.noise == "isotropic"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPCA(_LinearGaussian):
    """Probabilistic principal component analysis: x = W z + mu + eps, eps ~ Normal(0, sigma^2 I).

    Args:
        latent_dim: K, the number of components.
        prior: p(z), normal; another one than N(0, I) gives the same p(x) in other coordinates.
        floor: least noise scale sigma, as a share of the least standard deviation of an element in the training data.

    Raises:
        ValueError: fewer than one component, a prior that is not normal, a floor that is not positive.
    """

    @property
    def isotropic(self) -> bool:
        """One noise scale serves all elements."""
        return True


Remark = Callable[[linear_gaussian.Parameters], str | None]


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

    learning_rate = 2e-2  # parameters are in the columns' own units, so larger steps than a network's are safe

    @property
    def parameters_em(self) -> linear_gaussian.Parameters:
        """Mu ``(D,)``, W ``(D, K)`` and the noise variances psi ``(D,)``, in float64."""
        linear = self.decoder.layers
        unit = linear.unit.double()
        loc, W = unit * linear.bias, unit[:, None] * linear.weight
        return linear_gaussian.Parameters(loc, W, self.likelihood.scale.double().flatten().square().expand_as(loc))

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

    def rotated_loadings(self, rotation: Literal["canonical", "varimax"] = "canonical") -> Tensor:
        """Loadings ``(D, K)`` that all fits to one solution share: ``canonical`` (orthogonal, sorted by length) or ``varimax``.

        The canonical form diagonalizes W^T psi^-1 W; for PPCA its columns are the principal axes.
        """
        require(rotation in ("canonical", "varimax"), "a rotation that is canonical or varimax", rotation)
        with torch.no_grad():
            _, W, noise = posterior.fold_prior(self.parameters_em, self.prior_em)
            canonical = rotations.canonical(W, None if self.isotropic else noise)
            return rotations.varimax(canonical) if rotation == "varimax" else canonical

    def distance(self, other: LinearGaussianModel) -> float:
        """Largest principal angle between the two loadings' column spaces in radians, whatever their rotations."""
        return rotations.principal_angle(self.loadings.double(), other.loadings.double()).item()

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) of each datum in nats, ``(B,)``, x ``(B, *event)``; computed in float64."""
        return posterior.log_prob(self.parameters_em, x.flatten(1).double(), self.prior_em)

    def posterior(self, x: Tensor) -> dist.Distribution:
        """The exact p(z | x) of each datum, x ``(B, *event)``; computed in float64."""
        found = posterior.posterior(self.parameters_em, x.flatten(1).double(), self.prior_em)
        scale_tril = torch.linalg.cholesky(found.covariance).to(x.dtype)
        return dist.MultivariateNormal(found.mean.to(x.dtype), scale_tril=scale_tril)

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

    def initialize(self, rows: Any, generator: torch.Generator) -> None:
        """Start where EM starts, so that methods differ only in how they go on; measure columns in their own units."""
        start = self.em(rows).start
        seen = moments.columns(rows)
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

    def _problem(self, step: Step, start: linear_gaussian.Parameters, scheme: Squarem | None, remark: Remark) -> Problem:
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

    def _remark(self, floor: Tensor, mean: Tensor, variance: Tensor) -> Remark:
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
