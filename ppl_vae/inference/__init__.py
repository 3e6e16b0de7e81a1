"""Methods: how a pair is fitted."""

from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.cavi import CAVI
from ppl_vae.inference.methods.closed_form import ClosedForm
from ppl_vae.inference.methods.em import EM
from ppl_vae.inference.methods.nuts import NUTS
from ppl_vae.inference.methods.stages import Stages
from ppl_vae.inference.methods.svi import SVI
from ppl_vae.inference.objectives import (
    ELBO,
    IWAE,
    BetaELBO,
    CyclicalWarmUp,
    InfoVAE,
    LinearWarmUp,
    NoWarmUp,
    Objective,
    PyroLoss,
    Renyi,
    WarmUp,
)
from ppl_vae.inference.training.postmortem import NonFiniteError, Postmortem
from ppl_vae.inference.training.sampling import LatentDensity, Sampling

__all__ = [
    "CAVI",
    "ELBO",
    "EM",
    "IWAE",
    "NUTS",
    "SVI",
    "BetaELBO",
    "ClosedForm",
    "CyclicalWarmUp",
    "InfoVAE",
    "LatentDensity",
    "LinearWarmUp",
    "Method",
    "NoWarmUp",
    "NonFiniteError",
    "Objective",
    "Postmortem",
    "PyroLoss",
    "Renyi",
    "Sampling",
    "Stages",
    "WarmUp",
]
