"""Coordinate ascent for Gaussian mixtures whose parameters carry conjugate priors (Attias 1999; Bishop 2006, section 10.2).

    pi ~ Dirichlet(a),  m_c ~ N(m0, diag(v)),  S_c ~ InverseWishart(nu0, Psi0)          the priors, independent of each other
    q  = q(pi) prod_c q(m_c) q(S_c) prod_n q(k_n)                                       Dirichlet, normal, inverse Wishart

Given the shared factors the responsibilities are those of a mixture of plug-in Gaussians N(E[m_c], E[S_c^-1]^-1) with weights
of their own, so that the E-step is the one of EM (:mod:`ppl_vae.exact.mixture`), for all four covariance structures. A variance
of its own, as in the diagonal and the spherical one, is inverse-Wishart in one dimension: S ~ InverseGamma(nu / 2, Psi / 2).
Bounds are in nats per datum, in closed form, constants kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from ppl_vae.exact import mixture
from ppl_vae.exact.covariances import Covariance
from ppl_vae.exact.mixture import Parameters, Statistics
from ppl_vae.exact.moments import Data

__all__ = ["Factors", "Priors", "cavi_step", "initial", "joint", "kl_shared", "point", "update"]


class Priors(NamedTuple):
    """The priors of the parameters of a mixture of C Gaussians in D dimensions.

    Args:
        concentration: a, ``(C,)``.
        locs: m0, ``(C, D)``.
        variances: v, of the means about m0, ``(C, D)``.
        freedom: nu0, ``()``.
        scatter: Psi0 of each covariance: ``(D, D)`` full and tied, ``(D,)`` diagonal, ``()`` spherical; or one for each.
    """

    concentration: Tensor
    locs: Tensor
    variances: Tensor
    freedom: Tensor
    scatter: Tensor


class Factors(NamedTuple):
    """Q of the parameters.

    Args:
        concentration: of q(pi), ``(C,)``.
        locs: means of q(m_c), ``(C, D)``.
        loc_covariances: covariances of q(m_c): ``(C, D, D)`` full and tied, else variances ``(C, D)``.
        freedom: nu of q(S_c), ``(C,)``; of a tied one ``()``.
        scatter: Psi of q(S_c), in the shape that the covariances of the structure have.
    """

    concentration: Tensor
    locs: Tensor
    loc_covariances: Tensor
    freedom: Tensor
    scatter: Tensor


def initial(start: Parameters, data: Data, priors: Priors, covariance: Covariance) -> Factors:
    """The factors after one sweep from the responsibilities of a mixture with these parameters."""
    statistics = mixture.e_step(start, data, covariance)
    freedom = priors.freedom.expand(() if covariance.shared else statistics.counts.shape)
    like = Factors(statistics.counts, start.locs, start.locs, freedom, start.covariances * _per(freedom, start.covariances))
    return update(statistics, like, priors, covariance)


def cavi_step(factors: Factors, data: Data, priors: Priors, covariance: Covariance) -> tuple[Factors, Tensor]:
    """One sweep: new factors, and the ELBO of the old ones with the best responsibilities, in nats per datum."""
    parameters, log_mass = plug_in(factors, covariance)
    statistics = mixture.e_step(parameters, data, covariance)
    evidence = statistics.log_likelihood / statistics.rows + log_mass
    return update(statistics, factors, priors, covariance), evidence - kl_shared(factors, priors) / statistics.rows


def update(statistics: Statistics, factors: Factors, priors: Priors, covariance: Covariance) -> Factors:
    """Q(pi), then q(m_c) given the old q(S_c), then q(S_c), each the best there is given the others."""
    counts = statistics.counts + 10 * torch.finfo(statistics.counts.dtype).eps
    gaps = statistics.first / counts[:, None]
    means, spread = statistics.center + gaps, covariance.estimate(statistics.second, gaps, counts)
    locs, loc_covariances = _locs(means, counts, factors, priors)
    freedom, scatter = _spread(means, spread, counts, (locs, loc_covariances), priors, covariance)
    return Factors(priors.concentration + statistics.counts, locs, loc_covariances, freedom, scatter)


def plug_in(factors: Factors, covariance: Covariance) -> tuple[Parameters, Tensor]:
    """A mixture and log c ``()``: c times its joint density of x and k is exp E_q[log p(x, k | pi, m, S)]."""
    D = factors.locs.shape[-1]
    spread = factors.scatter / _per(factors.freedom, factors.scatter)
    a = factors.concentration
    log_weights = a.digamma() - a.sum().digamma() - _trace(factors.loc_covariances, spread) / 2
    log_weights = log_weights + (D * (math.log(2) - factors.freedom.log()) + _digammas(factors)) / 2
    log_mass = log_weights.logsumexp(0)
    return Parameters((log_weights - log_mass).exp(), factors.locs, spread), log_mass


def joint(factors: Factors, x: Tensor, covariance: Covariance) -> Tensor:
    """E_q[log p(x_n, k | pi, m, S)], ``(N, C)``: its softmax are the responsibilities, its logsumexp the bound."""
    parameters, log_mass = plug_in(factors, covariance)
    return mixture.component_log_prob(parameters, x, covariance) + log_mass


def kl_shared(factors: Factors, priors: Priors) -> Tensor:
    """KL(q(pi) q(m) q(S) || p(pi) p(m) p(S)) in nats, ``()``: of all data together."""
    weights = kl_divergence(Dirichlet(factors.concentration), Dirichlet(priors.concentration))
    V = factors.loc_covariances
    full = V.dim() == 3
    variances = V.diagonal(dim1=-2, dim2=-1) if full else V
    log_det = 2 * torch.linalg.cholesky(V).diagonal(dim1=-2, dim2=-1).log().sum() if full else V.log().sum()
    squares = (variances + (factors.locs - priors.locs).square()) / priors.variances
    locs = (squares - 1 + priors.variances.log()).sum() / 2 - log_det / 2
    return weights + locs + _kl_spread(factors, priors)


def point(factors: Factors) -> Parameters:
    """The means of q, where there are such: of a covariance else E[S^-1]^-1."""
    side = factors.scatter.shape[-1] if factors.loc_covariances.dim() == 3 else 1
    less = factors.freedom - side - 1
    divisor = torch.where(less > 0, less, factors.freedom)
    scatter = factors.scatter / _per(divisor, factors.scatter)
    return Parameters(factors.concentration / factors.concentration.sum(), factors.locs, scatter)


def _locs(means: Tensor, counts: Tensor, factors: Factors, priors: Priors) -> tuple[Tensor, Tensor]:
    """Of q(m_c): precision diag(1 / v) + n_c E[S_c^-1]."""
    spread = factors.scatter / _per(factors.freedom, factors.scatter)
    held = priors.locs / priors.variances
    if _matrices(factors):
        P = torch.cholesky_inverse(torch.linalg.cholesky(spread)).expand(len(means), -1, -1) * counts[:, None, None]
        V = torch.cholesky_inverse(torch.linalg.cholesky(P + priors.variances.reciprocal().diag_embed()))
        return (V @ (held[..., None] + P @ means[..., None]))[..., 0], V
    precision = counts[:, None] / (spread if spread.dim() == 2 else spread[:, None])
    V = (precision + priors.variances.reciprocal()).reciprocal()
    return V * (held + precision * means), V


def _spread(
    means: Tensor, spread: Tensor, counts: Tensor, q_locs: tuple[Tensor, Tensor], priors: Priors, covariance: Covariance
) -> tuple[Tensor, Tensor]:
    """Of q(S_c): nu0 + n_c, and Psi0 + sum_n r_nc E[(x_n - m_c)(x_n - m_c)^T]."""
    V, gaps, D = q_locs[1], means - q_locs[0], means.shape[-1]
    if V.dim() == 3:
        about = counts[:, None, None] * (gaps[:, :, None] * gaps[:, None, :] + V)
        if covariance.shared:
            return priors.freedom + counts.sum(), priors.scatter + counts.sum() * spread + about.sum(0)
        return priors.freedom + counts, priors.scatter + counts[:, None, None] * spread + about
    about = counts[:, None] * (gaps.square() + V)
    if spread.dim() == 1:
        return priors.freedom + D * counts, priors.scatter + D * counts * spread + about.sum(1)
    return priors.freedom + counts, priors.scatter + counts[:, None] * spread + about


def _matrices(factors: Factors) -> bool:
    """Whether covariances are matrices: all but the diagonal and the spherical ones."""
    return factors.scatter.dim() == 3 or factors.freedom.dim() == 0


def _per(values: Tensor, like: Tensor) -> Tensor:
    """Values ``(C,)`` or ``()`` with the axes of what they multiply."""
    return values.reshape(*values.shape, *(1,) * (like.dim() - values.dim()))


def _trace(loc_covariances: Tensor, spread: Tensor) -> Tensor:
    """tr(E[S_c^-1] V_c), ``(C,)``."""
    if loc_covariances.dim() == 3:
        return (torch.cholesky_inverse(torch.linalg.cholesky(spread)) * loc_covariances).sum((-2, -1))
    return (loc_covariances / (spread if spread.dim() == 2 else spread[:, None])).sum(-1)


def _digammas(factors: Factors) -> Tensor:
    """sum_d digamma((nu_c + 1 - d) / 2), d = 1 in all if each dimension has a variance of its own."""
    D = factors.locs.shape[-1]
    if not _matrices(factors):
        return D * (factors.freedom / 2).digamma()
    steps = torch.arange(D, dtype=factors.freedom.dtype, device=factors.freedom.device)
    return ((factors.freedom[..., None] - steps) / 2).digamma().sum(-1)


def _kl_spread(factors: Factors, priors: Priors) -> Tensor:
    """Of all q(S_c) from their priors; one dimension at a time where each has a variance of its own."""
    nu, Psi, Psi0 = factors.freedom, factors.scatter, priors.scatter
    if not _matrices(factors):
        nu, Psi, Psi0 = _per(nu, Psi).expand(Psi.shape), Psi[..., None, None], Psi0[..., None, None]
    D, nu0 = Psi.shape[-1], priors.freedom
    L, L0 = torch.linalg.cholesky(Psi), torch.linalg.cholesky(Psi0.expand(Psi.shape))
    log_ratio = 2 * (L.diagonal(dim1=-2, dim2=-1).log() - L0.diagonal(dim1=-2, dim2=-1).log()).sum(-1)
    trace = torch.linalg.solve_triangular(L, L0, upper=False).square().sum((-2, -1))
    steps = torch.arange(D, dtype=nu.dtype, device=nu.device)
    digammas = ((nu[..., None] - steps) / 2).digamma().sum(-1)
    gammas = torch.special.multigammaln(nu0 / 2, D) - torch.special.multigammaln(nu / 2, D)
    return (nu0 / 2 * log_ratio + nu / 2 * (trace - D) + gammas + (nu - nu0) / 2 * digammas).sum()
