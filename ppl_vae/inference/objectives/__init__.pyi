from .base import Estimate, Objective
from .beta import BetaELBO
from .elbo import ELBO
from .given import PyroLoss
from .importance import IWAE, Renyi
from .info import InfoVAE
from .warm_up import CyclicalWarmUp, LinearWarmUp, NoWarmUp, WarmUp

__all__ = [
    "ELBO",
    "IWAE",
    "BetaELBO",
    "CyclicalWarmUp",
    "Estimate",
    "InfoVAE",
    "LinearWarmUp",
    "NoWarmUp",
    "Objective",
    "PyroLoss",
    "Renyi",
    "WarmUp",
]
