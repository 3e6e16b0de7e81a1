"""What the KL term of the ELBO consists of: information in the codes, and the aggregate posterior's distance to the prior.

    1/N sum_n KL(q(z | x_n) || p(z)) = I_q(n; z) + KL(q(z) || p(z)),    q(z) = 1/N sum_n q(z | x_n)

(Hoffman and Johnson 2016), and of a prior that is independent over dimensions the second part falls in two (Chen et al. 2018):

    KL(q(z) || p(z)) = KL(q(z) || prod_k q(z_k)) + sum_k KL(q(z_k) || p(z_k))
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.utils._pytree import tree_leaves, tree_map

from ppl_vae.program.sites import Tree
from ppl_vae.simplex import moved

__all__ = ["dimensions", "marginals", "surgery"]

ELEMENTS_AT_ONCE = 2**20  # of the table of every draw's density under every posterior


@functools.singledispatch
def marginals(q: Any) -> td.Distribution | None:
    """q(z_k) of each dimension, as a batch ``(*batch, K)`` of scalars, where the distribution gives them; else ``None``.

    Args:
        q: a distribution of vectors, or of arrays, whose axes stay.
    """
    return None


@marginals.register
def _(q: td.Independent) -> td.Distribution | None:
    inner = marginals(q.base_dist)
    return q.base_dist if inner is None and q.reinterpreted_batch_ndims else inner


@marginals.register(td.MultivariateNormal)
@marginals.register(td.LowRankMultivariateNormal)
def _(q: Any) -> td.Distribution:
    return td.Normal(q.mean, q.variance.sqrt())


def dimensions(values: Tensor, event_shape: torch.Size) -> Tensor:
    """``(*batch, *event)`` as ``(*batch, K)``."""
    return values.flatten(values.dim() - len(event_shape))


def surgery(q: Any, prior: Any, *, size: int | None = None, samples: int = 1) -> dict[str, Tensor]:
    """The parts of the KL term at draws from each posterior, in nats, ``(S * M,)``; their means are the estimates.

    The aggregate posterior of N data is estimated from M of them, without bias: a datum's own posterior has its true weight
    1/N, the others share the rest (stratified sampling, Chen et al. 2018). With M = N it is exact. Its logarithm is too small
    on average where M < N, so ``mutual_information`` and ``total_correlation`` err upwards then; the former never passes log N.

    Args:
        q: posteriors of M data, batch shape ``(M,)``, a distribution or a joint of several.
        prior: p(z), batch shape ``()``, likewise.
        size: N; by default M.
        samples: S, draws from each posterior.

    Returns:
        ``mutual_information`` I_q(n; z) and ``marginal_kl`` KL(q(z) || p(z)); where q gives its marginals also
        ``total_correlation`` KL(q(z) || prod_k q(z_k)), and where the prior does ``dimension_wise_kl``, the sum over k of
        KL(q(z_k) || p(z_k)).

    Raises:
        NotImplementedError: q has no density at points other than its own draws.

    Examples:
        >>> q = torch.distributions.Normal(100.0 * torch.arange(4)[:, None], torch.ones(4, 1))
        >>> p = torch.distributions.Normal(torch.zeros(1), torch.ones(1))
        >>> parts = surgery(torch.distributions.Independent(q, 1), torch.distributions.Independent(p, 1))
        >>> parts["mutual_information"].mean().exp()  # four codes that are told apart
        tensor(4.)
    """
    (M,) = q.batch_shape
    each, each_prior = marginals(q), marginals(prior)
    z = _moved(q.sample((samples,)), lambda points: points.flatten(0, 1))
    first, *others = tree_leaves(z)
    own = torch.arange(M, device=first.device).repeat(samples)
    numbers = sum(math.prod(leaf.shape[1:]) for leaf in (first, *others))
    rows = max(1, ELEMENTS_AT_ONCE // (M * numbers))
    parts = []
    for start in range(0, len(own), rows):
        draws, at = _moved(z, itemgetter(slice(start, start + rows))), own[start : start + rows]
        weights = _log_weights(at, M, size or M, first)
        joint, single = _log_densities(q, each, draws)
        log_q = (joint + weights).logsumexp(1)
        part = {
            "mutual_information": joint.gather(1, at[:, None]).squeeze(1) - log_q,
            "marginal_kl": log_q - prior.log_prob(draws),
        }
        if single is not None:
            log_marginals = (single + weights[..., None]).logsumexp(1).sum(-1)
            part["total_correlation"] = log_q - log_marginals
            if each_prior is not None:
                log_prior = dimensions(each_prior.log_prob(draws), each_prior.batch_shape).sum(-1)
                part["dimension_wise_kl"] = log_marginals - log_prior
        parts.append(part)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _log_weights(own: Tensor, count: int, size: int, like: Tensor) -> Tensor:
    """Logarithms of the posteriors' weights in q(z), ``(C, M)``, for draws from the posteriors ``own (C,)``."""
    share = (size - 1) / (size * (count - 1)) if count > 1 else 1.0
    kind = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    weights = torch.full((len(own), count), math.log(share), dtype=kind, device=own.device)
    return weights.scatter(1, own[:, None], -math.log(size) if count > 1 else 0.0)


def _moved(draws: Tree, move: Callable[[Tensor], Tensor]) -> Tree:
    return tree_map(lambda leaf: moved(leaf, move), draws)


def _log_densities(q: Any, each: td.Distribution | None, draws: Tree) -> tuple[Tensor, Tensor | None]:
    """Log q(z_i | x_j) ``(C, M)``, and of each dimension ``(C, M, K)``."""
    z = _moved(draws, lambda points: points.unsqueeze(1).expand(-1, *q.batch_shape, *points.shape[1:]))
    if each is None:
        return q.log_prob(z), None
    single = each.log_prob(z)
    single = dimensions(single, each.batch_shape[1:])
    independent = isinstance(q, td.Independent) and each is q.base_dist
    return (single.sum(-1) if independent else q.log_prob(z)), single
