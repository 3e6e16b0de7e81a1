"""Generative stories p(x, z)."""

from ppl_vae.models.base import Model
from ppl_vae.models.vae import VAE

__all__ = ["VAE", "Model"]
