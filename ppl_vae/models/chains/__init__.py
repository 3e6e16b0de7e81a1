"""Models of rows, element after element: Markov chains, hidden Markov models, linear dynamical systems."""

from ppl_vae.models.chains.dynamical import LinearDynamicalSystem
from ppl_vae.models.chains.hmm import HMM
from ppl_vae.models.chains.markov import MarkovChain

__all__ = ["HMM", "LinearDynamicalSystem", "MarkovChain"]
