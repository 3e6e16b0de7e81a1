"""The Gaussian mixture model.

    for n in 1..N:
        k_n ~ Categorical(pi)
        x_n ~ Normal(mu_k, Sigma_k)   given k = k_n

Dempster, Laird and Rubin (1977). In SVI Pyro enumerates k, so no gradient is ever sampled through it. With
priors on pi, mu or Sigma the program is the one of :mod:`ppl_vae.models.bayesian`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.declaration import require
from ppl_vae.exact import Problem, conditional, covariances, floors, mixture, mixture_missing, mixture_start, moments
from ppl_vae.exact.distances import matched_distance
from ppl_vae.likelihoods import Likelihood
from ppl_vae.likelihoods.base import refuse_categories
from ppl_vae.models.base import Model, independent_columns, rounded
from ppl_vae.models.bayesian import BayesianMixtureModel, check_complete, check_priors
from ppl_vae.models.told import of_mixture
from ppl_vae.priors import Dirichlet, InverseWishart, Normal, Prior, RootInverseGamma
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.hooks import Start
from ppl_vae.program.quantities import Quantity
from ppl_vae.program.recording import being_recorded
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.types import BINARY, COUNT, REAL, UNIT_INTERVAL, DataSpec, Kind

__all__ = ["GMM", "MixtureModel"]

ROWS_AT_ONCE = 1024
MIN_DIAGONAL = 1e-15  # keeps a Cholesky factor invertible when its log underflows, and its square a float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class GMM(Model):
    """Gaussian mixture: k ~ Categorical(pi), x | k ~ Normal(mu_k, Sigma_k).

    Args:
        components: C, the number of Gaussians.
        covariance: ``full``, one matrix ``tied`` by all components, ``diagonal`` or ``spherical``.
        floor: least standard deviation of a component that EM allows, in any direction, as a share of the columns' standard
            deviations in the training data (of a ``spherical`` one, of the least of them); a component on a single point
            would have an infinite density otherwise. Where parameters have priors it is in the units of what the model sees,
            as they are.
        weights: prior of pi, by default none: a point estimate. Priors are in the units of what the model sees.
        locs: prior of each element of the means mu_k, likewise.
        scales: prior of the standard deviations of a ``diagonal`` or ``spherical`` covariance, likewise.
        covariances: prior of each matrix of a ``full`` or ``tied`` covariance, likewise.

    Raises:
        ValueError: fewer than one component, an unknown covariance, a floor that is not positive, a prior of a parameter that
            the model has not or that cannot lie in its support.

    Examples:
        >>> print(GMM(components=3))
        k ~ Categorical(pi_1..pi_3); x | k ~ Normal(mu_k, Sigma_k)
    """

    posterior_family: ClassVar[Literal["unknown", "linear", "discrete"]] = "discrete"

    components: int = 10
    covariance: Literal["full", "tied", "diagonal", "spherical"] = "full"
    floor: float = 1e-3
    weights: Prior | None = None
    locs: Prior | None = None
    scales: Prior | None = None
    covariances: Prior | None = None

    def __post_init__(self) -> None:
        require(self.components >= 1, "at least 1 component", self.components)
        kinds = ("full", "tied", "diagonal", "spherical")
        require(self.covariance in kinds, f"a covariance of {', '.join(kinds)}", self.covariance)
        require(0 < self.floor < math.inf, "a positive floor", self.floor)
        absent = "scales" if self.covariance in ("full", "tied") else "covariances"
        here = f"no prior of {absent} for a covariance that is {self.covariance}"
        given = self.parameter_priors.get(absent)
        require(given is None, here, given)
        check_priors(BayesianMixtureModel.supports, self.parameter_priors)

    @property
    def parameter_priors(self) -> Mapping[str, Prior]:
        """The priors of parameters that have one."""
        priors = {"weights": self.weights, "locs": self.locs, "scales": self.scales, "covariances": self.covariances}
        return {name: prior for name, prior in priors.items() if prior is not None}

    def with_conjugate_priors(self, columns: Callable[[], tuple[Tensor, Tensor]]) -> GMM:
        """This mixture with a prior of every parameter that has none, as wide as the data (Fraley and Raftery 2007).

        pi ~ Dirichlet(1 / C), mu_cd ~ Normal(mean_d, sd_d), Sigma_c ~ InverseWishart(D + 2, diag(sd^2) / C^(2 / D)); variances
        of their own are InverseGamma(3/2, sd_d^2 / C^(2 / D) / 2), the same in one dimension.
        """
        matrices = self.covariance in ("full", "tied")
        names = ("weights", "locs", "covariances" if matrices else "scales")
        if all(name in self.parameter_priors for name in names):
            return self
        mean, scale = columns()
        within = scale * self.components ** (-1 / len(scale))
        variance = within.square() if self.covariance == "diagonal" else within.square().mean(0, keepdim=True)
        spread = InverseWishart(scale=rounded(within)) if matrices else RootInverseGamma(rate=rounded(variance / 2))
        priors = (Dirichlet(concentration=1 / self.components), Normal(loc=rounded(mean), scale=rounded(scale)), spread)
        given: dict[str, Any] = dict(zip(names, priors, strict=True)) | dict(self.parameter_priors)
        return dataclasses.replace(self, **given)

    @property
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that lie on the real line."""
        return frozenset({BINARY, UNIT_INTERVAL, REAL, COUNT})

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are not numbers."""
        refuse_categories("GMM", spec.table)
        if spec.kind not in self.accepts:
            raise ValueError(f"GMM is a model of numbers, but these data are {spec.kind}")
        check_complete(spec, self.parameter_priors)

    @property
    def isotropic(self) -> bool:
        """Whether a component has one scale for all elements."""
        return self.covariance == "spherical"

    @property
    def relative_floor(self) -> float:
        """The floor."""
        return self.floor

    def without_latents(self, spec: DataSpec) -> Likelihood:
        """Independent normal columns."""
        return independent_columns(spec, floor=self.floor, isotropic=self.isotropic)

    def build(self, spec: DataSpec) -> Any:
        """The Pyro program for data of this shape and number."""
        if self.parameter_priors:
            return BayesianMixtureModel(
                size=spec.size,
                columns=math.prod(spec.event_shape),
                components=self.components,
                structure=self.covariance,
                floor=self.floor,
                priors=self.parameter_priors,
            )
        program = IncompleteMixtureModel if spec.missing else MixtureModel
        return program(size=spec.size, columns=math.prod(spec.event_shape), declared=self)

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        spread = {"full": "Sigma_k", "tied": "Sigma", "diagonal": "diag(sigma_k^2)", "spherical": "sigma_k^2 I"}[
            self.covariance
        ]
        symbols = {"weights": "pi", "locs": "mu_k", "scales": "sigma_k", "covariances": spread}
        parameters = "".join(f"{symbols[name]} ~ {p.story(())}; " for name, p in self.parameter_priors.items())
        return f"{parameters}k ~ Categorical(pi_1..pi_{self.components}); x | k ~ Normal(mu_k, {spread})"


class MixtureModel(ModelProgram):
    """The program, and what is exact about it. An event of several axes is modelled as one vector of D elements.

    Parameters ``logits (C,)``, ``loc (C, D)``, and of matrices ``factor``, ``(C, D, D)`` full or ``(D, D)`` tied, else ``raw``,
    logarithms of scales ``(C, D)`` diagonal, ``(C, 1)`` spherical. On the diagonal of ``factor`` is the logarithm of that of
    the Cholesky factor L, below it L_ij / L_ii: a gradient step moves each column by a share of its own deviation given those
    before it, however thin the component is there.
    """

    latent = "discrete"
    takes_weights = True
    learning_rate = 1e-2
    random_start = True

    size: int
    logits: Tensor
    loc: Tensor
    raw: Tensor
    factor: Tensor

    def __init__(self, *, size: int, columns: int, declared: GMM) -> None:
        super().__init__()
        C, D = declared.components, columns
        self.size = size
        self.floor = declared.floor
        self.structure = covariances.covariance(declared.covariance)
        self.matrix = declared.covariance in ("full", "tied")
        self.latent_shape = (C,)
        shape = {"full": (C, D, D), "tied": (D, D), "diagonal": (C, D), "spherical": (C, 1)}[declared.covariance]
        self.spread_shape = (C,) if declared.covariance == "spherical" else shape
        self.logits = nn.Parameter(torch.zeros(C))
        self.loc = nn.Parameter(torch.randn(C, D))
        if self.matrix:
            self.factor = nn.Parameter(torch.zeros(shape))
        else:
            self.raw = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """The story, with the batch x ``(B, *event)`` observed."""
        loc, scale_tril = self.loc, self.scale_tril
        with data_plate(self.size, x):
            k = pyro.sample("k", dist.Categorical(logits=self.logits))
            component = dist.MultivariateNormal(loc[k], scale_tril=scale_tril[k], validate_args=False)
            return pyro.sample("x", component, obs=x.flatten(1))

    @property
    def scale_tril(self) -> Tensor:
        """Cholesky factors of the covariances, ``(C, D, D)``."""
        C, D = self.loc.shape
        if self.matrix:
            diagonal = self.factor.diagonal(dim1=-2, dim2=-1).exp() + MIN_DIAGONAL
            return (self.factor.tril(-1) * diagonal.unsqueeze(-1) + diagonal.diag_embed()).expand(C, D, D)
        return (self.raw.exp() + MIN_DIAGONAL).expand(C, D).diag_embed()

    @property
    def free_parameters(self) -> int:
        """C - 1 weights, C D means and the covariances of their structure; one that stands on its floor counts as any other."""
        C, D = self.loc.shape
        return C - 1 + C * D + self.structure.size(D) * (1 if self.structure.shared else C)

    @property
    def parameters_em(self) -> mixture.Parameters:
        """Weights ``(C,)``, means ``(C, D)`` and covariances in the shape of their structure, in float64."""
        weights, locs = self.logits.double().softmax(0), self.loc.double()
        if self.matrix:
            L = self.scale_tril.double()
            spread = L @ L.mT if self.factor.dim() == 3 else L[0] @ L[0].mT
        else:
            spread = (self.raw.double().exp() + MIN_DIAGONAL).square()
        return mixture.Parameters(weights, locs, spread.reshape(self.spread_shape))

    @property
    def gaussians(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pi ``(C,)``, mu ``(C, D)`` and the whole matrices Sigma ``(C, D, D)``, for pictures and comparisons."""
        with torch.no_grad():
            L = self.scale_tril.double()
            return self.logits.double().softmax(0), self.loc.detach().double(), L @ L.mT

    def normal_components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pi ``(C,)``, mu ``(C, D)`` and Sigma ``(C, D, D)``."""
        return self.gaussians

    def quantities(self) -> dict[str, Quantity]:
        """Weights, means and covariances."""
        return of_mixture(self.parameters_em, self.structure)

    def distance(self, other: Any) -> float:
        """Root mean square distance of the means, each matched with one of the other's, in units of what the model sees."""
        return matched_distance(self.parameters_em.locs.detach(), other.parameters_em.locs.detach())

    @property
    def sites(self) -> dict[str, Site]:
        """The component."""
        return {"k": Site("k", self.latent_shape, constraints.one_hot, index=True)}

    def prior(self) -> dist.Distribution:
        """p(k), one-hot, whose mean is pi."""
        return dist.OneHotCategorical(logits=self.logits)

    def decode(self, z: Tensor) -> dist.Distribution:
        """p(x | k) for one-hot z ``(..., C)``; responsibilities give the mean and covariance averaged by them."""
        L = self.scale_tril.double()
        covariance = torch.einsum("...c,cij->...ij", z.double(), L @ L.mT)  # which float32 may not tell from a singular one
        return dist.MultivariateNormal(z @ self.loc, scale_tril=torch.linalg.cholesky(covariance).to(self.loc))

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) of each datum in nats, ``(B,)``, x ``(B, *event)``; in float64, without gradients."""
        x = x.flatten(1)
        if self.matrix and being_recorded():  # a recorded graph cannot fall back
            return self._joint(x).logsumexp(1)
        try:
            return mixture.log_prob(self.parameters_em, x, self.structure)
        except (ValueError, torch.linalg.LinAlgError):  # gradient steps may lead where L L^T is singular in float64, L is not
            if not self.matrix:
                raise
        return torch.cat([self._joint(rows).logsumexp(1) for rows in x.split(ROWS_AT_ONCE)])

    @torch.no_grad()
    def posterior(self, x: Tensor) -> dist.Distribution:
        """The exact p(k | x) of each datum, one-hot, whose mean is the responsibilities."""
        x = x.flatten(1)
        joint = self._joint(x) if self.matrix else mixture.component_log_prob(self.parameters_em, x, self.structure)
        return dist.OneHotCategorical(logits=joint.to(x.dtype))

    def _joint(self, x: Tensor) -> Tensor:
        """Log p(k, x) of rows ``(B, D)`` by the Cholesky factors themselves, ``(B, C)``, in float64."""
        L = self.scale_tril.double()
        gaps = x.double().T - self.loc.double()[:, :, None]
        distance = torch.linalg.solve_triangular(L, gaps, upper=False).square().sum(1)
        log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = self.logits.double().log_softmax(0) - log_det - L.shape[-1] / 2 * math.log(2 * math.pi)
        return (constant[:, None] - distance / 2).T

    @torch.no_grad()
    def impute(self, x: Tensor, draws: int | None = None) -> Tensor:
        """Missing entries (NaN) of x ``(B, *event)`` at their exact conditional means, or drawn; in float64."""
        found = conditional.complete_mixture(self.parameters_em, x.flatten(1), self.structure, draws)
        return found.unflatten(-1, x.shape[1:])

    def em(self, rows: Any, *, generator: torch.Generator | None = None, accelerate: bool = True) -> Problem:
        """What EM iterates for rows ``(N, D)`` or batches of them, from a k-means++ start drawn by the generator."""
        return self._problem(rows, mixture.em_step, generator)

    def start_fit(self, context: Start) -> None:
        """Start where EM starts, so that methods differ only in how they go on."""
        self.assign(self.em(context.rows, generator=context.generator()).start)

    @torch.no_grad()
    def em_state(self) -> mixture.Parameters:
        """The present parameters, which EM iterates and :meth:`assign` takes."""
        return self.parameters_em

    @torch.no_grad()
    def assign(self, parameters: mixture.Parameters) -> None:
        """Write weights, means and covariances into the module."""
        weights, locs, spread = parameters
        self.logits.copy_(weights.log())
        self.loc.copy_(locs)
        if self.matrix:
            L = torch.linalg.cholesky(spread)
            self.factor.copy_(_factor(L, L.diagonal(dim1=-2, dim2=-1)))
        else:
            self.raw.copy_((spread.sqrt() - MIN_DIAGONAL).log().reshape(self.raw.shape))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *where: Any) -> None:
        if self.matrix and (raw := state_dict.pop(f"{prefix}raw", None)) is not None:  # runs of before had L below the diagonal
            state_dict[f"{prefix}factor"] = _factor(raw, raw.diagonal(dim1=-2, dim2=-1).exp() + MIN_DIAGONAL)
        super()._load_from_state_dict(state_dict, prefix, *where)

    @torch.no_grad()
    def grow(self, smaller: Any) -> bool:
        """Take the components of a mixture of fewer of the same structure, the heaviest one split until there are enough."""
        alike = isinstance(smaller, MixtureModel) and (smaller.structure, smaller.floor) == (self.structure, self.floor)
        if not alike or not len(smaller.logits) < len(self.logits):
            return False
        parameters = smaller.parameters_em
        while len(parameters.weights) < len(self.logits):
            parameters = mixture_start.divided(parameters, self.structure)
        self.assign(parameters)
        return True

    def _problem(self, rows: Any, step: Any, generator: torch.Generator | None) -> Problem:
        generator = generator or torch.Generator(self.loc.device).manual_seed(0)
        seen = moments.columns(rows)
        floor = floors.variance_floor(seen.mean, seen.variance, self.floor)
        still = floors.constant(seen.mean, seen.variance)
        structure = self.structure
        return Problem(
            step=partial(step, data=rows, covariance=structure, floor=floor),
            start=mixture_start.initial(rows, len(self.logits), structure, generator=generator, floor=floor),
            acceleration=None,
            assign=self.assign,
            remark=partial(mixture.dead_message, rows=self.size, covariance=structure, floor=floor, constant=still),
        )


def _factor(lower: Tensor, diagonal: Tensor) -> Tensor:
    """L_ij / L_ii below the diagonal, and the logarithm of the diagonal on it, of L below its diagonal, and that."""
    return lower.tril(-1) / diagonal.unsqueeze(-1) + (diagonal - MIN_DIAGONAL).log().diag_embed()


class IncompleteMixtureModel(MixtureModel):
    """The same model of data with missing entries (NaN), which are integrated out exactly."""

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p of the observed entries of each datum in nats, ``(B,)``."""
        return mixture_missing.log_prob(self.parameters_em, x.flatten(1).double(), self.structure)

    @torch.no_grad()
    def posterior(self, x: Tensor) -> dist.Distribution:
        """The exact p(k | observed entries) of each datum, one-hot."""
        found = mixture_missing.responsibilities(self.parameters_em, x.flatten(1).double(), self.structure)
        return dist.OneHotCategorical(probs=found.to(x.dtype))

    def em(self, rows: Any, *, generator: torch.Generator | None = None, accelerate: bool = True) -> Problem:
        """What EM iterates for rows ``(N, D)`` with NaN where missing, or batches of them."""
        return self._problem(rows, mixture_missing.em_step, generator)
