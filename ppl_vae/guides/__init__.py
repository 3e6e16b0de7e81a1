"""Approximate posteriors q(z | x)."""

from ppl_vae.guides.base import Guide
from ppl_vae.guides.normal import AmortizedNormal

__all__ = ["AmortizedNormal", "Guide"]
