"""Diffusion: an iterated VAE whose guide only adds noise."""

from ppl_vae.models.diffusion.diffusion import Diffusion
from ppl_vae.models.diffusion.noise import CosineNoise, LearnedNoise, LinearNoise, NoiseSchedule

__all__ = ["CosineNoise", "Diffusion", "LearnedNoise", "LinearNoise", "NoiseSchedule"]
