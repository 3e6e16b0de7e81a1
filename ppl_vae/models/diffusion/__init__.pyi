from .diffusion import Diffusion
from .noise import CosineNoise, LearnedNoise, LinearNoise, NoiseSchedule

__all__ = ["CosineNoise", "Diffusion", "LearnedNoise", "LinearNoise", "NoiseSchedule"]
