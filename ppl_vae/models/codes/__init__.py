"""Models of grids of codes: each place holds one of K vectors that are learned."""

from ppl_vae.models.codes.codebook import Codebook
from ppl_vae.models.codes.updates import EMA, CodebookUpdate, Gradient
from ppl_vae.models.codes.vq_vae import VQVAE

__all__ = ["EMA", "VQVAE", "Codebook", "CodebookUpdate", "Gradient"]
