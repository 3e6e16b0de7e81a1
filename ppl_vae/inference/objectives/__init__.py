"""What SVI climbs."""

from ppl_vae.inference.objectives.base import Estimate, Objective
from ppl_vae.inference.objectives.beta import BetaELBO
from ppl_vae.inference.objectives.elbo import ELBO
from ppl_vae.inference.objectives.given import PyroLoss
from ppl_vae.inference.objectives.importance import IWAE, Renyi
from ppl_vae.inference.objectives.info import InfoVAE
from ppl_vae.inference.objectives.warm_up import CyclicalWarmUp, LinearWarmUp, NoWarmUp, WarmUp

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
