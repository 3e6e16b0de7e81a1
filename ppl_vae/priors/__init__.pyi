from .automatic_relevance import AutomaticRelevance
from .base import Prior
from .codes import CodesPrior, UniformCodes, build_codes_prior
from .conditional import ConditionalNormal, ConditionalPrior
from .dirichlet import Dirichlet
from .exemplar import ExemplarPrior
from .factorized_categorical import FactorizedCategorical
from .flow import AutoregressiveFlow, CouplingFlow, SplineFlow
from .gaussian_grid import GaussianGrid
from .gaussian_mixture import GaussianMixture
from .half_normal import HalfNormal
from .inverse_wishart import InverseWishart
from .laplace import LaplacePrior
from .log_normal import LogNormal
from .logistic import Logistic
from .logistic_normal import LogisticNormal
from .multivariate_normal import MultivariateNormal
from .normal import Normal
from .one_hot import OneHotCategorical
from .projected_normal import ProjectedNormal
from .root_inverse_gamma import RootInverseGamma
from .standard_normal import StandardNormal
from .student_t import StudentTPrior
from .uniform import Uniform
from .vamp import VampPrior

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
