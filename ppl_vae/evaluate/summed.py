"""What a model that sums discrete variables out says of them, and of what hangs on them: gradients of its contraction.

    log Z = log sum_k prod_j f_j(k),      d log Z / d log f_j(k_j) = p(k_j | evidence)

f_j are the factors, one for each site, k_j the variables that factor j hangs on. So one gradient of the sum that evaluates the
model gives the probabilities of every summed variable, and of whatever the observed sites hang on.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from ppl_vae.program.contraction import contracted
from ppl_vae.program.pair import Plates
from ppl_vae.program.terms import sampled

__all__ = ["averaged", "of_one", "probabilities"]


def probabilities(model: poutine.Trace, evidence: Collection[str], wanted: Collection[str]) -> dict[str, Tensor]:
    """The probability, given the evidence, of each joint value of the summed variables that a wanted site hangs on.

    Args:
        model: a run with every value of its summed variables in dimensions left of all plates; it is spent.
        evidence: the sites whose values are given.
        wanted: sites of the run.

    Returns:
        By name ``(*summed, *plates)``; ones for what hangs on none.
    """
    leaves: dict[str, Tensor] = {}
    with torch.enable_grad():
        for name, site in sampled(model):
            factor = _factor(site, counts=name in evidence or site["infer"].get("_enumerate_dim") is not None)
            if name in wanted:
                leaves[name] = torch.zeros_like(factor).requires_grad_()
                factor = factor + leaves[name]
            # Already masked, and of the batch alone: what scales it to all data has no part in it.
            site.update(unscaled_log_prob=factor, log_prob=factor, scale=1.0, mask=None)
        total = sum(term["log_prob"].sum() for term in contracted(model, poutine.Trace()))
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, found, strict=True))


def _factor(site: dict, *, counts: bool) -> Tensor:
    """A site's log-probability, detached; zero of what is no evidence."""
    fn, value = site["fn"], site["value"]
    if counts:
        return scale_and_mask(fn.log_prob(value).detach(), 1.0, site["mask"])
    shape = torch.broadcast_shapes(fn.batch_shape, value.shape[: value.dim() - fn.event_dim])
    return torch.zeros(shape, dtype=torch.get_default_dtype(), device=value.device)


def averaged(values: Tensor, weights: Tensor, event_dim: int, plates: Plates) -> Tensor:
    """The mean over the summed variables, ``(*plates, *event)``, of values ``(*summed, *plates, *event)``.

    Args:
        values: what hangs on them.
        weights: their probabilities ``(*summed, *plates)``.
        event_dim: of the values.
        plates: of the program.
    """
    weighted = weights.reshape(weights.shape + (1,) * event_dim) * values
    leading = max(0, weighted.dim() - event_dim - plates.nesting)
    return weighted.sum(list(range(leading))) if leading else weighted


def of_one(found: Tensor, dim: int, plates: Plates) -> Tensor:
    """The probabilities ``(*plates, K)`` of one summed variable, of those ``(*summed, *plates)`` of it and what it hangs on.

    Args:
        found: what :func:`probabilities` gave.
        dim: of its values, negative.
        plates: of the program.
    """
    leading = found.dim() - plates.nesting
    others = [axis for axis in range(leading) if axis != found.dim() + dim]
    return (found.sum(others) if others else found).movedim(0, -1)
