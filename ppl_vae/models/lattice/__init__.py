"""Lattices: :class:`~ppl_vae.Ising`, :class:`~ppl_vae.Potts`, and the noise that data show them through."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
