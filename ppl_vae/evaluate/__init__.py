"""How good a pair is, in nats per datum."""

from ppl_vae.evaluate.bounds import elbo_terms, log_weights
from ppl_vae.evaluate.metrics import batches, evaluate, evaluating, log_jacobian

__all__ = ["batches", "elbo_terms", "evaluate", "evaluating", "log_jacobian", "log_weights"]
