"""Approximate posteriors q(z | x)."""

from ppl_vae.guides.base import Guide
from ppl_vae.guides.bayesian import BayesianGuide
from ppl_vae.guides.categorical import AmortizedCategorical
from ppl_vae.guides.exact import ExactPosterior
from ppl_vae.guides.linear import AmortizedLinear
from ppl_vae.guides.normal import AmortizedNormal

__all__ = ["AmortizedCategorical", "AmortizedLinear", "AmortizedNormal", "BayesianGuide", "ExactPosterior", "Guide"]
