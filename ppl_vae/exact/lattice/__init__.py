"""Lattices: grids of sites with a few states each, exactly where they are narrow, and by mean field, Bethe and Gibbs elsewhere.

=============================================  =========================================================================
module                                         what it does
=============================================  =========================================================================
:mod:`~ppl_vae.exact.lattice.grid`             sites, bonds, colours; the log-weight of states
:mod:`~ppl_vae.exact.lattice.plan`             the order of the sums, and how much they carry
:mod:`~ppl_vae.exact.lattice.sums`             log Z, marginals, draws and the most probable states, exactly
:mod:`~ppl_vae.exact.lattice.mean_field`       products of independent sites, site by site or all at once; a lower bound
:mod:`~ppl_vae.exact.lattice.above`            an upper bound, by strips
:mod:`~ppl_vae.exact.lattice.bethe`            belief propagation
:mod:`~ppl_vae.exact.lattice.gibbs`            Markov chains
=============================================  =========================================================================
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
