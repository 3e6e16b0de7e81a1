"""Models of rows, element after element: Markov chains, hidden Markov models, linear dynamical systems."""

from ppl_vae.models.chains.hmm import HMM

__all__ = ["HMM"]
