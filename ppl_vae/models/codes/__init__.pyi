from .codebook import Codebook
from .updates import EMA, CodebookUpdate, Gradient
from .vq_vae import VQVAE

__all__ = ["EMA", "VQVAE", "Codebook", "CodebookUpdate", "Gradient"]
