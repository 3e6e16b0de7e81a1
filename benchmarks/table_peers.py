"""Both sides of the benchmark of tables: fits, densities by scipy, and what tells two fits of one optimum from two optima.

Without a floor of variances these likelihoods have no maximum, and the two libraries' floors differ: ours is 1e-3 of each
column's standard deviation, scikit-learn adds 1e-6 to variances of mixtures, whatever their units, and has 1e-12 for factors.
So a number of one side is compared with one of the other under one constraint, ours: what scikit-learn found is put on our
floor where it is below (what it found has a higher likelihood without it, which has no limit), and EM goes on from there.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture

import ppl_vae as pv
from ppl_vae.exact import floors, linear_gaussian, mixture, moments, profile, run
from ppl_vae.exact.covariances import covariance
from ppl_vae.exact.driver import Squarem

__all__ = ["COVARIANCES", "Compared", "factor_analysis", "gmm", "ppca"]

COVARIANCES = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
REG_COVAR = 1e-6  # scikit-learn's default
ITERATIONS = 1000


class Compared(NamedTuple):
    """Nats per datum of one table, model and seed.

    Args:
        ours: density, by scipy, of the model that ``pv.fit`` returned; NaN if it was refused.
        theirs: the same of scikit-learn's fit, its own floor; NaN if it raised.
        bounded: of scikit-learn's fit on our floor, EM going on from there.
        nearby: of what scikit-learn's EM makes of our fit, on our floor, EM going on from there: the optimum that ours is at.
            Its columns are in units of which ``reg_covar`` is our floor, so that it cannot leave through a lower one.
        lifted: whether ours or the bounded one of theirs stands on the floor in some direction, whose height then decides.
        refused: our error.
        raised: scikit-learn's error.
    """

    ours: float = np.nan
    theirs: float = np.nan
    bounded: float = np.nan
    nearby: float = np.nan
    lifted: bool = False
    refused: str = ""
    raised: str = ""


def gmm(x: np.ndarray, kind: str, components: int, seed: int, unit: float) -> Compared:
    """A Gaussian mixture from one start on each side; scikit-learn's ``reg_covar`` is its default in the units of the table."""
    fitted, refused = _ours(pv.GMM(components=components, covariance=kind), x, seed)
    peer, raised = _theirs(_peer(kind, components, seed, REG_COVAR * unit**2), x)
    result = Compared(refused=refused, raised=raised)
    if peer is not None:
        found = _parameters(peer)
        bounded = _bounded(found, kind, x)
        result = result._replace(
            theirs=_density(found, kind, x), bounded=_density(bounded, kind, x), lifted=_low(bounded, kind, x)
        )
    if fitted is not None:
        mine = mixture.Parameters(*(t.detach() for t in fitted.pair.model.parameters_em))
        again = _continued(mine, kind, x)
        lifted = result.lifted or _low(mine, kind, x)
        result = result._replace(
            ours=_density(mine, kind, x), nearby=_density(_bounded(again, kind, x), kind, x), lifted=lifted
        )
    return result


def factor_analysis(x: np.ndarray, factors: int) -> Compared:
    """Factor analysis, which starts from one fixed place on each side."""
    fitted, refused = _ours(pv.FactorAnalysis(latent_dim=factors), x, seed=0)
    options = {"svd_method": "lapack", "tol": 1e-8, "max_iter": ITERATIONS}
    peer, raised = _theirs(FactorAnalysis(factors, **options), x)
    result = Compared(refused=refused, raised=raised)
    if peer is not None:
        bounded = _bounded_factors(peer, x)
        result = result._replace(theirs=_normal(x, peer.mean_, peer.get_covariance()), bounded=_normal(x, *bounded))
    if fitted is not None:
        p = linear_gaussian.Parameters(*(t.detach() for t in fitted.pair.model.parameters_em))
        ours = _normal(x, *_moments_of(p))
        again, _ = _theirs(FactorAnalysis(factors, **options, noise_variance_init=p.noise.numpy()), x)
        nearby = ours if again is None else _normal(x, *_bounded_factors(again, x))
        result = result._replace(ours=ours, nearby=nearby)
    return result


def ppca(x: np.ndarray, factors: int) -> Compared:
    """PPCA by EM against scikit-learn's closed form, its N - 1 taken back to the maximum likelihood's N."""
    fitted, refused = _ours(pv.PPCA(latent_dim=factors), x, seed=0)
    peer, raised = _theirs(PCA(factors, svd_solver="full"), x * np.sqrt((len(x) - 1) / len(x)))
    result = Compared(refused=refused, raised=raised)
    if peer is not None:
        least = float(floors.common(_floor(x)))
        lifted = peer.get_covariance() + max(0.0, least - peer.noise_variance_) * np.eye(x.shape[1])
        theirs, bounded = (_normal(x, x.mean(0), spread) for spread in (peer.get_covariance(), lifted))
        result = result._replace(theirs=theirs, bounded=bounded, nearby=bounded)
    if fitted is not None:
        p = linear_gaussian.Parameters(*(t.detach() for t in fitted.pair.model.parameters_em))
        result = result._replace(ours=_normal(x, *_moments_of(p)))
    return result


def _ours(model: pv.Model, x: np.ndarray, seed: int) -> tuple[Any, str]:
    data = pv.load_data(x, valid=0.0, test=0.0, scale="none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on floors: what stands on them is compared on them
        try:
            return pv.fit(model, data, method=pv.EM(seed=seed), device="cpu", progress=None), ""
        except ValueError as error:
            return None, str(error)


def _theirs(peer: Any, x: np.ndarray) -> tuple[Any, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it did not converge
        try:
            return peer.fit(x), ""
        except ValueError as error:
            return None, str(error)


def _floor(x: np.ndarray) -> torch.Tensor:
    seen = moments.columns(torch.from_numpy(x))
    return floors.variance_floor(seen.mean, seen.variance)


def _parameters(peer: Any) -> mixture.Parameters:
    return mixture.Parameters(*(torch.from_numpy(a.copy()) for a in (peer.weights_, peer.means_, peer.covariances_)))


def _peer(kind: str, components: int, seed: int, ridge: float, **start: np.ndarray) -> GaussianMixture:
    options = {"covariance_type": COVARIANCES[kind], "reg_covar": ridge, "max_iter": ITERATIONS, "tol": 1e-6}
    return GaussianMixture(components, random_state=seed, **options, **start)


def _continued(p: mixture.Parameters, kind: str, x: np.ndarray) -> mixture.Parameters:
    """Scikit-learn's EM from a fit of ours, in units in which its ridge is our floor; the fit itself where it raises."""
    floor = _floor(x)
    unit = (covariance(kind).floor_of(floor) / REG_COVAR).sqrt().expand(x.shape[1])
    squared = {"full": unit[:, None] * unit, "tied": unit[:, None] * unit, "diagonal": unit**2, "spherical": unit[0] ** 2}[kind]
    spread = p.covariances / squared
    precisions = torch.linalg.inv(spread) if kind in ("full", "tied") else 1 / spread
    start = {"weights_init": p.weights, "means_init": p.locs / unit, "precisions_init": precisions}
    peer = _peer(kind, len(p.weights), 0, REG_COVAR, **{name: value.numpy() for name, value in start.items()})
    found, _ = _theirs(peer, x / unit.numpy())
    if found is None:
        return p
    weights, locs, spread = _parameters(found)
    return mixture.Parameters(weights, locs * unit, spread * squared)


def _low(p: mixture.Parameters, kind: str, x: np.ndarray) -> bool:
    unit = covariance(kind).floor_of(_floor(x)).sqrt().expand(x.shape[1])
    full = covariance(kind).expand(p.covariances, p.locs) / torch.outer(unit, unit)
    return bool(torch.linalg.eigvalsh(full).min() <= 1 + 1e-3)


def _bounded(p: mixture.Parameters, kind: str, x: np.ndarray) -> mixture.Parameters:
    rows, floor, structure = torch.from_numpy(x), _floor(x), covariance(kind)
    start = p._replace(covariances=structure.bound(p.covariances, floor))
    return run(lambda q: mixture.em_step(q, rows, structure, floor=floor), start, max_iterations=ITERATIONS).state


def _density(p: mixture.Parameters, kind: str, x: np.ndarray) -> float:
    full = covariance(kind).expand(p.covariances, p.locs).numpy()
    parts = [np.log(w) + _log_normal(x, m, S) for w, m, S in zip(p.weights.numpy(), p.locs.numpy(), full, strict=True)]
    return float(logsumexp(parts, axis=0).mean())


def _bounded_factors(peer: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    m, floor = moments.moments(torch.from_numpy(x)), _floor(x)
    noise = torch.maximum(torch.from_numpy(peer.noise_variance_), floor)
    start = linear_gaussian.Parameters(m.mean, torch.from_numpy(peer.components_.T.copy()), noise)
    scheme = Squarem(profile.to_vector, lambda v, like: profile.from_vector(v, like, m, floor=floor))
    step = lambda p: profile.profile_step(p, m, isotropic=False, floor=floor)  # noqa: E731
    return _moments_of(run(step, start, max_iterations=ITERATIONS, acceleration=scheme).state)


def _moments_of(p: linear_gaussian.Parameters) -> tuple[np.ndarray, np.ndarray]:
    return p.loc.numpy(), (p.loadings @ p.loadings.T + p.noise.diag()).numpy()


def _normal(x: np.ndarray, loc: np.ndarray, spread: np.ndarray) -> float:
    return float(_log_normal(x, loc, spread).mean())


def _log_normal(x: np.ndarray, loc: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """By scipy, in units of each column's deviation: its eigenvalues would drown in columns of very different scale."""
    unit = np.sqrt(np.diagonal(spread))
    found = multivariate_normal(np.zeros(len(loc)), spread / np.outer(unit, unit), allow_singular=True).logpdf((x - loc) / unit)
    return np.asarray(found).reshape(-1) - np.log(unit).sum()
