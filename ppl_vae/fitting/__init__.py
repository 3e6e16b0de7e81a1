"""From declarations to a fit, and what can be asked of one."""

from ppl_vae.fitting.build import build, default_guide
from ppl_vae.fitting.callbacks.base import Callback, FitContext
from ppl_vae.fitting.callbacks.loggers import MLflow, TensorBoard
from ppl_vae.fitting.compare import Comparison, compare
from ppl_vae.fitting.defaults import default_method
from ppl_vae.fitting.divergence import divergence
from ppl_vae.fitting.experiment import Experiment
from ppl_vae.fitting.fit import fit
from ppl_vae.fitting.fitted import Fit

__all__ = [
    "Callback",
    "Comparison",
    "Experiment",
    "Fit",
    "FitContext",
    "MLflow",
    "TensorBoard",
    "build",
    "compare",
    "default_guide",
    "default_method",
    "divergence",
    "fit",
]
