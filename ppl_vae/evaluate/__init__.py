"""How good a pair is, in nats per datum."""

from ppl_vae.evaluate.bounds import elbo_terms, log_weights
from ppl_vae.evaluate.metrics import evaluate, evaluating

__all__ = ["elbo_terms", "evaluate", "evaluating", "log_weights"]
