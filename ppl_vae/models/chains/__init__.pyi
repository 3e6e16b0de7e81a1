from .dynamical import LinearDynamicalSystem
from .hmm import HMM
from .markov import MarkovChain

__all__ = ["HMM", "LinearDynamicalSystem", "MarkovChain"]
