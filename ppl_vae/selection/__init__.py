"""Choosing: one experiment with several values of a field, and which of them the data favour."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
