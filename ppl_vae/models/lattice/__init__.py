"""Lattices: :class:`~ppl_vae.Ising`, :class:`~ppl_vae.Potts`, and the noise that data show them through."""

from ppl_vae.models.lattice.base import Lattice
from ppl_vae.models.lattice.ising import Ising
from ppl_vae.models.lattice.noise import Flip, GaussianNoise, Noise
from ppl_vae.models.lattice.potts import Potts

__all__ = ["Flip", "GaussianNoise", "Ising", "Lattice", "Noise", "Potts"]
