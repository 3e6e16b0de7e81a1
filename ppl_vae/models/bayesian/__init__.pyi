from .factors import BayesianFactorModel
from .mixture import BayesianMixtureModel
from .parameters import BayesianModel, ParameterCoordinates, check_complete, check_priors

__all__ = [
    "BayesianFactorModel",
    "BayesianMixtureModel",
    "BayesianModel",
    "ParameterCoordinates",
    "check_complete",
    "check_priors",
]
