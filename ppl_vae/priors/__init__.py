"""Priors p(z) and priors of parameters, one family a file."""

from ppl_vae.priors.base import Prior
from ppl_vae.priors.dirichlet import Dirichlet
from ppl_vae.priors.gaussian_mixture import GaussianMixture
from ppl_vae.priors.half_normal import HalfNormal
from ppl_vae.priors.inverse_wishart import InverseWishart
from ppl_vae.priors.log_normal import LogNormal
from ppl_vae.priors.normal import Normal
from ppl_vae.priors.standard_normal import StandardNormal

__all__ = ["Dirichlet", "GaussianMixture", "HalfNormal", "InverseWishart", "LogNormal", "Normal", "Prior", "StandardNormal"]
