"""Coordinate ascent of Gaussian mixtures whose parameters carry conjugate priors (Bishop 2006, section 10.2).

q(pi, mu, Sigma, k | x) = Dirichlet(pi) prod_c Normal(mu_c) InverseWishart(Sigma_c) prod_n Categorical(k_n)

Of a ``diagonal`` or ``spherical`` covariance the variances are inverse gamma.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.exact import Problem, Sweep, mixture_start, variational_mixture
from ppl_vae.exact.covariances import Covariance
from ppl_vae.exact.variational_mixture import Factors, Priors
from ppl_vae.models.bayesian.mean_field import FactorsGuide, conjugate_priors
from ppl_vae.models.bayesian.parameters import BayesianModel
from ppl_vae.priors.dirichlet import DirichletModule, LogDirichlet
from ppl_vae.priors.inverse_wishart import InverseWishartDistribution, InverseWishartModule
from ppl_vae.priors.normal import NormalModule
from ppl_vae.priors.root_inverse_gamma import RootInverseGammaDistribution, RootInverseGammaModule
from ppl_vae.program.joint import Joint
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec, ELBOTerms

__all__ = ["MixtureGuide", "mixture_problem"]

FAMILIES: dict[str, dict[str, type[nn.Module]]] = {
    "weights": {"Dirichlet": DirichletModule},
    "locs": {"Normal": NormalModule, "StandardNormal": NormalModule},
    "covariances": {"InverseWishart": InverseWishartModule},
    "scales": {"RootInverseGamma": RootInverseGammaModule},
}
ROW = 1.0  # expected rows of a component, below which it is called empty


class MixtureGuide(FactorsGuide):
    """The factors of a mixture's parameters; those of the components follow from them."""

    family = Factors

    def __init__(self, model: Any, spec: DataSpec) -> None:
        priors = _priors(model, conjugate_priors(model, FAMILIES))
        super().__init__(model, spec, _prior_factors(priors, model.structure))

    @property
    def priors(self) -> Priors:
        """Of the parameters, in float64."""
        model = self._model[0]
        return _priors(model, conjugate_priors(model, FAMILIES))

    @property
    def effective_components(self) -> int:
        """How many components are expected to hold a row or more."""
        return int((self.factors.concentration - self.priors.concentration >= ROW).sum())

    def draw(self, q: Any, *batch: Tensor) -> Any:
        """The number of a component of each datum."""
        with data_plate(self.size, batch[0]):
            return pyro.sample(self.site, dist.Categorical(logits=q.logits), infer={"enumerate": "parallel"})

    @torch.no_grad()
    def posterior(self, x: Tensor) -> dist.Distribution:
        """q(k | x), one-hot."""
        joint = variational_mixture.joint(self.factors, x.flatten(1), self._structure)
        return dist.OneHotCategorical(logits=joint.to(x.dtype))

    @torch.no_grad()
    def bound(self, x: Tensor) -> ELBOTerms:
        """The ELBO of each datum, the best there is of q(k_n)."""
        factors = self.factors
        joint = variational_mixture.joint(factors, x.flatten(1), self._structure)
        shared = variational_mixture.kl_shared(factors, self.priors) / self.total
        a = factors.concentration
        reconstruction = (joint.softmax(1) * (joint - a.digamma() + a.sum().digamma())).sum(1)
        elbo = joint.logsumexp(1) - shared
        return ELBOTerms(elbo, reconstruction, reconstruction - elbo)

    def parameters_posterior(self) -> Joint:
        """Dirichlet, normal, and inverse Wishart or root inverse gamma."""
        kind = self._model[0].values["locs"].dtype
        q = Factors(*(value.to(kind) for value in self.factors))
        full = q.loc_covariances.dim() == 3
        V = q.loc_covariances if full else q.loc_covariances.diag_embed()
        found: dict[str, Any] = {"weights": LogDirichlet(q.concentration)}
        found["locs"] = dist.MultivariateNormal(q.locs, covariance_matrix=V).to_event(1)
        if full:
            spread: Any = InverseWishartDistribution(q.freedom, torch.linalg.cholesky(q.scatter))
            return Joint(found | {"covariances": spread.to_event(q.freedom.dim())})
        rate = (q.scatter if q.scatter.dim() == 2 else q.scatter[:, None]) / 2
        return Joint(found | {"scales": RootInverseGammaDistribution(q.freedom[:, None] / 2, rate).to_event(2)})

    def points(self, factors: Factors) -> dict[str, Tensor]:
        """Means, of scales the roots of the variances' means."""
        weights, locs, spread = variational_mixture.point(factors)
        if factors.loc_covariances.dim() == 3:
            return {"weights": weights, "locs": locs, "covariances": spread}
        return {"weights": weights, "locs": locs, "scales": (spread if spread.dim() == 2 else spread[:, None]).sqrt()}

    @property
    def _structure(self) -> Covariance:
        structure: Covariance = self._model[0].structure
        return structure


def mixture_problem(model: Any, guide: MixtureGuide, rows: Any, sweep: Sweep) -> Problem:
    """What coordinate ascent iterates; a start is one of EM's, k-means++ of the sweep's generator or of a fixed one."""
    sweep.refuse("GMM")
    priors, structure = guide.priors, model.structure
    components = len(priors.concentration)
    generator = sweep.generator or torch.Generator(priors.locs.device).manual_seed(0)
    begun = mixture_start.initial(rows, components, structure, generator=generator, floor=_least(priors, structure))
    start = variational_mixture.initial(begun, rows, priors, structure)
    step = partial(variational_mixture.cavi_step, data=rows, priors=priors, covariance=structure)

    def remark(factors: Factors) -> str | None:
        empty = (factors.concentration - priors.concentration < ROW).nonzero().flatten().tolist()
        if not empty:
            return None
        return (
            f"components {empty} of {components} are expected to hold less than a row each: the priors have switched them off, "
            f"{components - len(empty)} are in use"
        )

    return Problem(step, start, None, guide.assign, remark)


def _least(priors: Priors, structure: Covariance) -> Tensor:
    """A small share of the variances that the priors expect, below which no start begins."""
    matrices = structure.shared or priors.scatter.dim() == 3
    return 1e-6 * (priors.scatter.diagonal(dim1=-2, dim2=-1) if matrices else priors.scatter).min()


def _priors(model: BayesianModel, built: dict[str, Any]) -> Priors:
    """The numbers of the built priors, in float64."""
    locs, weights = built["locs"], built["weights"]
    if "covariances" in built:
        wishart = built["covariances"]
        freedom, scatter = wishart.freedom.double().reshape(-1)[0], wishart.scale.double().square().diag_embed()
    else:
        freedom = 2 * built["scales"].concentration.double().reshape(-1)[0]
        scatter = 2 * built["scales"].rate.double()
        scatter = scatter[:, 0] if model.structure.size(2) == 1 else scatter
    return Priors(weights.concentration.double(), locs.loc.double(), locs.scale.double().square(), freedom, scatter)


def _prior_factors(priors: Priors, structure: Covariance) -> Factors:
    """The priors themselves as factors: what the buffers hold before anything is fitted."""
    C, shared = len(priors.concentration), structure.shared
    matrices = priors.scatter.dim() == 3 or shared
    V = priors.variances.diag_embed() if matrices else priors.variances
    freedom = priors.freedom.expand(() if shared else (C,))
    return Factors(*(value.clone() for value in (priors.concentration, priors.locs, V, freedom, priors.scatter)))
