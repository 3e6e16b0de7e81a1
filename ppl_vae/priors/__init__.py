"""Priors p(z) and priors of parameters, one family a file."""

from ppl_vae.priors.automatic_relevance import AutomaticRelevance
from ppl_vae.priors.base import Prior
from ppl_vae.priors.codes import CodesPrior, UniformCodes, build_codes_prior
from ppl_vae.priors.conditional import ConditionalNormal, ConditionalPrior
from ppl_vae.priors.dirichlet import Dirichlet
from ppl_vae.priors.exemplar import ExemplarPrior
from ppl_vae.priors.factorized_categorical import FactorizedCategorical
from ppl_vae.priors.flow import AutoregressiveFlow, CouplingFlow, SplineFlow
from ppl_vae.priors.gaussian_grid import GaussianGrid
from ppl_vae.priors.gaussian_mixture import GaussianMixture
from ppl_vae.priors.half_normal import HalfNormal
from ppl_vae.priors.inverse_wishart import InverseWishart
from ppl_vae.priors.laplace import LaplacePrior
from ppl_vae.priors.log_normal import LogNormal
from ppl_vae.priors.logistic import Logistic
from ppl_vae.priors.logistic_normal import LogisticNormal
from ppl_vae.priors.multivariate_normal import MultivariateNormal
from ppl_vae.priors.normal import Normal
from ppl_vae.priors.one_hot import OneHotCategorical
from ppl_vae.priors.projected_normal import ProjectedNormal
from ppl_vae.priors.root_inverse_gamma import RootInverseGamma
from ppl_vae.priors.standard_normal import StandardNormal
from ppl_vae.priors.student_t import StudentTPrior
from ppl_vae.priors.uniform import Uniform
from ppl_vae.priors.vamp import VampPrior

__all__ = [
    "AutomaticRelevance",
    "AutoregressiveFlow",
    "CodesPrior",
    "ConditionalNormal",
    "ConditionalPrior",
    "CouplingFlow",
    "Dirichlet",
    "ExemplarPrior",
    "FactorizedCategorical",
    "GaussianGrid",
    "GaussianMixture",
    "HalfNormal",
    "InverseWishart",
    "LaplacePrior",
    "LogNormal",
    "Logistic",
    "LogisticNormal",
    "MultivariateNormal",
    "Normal",
    "OneHotCategorical",
    "Prior",
    "ProjectedNormal",
    "RootInverseGamma",
    "SplineFlow",
    "StandardNormal",
    "StudentTPrior",
    "Uniform",
    "UniformCodes",
    "VampPrior",
    "build_codes_prior",
]
