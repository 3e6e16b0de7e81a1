"""Methods: how a pair is fitted."""

from ppl_vae.inference.boards import MLflow, TensorBoard
from ppl_vae.inference.compare import Comparison, compare
from ppl_vae.inference.em import EM, ClosedForm
from ppl_vae.inference.fit import build, fit
from ppl_vae.inference.fitted import Fit
from ppl_vae.inference.mcmc import NUTS
from ppl_vae.inference.method import Method
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
from ppl_vae.inference.postmortem import NonFiniteError, Postmortem
from ppl_vae.inference.svi import SVI

__all__ = [
    "ELBO",
    "EM",
    "IWAE",
    "NUTS",
    "SVI",
    "BetaELBO",
    "ClosedForm",
    "Comparison",
    "CyclicalWarmUp",
    "Fit",
    "InfoVAE",
    "LinearWarmUp",
    "MLflow",
    "Method",
    "NoWarmUp",
    "NonFiniteError",
    "Objective",
    "Postmortem",
    "PyroLoss",
    "Renyi",
    "TensorBoard",
    "WarmUp",
    "build",
    "compare",
    "fit",
]
