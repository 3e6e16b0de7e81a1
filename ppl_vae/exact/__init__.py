"""Expectation maximization: pure E- and M-steps on tensors, and one driver that knows no model.

==============================================  ======================================================================
module                                          what it does
==============================================  ======================================================================
:mod:`~ppl_vae.exact.driver`                       :func:`run` any step, check monotonicity, accelerate with :class:`Squarem`
:mod:`~ppl_vae.exact.moments`                      mean and covariance of data of any size
:mod:`~ppl_vae.exact.sharing`                      rows of which each of several processes takes a part
:mod:`~ppl_vae.exact.distances`                    squared distances of all pairs
:mod:`~ppl_vae.exact.floors`                       least variances, relative to the columns' own
:mod:`~ppl_vae.exact.linear_gaussian`              factor analysis and PPCA: E-step, M-step, log-likelihood
:mod:`~ppl_vae.exact.profile`                      their starts, closed forms and the accelerated step
:mod:`~ppl_vae.exact.posterior`                    their exact posterior and marginal, under any Gaussian prior
:mod:`~ppl_vae.exact.rotations`                    varimax, canonical loadings, principal angle
:mod:`~ppl_vae.exact.missing`                      factor analysis and PPCA with missing entries
:mod:`~ppl_vae.exact.covariances`                  full, tied, diagonal, spherical
:mod:`~ppl_vae.exact.mixture`                      Gaussian mixtures: E-step, M-step, log-density, responsibilities
:mod:`~ppl_vae.exact.mixture_start`                k-means++ and random starts
:mod:`~ppl_vae.exact.mixture_missing`              the E-step of mixtures with missing entries
:mod:`~ppl_vae.exact.lattice`                      spins on grids: sums, mean field, Bethe, chains
:mod:`~ppl_vae.exact.forward_backward`             hidden Markov chains: sums over paths, expected counts, the best path
:mod:`~ppl_vae.exact.kalman`                       linear dynamical systems: filter, smoother, moments, M-step
:mod:`~ppl_vae.exact.topics`                       mean field for topics, documents in padded blocks
:mod:`~ppl_vae.exact.collapsed_topics`             the same with topics and proportions integrated out
==============================================  ======================================================================

Fitting is always the same three lines::

    m = moments.moments(x)
    step = partial(profile.profile_step, moments=m, isotropic=False, floor=linear_gaussian.noise_floor(m))
    result = run(step, profile.initial(m, latent_dim=20))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
