"""Models whose parameters carry priors, so that data leave a posterior over them too."""

from ppl_vae.models.bayesian.factors import BayesianFactorModel
from ppl_vae.models.bayesian.mixture import BayesianMixtureModel
from ppl_vae.models.bayesian.parameters import BayesianModel, ParameterCoordinates, check_complete, check_priors

__all__ = [
    "BayesianFactorModel",
    "BayesianMixtureModel",
    "BayesianModel",
    "ParameterCoordinates",
    "check_complete",
    "check_priors",
]
