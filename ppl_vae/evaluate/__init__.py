"""How good a pair is, in nats per datum."""

from ppl_vae.evaluate.annealing import AIS
from ppl_vae.evaluate.bounds import elbo_terms, log_weights
from ppl_vae.evaluate.gaps import Gaps
from ppl_vae.evaluate.metrics import batches, evaluate, evaluating, log_jacobian
from ppl_vae.evaluate.roc import ROC, roc

__all__ = ["AIS", "ROC", "Gaps", "batches", "elbo_terms", "evaluate", "evaluating", "log_jacobian", "log_weights", "roc"]
