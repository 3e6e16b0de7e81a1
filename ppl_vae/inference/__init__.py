"""Methods: how a pair is fitted."""

from ppl_vae.inference.compare import Comparison, compare
from ppl_vae.inference.em import EM, ClosedForm
from ppl_vae.inference.fit import Fit, build, fit
from ppl_vae.inference.mcmc import NUTS
from ppl_vae.inference.method import Method
from ppl_vae.inference.objectives import ELBO, Objective
from ppl_vae.inference.svi import SVI

__all__ = ["ELBO", "EM", "NUTS", "SVI", "ClosedForm", "Comparison", "Fit", "Method", "Objective", "build", "compare", "fit"]
