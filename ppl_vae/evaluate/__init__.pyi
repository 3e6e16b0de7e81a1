from .bounds import elbo_terms, log_weights
from .metrics import evaluate, evaluating, log_jacobian
from .roc import ROC, roc
from .schedule import AIS
from .search import Gaps

__all__ = ["AIS", "ROC", "Gaps", "elbo_terms", "evaluate", "evaluating", "log_jacobian", "log_weights", "roc"]
