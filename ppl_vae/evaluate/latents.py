"""What the latent variables hold: which of them are used, how much they tell, and how far they are from the prior."""

from __future__ import annotations

import math
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.data import Split
from ppl_vae.evaluate.rows import batches
from ppl_vae.evaluate.surgery import dimensions, marginals, surgery
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair

__all__ = ["ACTIVE", "latents"]

ACTIVE = 0.01  # variance of a posterior mean over the data
ROWS_AT_ONCE = 1000
SLOW_ROWS = 500  # of posteriors whose density takes more than a few operations a dimension
KL_DRAWS = 64  # where a KL has no closed form


@torch.no_grad()
def latents(pair: Pair, split: Split, *, rows: int = 2000, samples: int = 1, seed: int = 0) -> dict[str, Any]:
    """What the latent variables of a split hold, in nats per datum. Nothing is changed by it.

    ``active_units`` counts the dimensions whose posterior mean varies over the data by more than 0.01 (Burda et al. 2016). The
    mean KL is ``mutual_information + marginal_kl`` (Hoffman and Johnson 2016), and ``marginal_kl`` is ``total_correlation +
    dimension_wise_kl`` (Chen et al. 2018); see :func:`~ppl_vae.evaluate.surgery.surgery`.

    Args:
        pair: model and guide; the guide offers ``posterior``.
        split: the data, on the pair's device.
        rows: M, data from whose posteriors the aggregate posterior is estimated; at most 500 where a posterior is neither
            independent over dimensions nor Gaussian.
        samples: S, draws from each of these.
        seed: of the data chosen and the draws.

    Returns:
        ``n``, ``units``, ``active_units``; ``kl``; ``mutual_information``, at most ``log_n``, ``marginal_kl``,
        ``total_correlation`` and ``dimension_wise_kl``, each with its standard error ``*_se``; ``rows``; the lists
        ``mean_variance`` and ``kl_per_dimension``, which sums to ``kl`` if the posterior is independent over dimensions. What
        this guide or prior does not give is left out, and ``notes`` says why, by name.

    Raises:
        ValueError: fewer than two data, rows or draws that are not positive, or a guide without ``posterior``.
    """
    if len(split) < 2 or rows < 2 or samples < 1:
        raise ValueError(f"expected at least 2 data, 2 rows and 1 sample, got {len(split)}, {rows} and {samples}")
    if not hasattr(pair.guide, "posterior"):
        raise ValueError("expected a guide with `posterior(x)`, got a plain Pyro program: declare the guide")
    with evaluating(pair), seeded(seed, split.device), pyro.validation_enabled(False):
        found, notes = _per_datum(pair, split)
        numbers = {"n": len(split), "units": found["mean"].shape[1], **_activity(found["mean"])}
        for name in ("kl", "kl_per_dimension"):
            if name in found:
                mean = found[name].mean(0)
                numbers[name] = mean.item() if mean.dim() == 0 else mean.tolist()
        parts, more = _aggregate(pair, split, rows, samples)
    for name, values in parts.items():
        numbers[name] = values.mean().item()
        numbers[f"{name}_se"] = _standard_error(values, samples)
    if parts:
        numbers |= {"log_n": math.log(len(split)), "rows": len(next(iter(parts.values()))) // samples}
    notes |= more
    return {**numbers, **({"notes": notes} if notes else {})}


def _per_datum(pair: Pair, split: Split) -> tuple[dict[str, Tensor], dict[str, str]]:
    """``mean (N, K)`` and, where known, ``kl (N,)`` and ``kl_per_dimension (N, K)`` of all data; and why not."""
    parts: list[dict[str, Tensor]] = []
    notes: dict[str, str] = {}
    for batch in batches(pair, split, ROWS_AT_ONCE):
        q = pair.guide.posterior(*batch)
        part = {"mean": q.mean.flatten(1)}
        if _codes_only(pair):
            notes["kl"] = "codes are points without a density: they have no KL from a prior"
        else:
            p = _prior(pair, batch)
            part["kl"] = _kl(q, p.expand(q.batch_shape))
            each, each_prior = marginals(q), marginals(p)
            if each is None or each_prior is None:
                which = "posterior" if each is None else "prior"
                notes["kl_per_dimension"] = f"the {which} is not known dimension by dimension: it is not independent over them"
            else:
                part["kl_per_dimension"] = dimensions(_kl(each, each_prior.expand(each.batch_shape)), each.batch_shape[1:])
        parts.append({name: values.double() for name, values in part.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, notes


def _activity(mean: Tensor) -> dict[str, Any]:
    variance = mean.var(0, correction=0)
    return {"active_units": int((variance > ACTIVE).sum()), "mean_variance": variance.tolist()}


def _aggregate(pair: Pair, split: Split, rows: int, samples: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The parts of the KL at draws from the posteriors of some of the data; and why there are none."""
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
    chosen = torch.randperm(len(split), generator=generator)[:rows]
    (batch,) = batches(pair, split[chosen].of_one_length(), rows)
    if _codes_only(pair):
        return {}, {"mutual_information": "codes are points without a density: they carry no finite information"}
    if _known(pair, batch):
        return {}, {"mutual_information": "p(z | condition) differs from datum to datum: there is no one prior to compare with"}
    q = pair.guide.posterior(*batch)
    if marginals(q) is None and len(chosen) > SLOW_ROWS:
        q = pair.guide.posterior(*(part[:SLOW_ROWS] for part in batch))
    try:
        parts = surgery(q, pair.model.prior(), size=len(split), samples=samples)
    except NotImplementedError:
        return {}, {"mutual_information": "the guide's density is known at its own draws alone: it has no inverse"}
    notes = {}
    if "total_correlation" not in parts:
        notes["total_correlation"] = (
            "q(z_k | x) is not known: the posterior is neither independent over dimensions nor Gaussian"
        )
    elif "dimension_wise_kl" not in parts:
        notes["dimension_wise_kl"] = "the prior is not independent over dimensions"
    return {name: values.double() for name, values in parts.items()}, notes


def _codes_only(pair: Pair) -> bool:
    """Whether q(z | x) is a point, or there is no p(z)."""
    return getattr(pair.guide, "point", False) or hasattr(pair.model, "fit_codes")


def _known(pair: Pair, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What p(z) is conditioned on."""
    return pair.model.known(*batch) if hasattr(pair.model, "known") else ()


def _prior(pair: Pair, batch: tuple[Tensor, ...]) -> Any:
    known = _known(pair, batch)
    return pair.model.prior_given(*known) if known else pair.model.prior()


def _kl(q: Any, p: Any) -> Tensor:
    """In closed form, or from draws of q."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        z = q.sample((KL_DRAWS,))
        return (q.log_prob(z) - p.log_prob(z)).mean(0)


def _standard_error(values: Tensor, samples: int) -> float:
    """Over the data: a datum's draws are not independent of one another."""
    means = values.unflatten(0, (samples, -1)).mean(0)
    return (means.std(correction=0) / math.sqrt(len(means))).item()
