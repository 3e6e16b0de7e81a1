from .build import build, default_guide
from .callbacks.base import Callback, FitContext
from .callbacks.loggers import MLflow, TensorBoard
from .compare import Comparison, compare
from .defaults import default_method
from .divergence import divergence
from .experiment import Experiment
from .fit import fit
from .fitted import Fit

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
