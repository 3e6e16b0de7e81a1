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
from typing import Any, ClassVar, Literal

from torch import Tensor

from ppl_vae.declaration import require
from ppl_vae.likelihoods import Gaussian, Likelihood
from ppl_vae.likelihoods.base import refuse_categories
from ppl_vae.likelihoods.noise import NoiseScale
from ppl_vae.models.base import Model, independent_columns, rounded
from ppl_vae.models.bayesian import BayesianFactorModel, check_complete, check_priors
from ppl_vae.models.linear_gaussian_program import IncompleteLinearGaussianModel, LinearGaussianModel, Loadings
from ppl_vae.nn.base import Flattened
from ppl_vae.priors import AutomaticRelevance, Normal, Prior, RootInverseGamma, StandardNormal
from ppl_vae.types import DataSpec, Kind

__all__ = ["PPCA", "FactorAnalysis"]


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
        refuse_categories(type(self).__name__, spec.table)
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

    Examples:
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

    def with_conjugate_priors(self, columns: Callable[[], tuple[Tensor, Tensor]]) -> FactorAnalysis:
        """This model with a prior of every parameter that has none, as wide as the data.

        W by ``AutomaticRelevance()``, mu_d ~ Normal(mean_d, sd_d), psi_d ~ InverseGamma(3/2, sd_d^2 / 4), which expects half of
        each variance to be noise.
        """
        names = ("weights", "loc", "scale")
        if all(name in self.parameter_priors for name in names):
            return self
        mean, scale = columns()
        noise = scale.square().mean(0, keepdim=True) if self.isotropic else scale.square()
        priors = (
            AutomaticRelevance(),
            Normal(loc=rounded(mean), scale=rounded(scale)),
            RootInverseGamma(rate=rounded(noise / 4)),
        )
        given: dict[str, Any] = dict(zip(names, priors, strict=True)) | dict(self.parameter_priors)
        return dataclasses.replace(self, **given)

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
