"""Models of grids of codes: each place holds one of K vectors that are learned."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
