"""The probabilities of what is discrete about each datum: its component, its class, its discrete latent variable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributions as td

from ppl_vae.data import Split
from ppl_vae.evaluate.observed import ROWS_AT_ONCE
from ppl_vae.evaluate.rows import batches, in_row_order, large_batches
from ppl_vae.evaluate.verbs import Encoder
from ppl_vae.program.joint import Joint
from ppl_vae.program.pair import Pair

__all__ = ["component_probabilities"]

NONE = (
    "this model has nothing discrete to predict: fit GMM, a model with a mixture as its prior or with a discrete latent "
    "variable, or one that is conditioned on labels, such as CVAE"
)


def component_probabilities(pair: Pair, split: Split, encoder: Encoder, *, samples: int) -> Tensor:
    """Of each row ``(N, C)``: p(k | x) where the model knows it, else by the guide.

    Of a mixture as prior it is the mean of p(k | z) over draws of z from q(z | x).

    Raises:
        ValueError: nothing is discrete, or several variables are.
    """
    rows = batches(pair, split, ROWS_AT_ONCE) if pair.can.know_posterior is None else large_batches(pair, split)
    found = [_of_batch(pair, batch, encoder, samples) for batch in rows]
    return in_row_order(pair, split, torch.cat(found))


def _of_batch(pair: Pair, batch: tuple[Tensor, ...], encoder: Encoder, samples: int) -> Tensor:
    known = pair.can.know_posterior
    q = encoder.posterior(batch) if known is None else known.posterior(*batch)
    if (found := _probabilities(q)) is not None:
        return found
    if pair.can.generate is None:
        raise ValueError(NONE)
    z = q.sample((samples,))
    found = _of_mixture(pair.can.generate.prior_given(*pair.model_facts.known(*batch)), z)
    if found is None:
        raise ValueError(NONE)
    return found.mean(0)


def _probabilities(q: Any) -> Tensor | None:
    """Of a distribution over the values of one variable, or of several of which one is discrete."""
    if isinstance(q, Joint):
        factors = q.given(q.mean).values()
        found = [p for p in map(_probabilities, factors) if p is not None]
        return _only(found)
    if isinstance(q, dict):  # of what a plain program sums out
        return _only([p for p in map(_probabilities, q.values()) if p is not None])
    if isinstance(q, td.OneHotCategorical | td.Categorical) and len(q.batch_shape) == 1:
        return q.probs
    return None


def _of_mixture(prior: Any, z: Any) -> Tensor | None:
    """p(k | z) of a mixture ``(S, B, C)``."""
    if isinstance(prior, Joint):
        found = [_of_mixture(factor, z[name]) for name, factor in prior.given(z).items()]
        return _only([p for p in found if p is not None])
    if not isinstance(prior, td.MixtureSameFamily):
        return None
    event = len(prior.event_shape)
    joint = prior.component_distribution.log_prob(z.unsqueeze(-1 - event)) + prior.mixture_distribution.logits
    return joint.softmax(-1)


def _only(found: list[Tensor]) -> Tensor | None:
    if len(found) > 1:
        raise ValueError(f"expected one discrete variable to predict, got {len(found)}: take posterior(x), which has all")
    return found[0] if found else None
