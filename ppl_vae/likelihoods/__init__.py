"""Likelihoods p(x | h), one family a file."""

from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.likelihoods.bernoulli import Bernoulli
from ppl_vae.likelihoods.gaussian import Gaussian

__all__ = ["Bernoulli", "Gaussian", "Likelihood"]
