"""Priors p(z), one family a file."""

from ppl_vae.priors.base import Prior
from ppl_vae.priors.gaussian_mixture import GaussianMixture
from ppl_vae.priors.normal import Normal
from ppl_vae.priors.standard_normal import StandardNormal

__all__ = ["GaussianMixture", "Normal", "Prior", "StandardNormal"]
