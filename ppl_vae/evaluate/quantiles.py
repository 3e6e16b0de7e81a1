"""Codes by the quantiles of their prior: as standard normal scores, and one dimension at a time.

    u_k = Phi^-1(F_k(z_k)),    z_k = F_k^-1(Phi(u_k))

Of a prior that is independent over dimensions F_k is that of each; of a normal with covariance L L^T u is L^-1 (z - m); of a
flow the noise that it maps; of several latent variables each goes by its factor given those above it (Rosenblatt 1952). Then
u ~ Normal(0, I) if and only if z ~ p(z).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td

from ppl_vae.evaluate.surgery import marginals
from ppl_vae.program.joint import Joint
from ppl_vae.program.sites import Tree

__all__ = ["along", "codes_of", "marginal_quantiles", "scores_of"]


def scores_of(prior: Any, z: Tree) -> Tree:
    """The normal scores of codes.

    Args:
        prior: p(z), a distribution or a joint.
        z: codes ``(*batch, *event)``, of a joint by name.

    Raises:
        ValueError: a prior without such scores, as a mixture.

    Examples:
        >>> scores_of(td.Independent(td.Uniform(torch.zeros(1), 2.0), 1), torch.tensor([1.0]))
        tensor([0.])
    """
    if isinstance(prior, Joint):
        return {name: _scores(factor, z[name]) for name, factor in prior.given(z).items()}
    return _scores(prior, z)


def codes_of(prior: Any, u: Tree) -> Tree:
    """The codes of normal scores, the inverse of :func:`scores_of`; of a joint those below follow those above.

    Examples:
        >>> codes_of(td.Independent(td.Normal(torch.ones(2), 3.0), 1), torch.tensor([0.0, 1.0]))
        tensor([1., 4.])
    """
    if isinstance(prior, Joint):
        return prior.walk(lambda name, factor: _codes(factor, u[name]))[0]
    return _codes(prior, u)


def along(prior: Any, z: Tree, name: str, place: int, levels: Tensor) -> Tree:
    """Codes of which one dimension goes through the quantiles of its prior, ``(S, *event)``.

    Of a joint what is above stays as it is, and what is below keeps its scores, so it follows as far as its prior does.

    Args:
        prior: p(z), a distribution or a joint, of one latent variable or of some by name.
        z: one code ``(*event)``.
        name: of the latent variable; of a lone one of no matter.
        place: of the dimension among its elements.
        levels: of the quantiles ``(S,)``, in (0, 1).

    Raises:
        ValueError: a prior that does not tell the quantiles of single dimensions, as a mixture or a flow.

    Examples:
        >>> p = td.Independent(td.Normal(torch.zeros(2), 1.0), 1)
        >>> along(p, torch.tensor([5.0, 7.0]), "z", 0, torch.tensor([0.5]))
        tensor([[0., 7.]])
    """
    if not isinstance(prior, Joint):
        return _replaced(prior, z, place, levels)
    scores = scores_of(prior, z)
    below = prior.names[prior.names.index(name) + 1 :]

    def take(site: str, factor: Any) -> Tensor:
        if site == name:
            return _replaced(factor, z[site], place, levels)
        u = scores[site].expand(len(levels), *z[site].shape)
        return _codes(factor, u) if site in below else z[site].expand_as(u)

    return prior.walk(take)[0]


def marginal_quantiles(each: Any, levels: Tensor) -> Tensor:
    """The quantiles of each dimension at levels ``(S,)``, ``(S, K)``, of independent dimensions as a batch of K.

    Raises:
        NotImplementedError: a distribution whose quantiles have no formula.

    Examples:
        >>> marginal_quantiles(td.Uniform(torch.zeros(2), 4.0), torch.tensor([0.25, 0.5]))
        tensor([[1., 1.],
                [2., 2.]])
    """
    found: Tensor = each.icdf(levels.reshape(-1, *(1 for _ in each.batch_shape)))
    return found.expand(len(levels), *each.batch_shape).reshape(len(levels), -1)


def _replaced(prior: Any, z: Tensor, place: int, levels: Tensor) -> Tensor:
    """The code with one element at quantiles, ``(S, *event)``."""
    each = marginals(prior)
    if each is None:
        raise ValueError(
            f"expected a prior that is known dimension by dimension, such as StandardNormal, got {_told(prior)}: walk between "
            "two data with fit.interpolate"
        )
    found = _or_refuse(prior, functools.partial(marginal_quantiles, each), levels.to(_exact(z)))
    codes = z.flatten().repeat(len(levels), 1)
    codes[:, place] = found[:, place].to(z.dtype)
    return codes.reshape(-1, *z.shape)


@functools.singledispatch
def _scores(p: Any, z: Tensor) -> Tensor:
    return _by_levels(p, z)


def _by_levels(p: Any, z: Tensor) -> Tensor:
    exact = z.to(_exact(z))
    info = torch.finfo(exact.dtype)
    levels = _or_refuse(p, p.cdf, exact).clamp(info.tiny, 1 - info.eps / 2)
    return torch.special.ndtri(levels).to(z.dtype)


@_scores.register
def _(p: td.Normal, z: Tensor) -> Tensor:
    return (z - p.loc) / p.scale


@_scores.register
def _(p: td.Independent, z: Tensor) -> Tensor:
    return _scores(p.base_dist, z)


@_scores.register
def _(p: td.MultivariateNormal, z: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(p.scale_tril, (z - p.loc)[..., None], upper=False)[..., 0]


@_scores.register
def _(p: td.TransformedDistribution, z: Tensor) -> Tensor:
    if not _bijective(p):
        return _by_levels(p, z)
    for transform in reversed(p.transforms):
        z = transform.inv(z)
    return _scores(p.base_dist, z)


@functools.singledispatch
def _codes(p: Any, u: Tensor) -> Tensor:
    return _at_levels(p, u)


def _at_levels(p: Any, u: Tensor) -> Tensor:
    levels = torch.special.ndtr(u.to(_exact(u)))
    return _or_refuse(p, p.icdf, levels).to(u.dtype)


@_codes.register
def _(p: td.Normal, u: Tensor) -> Tensor:
    return p.loc + p.scale * u


@_codes.register
def _(p: td.Independent, u: Tensor) -> Tensor:
    return _codes(p.base_dist, u)


@_codes.register
def _(p: td.MultivariateNormal, u: Tensor) -> Tensor:
    return p.loc + (p.scale_tril @ u[..., None])[..., 0]


@_codes.register
def _(p: td.TransformedDistribution, u: Tensor) -> Tensor:
    if not _bijective(p):
        return _at_levels(p, u)
    z = _codes(p.base_dist, u)
    for transform in p.transforms:
        z = transform(z)
    return z


def _bijective(p: td.TransformedDistribution) -> bool:
    return all(transform.bijective for transform in p.transforms)


def _or_refuse(p: Any, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    try:
        return function(values)
    except NotImplementedError:
        raise ValueError(
            f"expected a prior with a distribution function in closed form, normal or independent over dimensions, or a flow, "
            f"got {_told(p)}: walk on the line or on an arc, path='linear' or 'spherical'"
        ) from None


def _told(p: Any) -> str:
    """What a distribution is, without what only shapes it."""
    while isinstance(p, td.Independent):
        p = p.base_dist
    return type(p).__name__


def _exact(values: Tensor) -> torch.dtype:
    """In which levels keep the digits of the tails."""
    return torch.float32 if values.device.type == "mps" else torch.float64  # which has no float64
