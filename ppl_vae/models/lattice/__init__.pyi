from .base import Lattice
from .ising import Ising
from .noise import Flip, GaussianNoise, Noise
from .potts import Potts

__all__ = ["Flip", "GaussianNoise", "Ising", "Lattice", "Noise", "Potts"]
