"""Coordinate ascent of factor analysis whose parameters carry conjugate priors (Bishop 1999; Ghahramani and Beal 2000).

q(W, mu, psi, z | x) = prod_d Normal(w_d, mu_d) InverseGamma(psi_d) prod_n Normal(z_n)

With ``AutomaticRelevance`` loadings the precisions of the factors have factors of q of their own, which are gamma.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.exact import Problem, Sweep, moments, profile, variational_factors
from ppl_vae.exact.variational_factors import Factors, Priors
from ppl_vae.models.bayesian.mean_field import FactorsGuide, conjugate_priors
from ppl_vae.priors.automatic_relevance import AutomaticRelevanceModule
from ppl_vae.priors.normal import NormalModule
from ppl_vae.priors.root_inverse_gamma import RootInverseGammaDistribution, RootInverseGammaModule
from ppl_vae.program.joint import Joint
from ppl_vae.types import DataSpec, ELBOTerms

__all__ = ["FactorAnalysisGuide", "factors_problem"]

FAMILIES: dict[str, dict[str, type[nn.Module]]] = {
    "weights": {
        "Normal": NormalModule,
        "StandardNormal": NormalModule,
        "AutomaticRelevance": AutomaticRelevanceModule,
    },
    "loc": {"Normal": NormalModule, "StandardNormal": NormalModule},
    "scale": {"RootInverseGamma": RootInverseGammaModule},
}
RELEVANT = 0.01  # of the largest column's mean square: below it a factor is called switched off


class FactorAnalysisGuide(FactorsGuide):
    """The factors of loadings, means and noise; those of z follow from them."""

    family = Factors

    def __init__(self, model: Any, spec: DataSpec) -> None:
        super().__init__(model, spec, _prior_factors(_priors(conjugate_priors(model, FAMILIES)), model.latent_shape[0]))

    @property
    def priors(self) -> Priors:
        """Of the parameters, in float64."""
        return _priors(conjugate_priors(self._model[0], FAMILIES))

    @property
    def effective_factors(self) -> int:
        """How many columns of E[W] have a mean square of at least a hundredth of the largest one's."""
        return int(_relevant(self.factors).sum())

    @torch.no_grad()
    def posterior(self, x: Tensor) -> dist.Distribution:
        """q(z | x), normal of one covariance for all data."""
        q = variational_factors.latent_factor(self.factors)
        mean = x.flatten(1).double() @ q.weight.T - q.shift
        return dist.MultivariateNormal(mean.to(x.dtype), scale_tril=torch.linalg.cholesky(q.covariance).to(x.dtype))

    @torch.no_grad()
    def bound(self, x: Tensor) -> ELBOTerms:
        """The ELBO of each datum, the best there is of q(z_n)."""
        factors = self.factors
        reconstruction, kl = variational_factors.terms(factors, x.flatten(1).double())
        kl = kl + variational_factors.kl_shared(factors, self.priors) / self.total
        return ELBOTerms(reconstruction - kl, reconstruction, kl)

    def parameters_posterior(self) -> Joint:
        """Normal of W and, given its draw, of mu; root inverse gamma of the noise scales."""
        q, kind = self.factors, self._model[0].values["loc"].dtype
        K = q.locs.shape[1] - 1
        within, across = q.covariances[:, :K, :K], q.covariances[:, :K, K]
        slope = torch.linalg.solve(within, across)
        left = (q.covariances[:, K, K] - (slope * across).sum(1)).sqrt()
        loc, W, slope, left = (value.to(kind) for value in (q.locs[:, K], q.locs[:, :K], slope, left))
        return Joint(
            {
                "weights": dist.MultivariateNormal(W, covariance_matrix=within.to(kind)).to_event(1),
                "loc": lambda drawn: dist.Normal(loc + ((drawn["weights"] - W) * slope).sum(-1), left).to_event(1),
                "scale": RootInverseGammaDistribution(q.noise_shape.to(kind), q.noise_rate.to(kind)).to_event(1),
            }
        )

    def points(self, factors: Factors) -> dict[str, Tensor]:
        """Means, of scales the roots of the variances' means."""
        loc, W, noise = variational_factors.point(factors)
        return {"weights": W, "loc": loc, "scale": noise[: len(factors.noise_shape)].sqrt()}


def factors_problem(model: Any, guide: FactorAnalysisGuide, rows: Any, sweep: Sweep) -> Problem:
    """What coordinate ascent iterates, from the moments of the rows alone; a start is one of EM's."""
    sweep.refuse("FactorAnalysis")
    priors, seen, K = guide.priors, moments.moments(rows), model.latent_shape[0]
    begun = profile.initial(seen, K, generator=sweep.generator)
    step = partial(variational_factors.cavi_step, seen=seen, priors=priors)

    def remark(factors: Factors) -> str | None:
        off = (~_relevant(factors)).nonzero().flatten().tolist()
        if not off or priors.relevance is None:
            return None
        return f"factors {off} of {K} load on nothing to speak of: the prior has switched them off, {K - len(off)} are in use"

    return Problem(step, variational_factors.initial(begun, seen, priors), None, guide.assign, remark)


def _relevant(factors: Factors) -> Tensor:
    squares = factors.locs[:, :-1].square().mean(0)
    return squares >= RELEVANT * squares.max()


def _priors(built: dict[str, Any]) -> Priors:
    """The numbers of the built priors, in float64."""
    weights, loc, scale = (built[name] for name in ("weights", "loc", "scale"))
    columns = loc.loc.double()[:, None], loc.scale.double().square().reciprocal()[:, None]
    noise = scale.concentration.double(), scale.rate.double()
    if isinstance(weights, AutomaticRelevanceModule):
        ones = columns[0].new_ones(weights.shape)
        relevance = weights.concentration.double(), weights.rate.double()
        return Priors(torch.cat([0 * ones, columns[0]], 1), torch.cat([ones, columns[1]], 1), noise, relevance)
    precisions = weights.scale.double().square().reciprocal()
    return Priors(torch.cat([weights.loc.double(), columns[0]], 1), torch.cat([precisions, columns[1]], 1), noise, None)


def _prior_factors(priors: Priors, latent_dim: int) -> Factors:
    """The priors themselves as factors: what the buffers hold before anything is fitted."""
    ones = priors.locs.new_ones(latent_dim)
    shape, rate = (ones, ones) if priors.relevance is None else (priors.relevance[0] * ones, priors.relevance[1] * ones)
    V = priors.precisions.reciprocal().diag_embed()
    return Factors(*(value.clone() for value in (priors.locs, V, *priors.noise, shape, rate)))
