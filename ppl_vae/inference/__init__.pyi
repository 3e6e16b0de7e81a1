from .methods.base import Method
from .methods.cavi import CAVI
from .methods.closed_form import ClosedForm
from .methods.em import EM
from .methods.nuts import NUTS
from .methods.stages import Stages
from .methods.svi import SVI
from .objectives import (
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
from .training.postmortem import NonFiniteError, Postmortem
from .training.sampling import LatentDensity, Sampling

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
