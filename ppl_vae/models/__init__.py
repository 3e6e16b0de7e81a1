"""Generative stories p(x, z)."""

from ppl_vae.models.base import Model
from ppl_vae.models.gmm import GMM
from ppl_vae.models.linear_gaussian import PPCA, FactorAnalysis
from ppl_vae.models.vae import VAE

__all__ = ["GMM", "PPCA", "VAE", "FactorAnalysis", "Model"]
