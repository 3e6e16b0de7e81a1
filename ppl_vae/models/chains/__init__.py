"""Models of rows, element after element: Markov chains, hidden Markov models, linear dynamical systems."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
