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

from ppl_vae.exact.lattice.above import upper_bound
from ppl_vae.exact.lattice.bethe import Beliefs, beliefs
from ppl_vae.exact.lattice.gibbs import gibbs
from ppl_vae.exact.lattice.grid import Field, Grid, energy, grid, one_hot
from ppl_vae.exact.lattice.plan import LIMIT, plan
from ppl_vae.exact.lattice.sums import Marginals, draws, log_partition, marginals, mode

__all__ = [
    "LIMIT",
    "Beliefs",
    "Field",
    "Grid",
    "Marginals",
    "beliefs",
    "draws",
    "energy",
    "gibbs",
    "grid",
    "log_partition",
    "marginals",
    "mode",
    "one_hot",
    "plan",
    "upper_bound",
]
