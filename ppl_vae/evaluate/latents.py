"""What the latent variables hold: which of them are used, how much they tell, and how far they are from the prior."""

from __future__ import annotations

import math
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.evaluate.latent_columns import LatentColumns, codes_only, columns, prior_of
from ppl_vae.evaluate.rows import batches
from ppl_vae.evaluate.surgery import marginals, surgery
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair

__all__ = ["ACTIVE", "latents"]

ACTIVE = 0.01  # variance of a posterior mean over the data
SLOW_ROWS = 500  # of posteriors whose density takes more than a few operations a dimension


@torch.no_grad()
def latents(pair: Pair, split: Split, *, rows: int = 2000, samples: int = 1, seed: int = 0) -> dict[str, Any]:
    """What the latent variables of a split hold, in nats per datum. Nothing is changed by it.

    ``active_units`` counts the dimensions whose posterior mean varies over the data by more than 0.01 (Burda et al. 2016). The
    mean KL is ``mutual_information + marginal_kl`` (Hoffman and Johnson 2016), and ``marginal_kl`` is ``total_correlation +
    dimension_wise_kl`` (Chen et al. 2018); see :func:`~ppl_vae.evaluate.surgery.surgery`.

    Args:
        pair: model and guide. Those that do not say q(z | x) and p(z) as distributions, such as plain Pyro programs, are run
            instead, which gives the KL from draws and no aggregate posterior.
        split: the data, on the pair's device.
        rows: M, data from whose posteriors the aggregate posterior is estimated; at most 500 where a posterior is neither
            independent over dimensions nor Gaussian.
        samples: S, draws from each of these.
        seed: of the data chosen and the draws.

    Returns:
        ``n``, ``units``, ``active_units``; ``kl``; ``mutual_information``, at most ``log_n``, ``marginal_kl``,
        ``total_correlation`` and ``dimension_wise_kl``, each with its standard error ``*_se``; ``rows``; the lists
        ``mean_variance`` and ``kl_per_dimension``, which sums to ``kl`` if the posterior is independent over dimensions. Of
        several latent variables these are of all together, the lists one after the other, and ``sites`` has the same by name:
        the KL of each, given those before it, sum to ``kl``. What this guide or prior does not give is left out, and ``notes``
        says why, by name.

    Raises:
        ValueError: fewer than two data, rows or draws that are not positive, or programs of which a run sees a part, as of a
            diffusion.
    """
    if len(split) < 2 or rows < 2 or samples < 1:
        raise ValueError(f"expected at least 2 data, 2 rows and 1 sample, got {len(split)}, {rows} and {samples}")
    if pair.can.sum_bound is not None:
        raise ValueError(
            "a run of these programs sees a part of the latent variables, as one step of a diffusion, so there is nothing to "
            "tell of what they hold: leave latents out"
        )
    if pair.model_facts.classifies:
        split = split.labelled(None, ())  # the class is one of the latent variables
    with evaluating(pair), seeded(seed, split.device), pyro.validation_enabled(False):
        found = columns(pair, split)
        numbers = {"n": len(split), **_of_sites(found)}
        parts, more = _aggregate(pair, split, rows, samples)
    for name, values in parts.items():
        numbers[name] = values.mean().item()
        numbers[f"{name}_se"] = _standard_error(values, samples)
    if parts:
        numbers |= {"log_n": math.log(len(split)), "rows": len(next(iter(parts.values()))) // samples}
    notes = {**found.notes, **more}
    return {**numbers, **({"notes": notes} if notes else {})}


def _activity(mean: Tensor) -> dict[str, Any]:
    variance = mean.var(0, correction=0)
    return {"active_units": int((variance > ACTIVE).sum()), "mean_variance": variance.tolist()}


def _of_sites(found: LatentColumns) -> dict[str, Any]:
    """Numbers of all sites together and, of several, site by site."""
    every = found.mean.keys() | found.kl.keys()
    numbers: dict[str, Any] = {"units": 0, "active_units": 0, "mean_variance": []}
    if found.mean:
        mean = torch.cat(list(found.mean.values()), 1)
        numbers = {"units": mean.shape[1], **_activity(mean)}
    if found.kl_of_all is not None:
        numbers["kl"] = found.kl_of_all.mean().item()
    if found.kl_per_dimension:
        numbers["kl_per_dimension"] = torch.cat(list(found.kl_per_dimension.values()), 1).mean(0).tolist()
    if len(every) > 1:
        numbers["sites"] = {name: _of_site(name, found) for name in (*found.mean, *(every - found.mean.keys()))}
    return numbers


def _of_site(name: str, found: LatentColumns) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    if name in found.mean:
        numbers |= {"units": found.mean[name].shape[1], **_activity(found.mean[name])}
    for kind, columns_of in (("kl", found.kl), ("kl_per_dimension", found.kl_per_dimension)):
        if name in columns_of:
            mean = columns_of[name].mean(0)
            numbers[kind] = mean.item() if mean.dim() == 0 else mean.tolist()
    return numbers


def _aggregate(pair: Pair, split: Split, rows: int, samples: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The parts of the KL at draws from the posteriors of some of the data; and why there are none."""
    if pair.can.encode is None or pair.can.generate is None:
        return {}, {"mutual_information": "a run of a plain program tells q(z | x) at its own draws alone"}
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
    chosen = torch.randperm(len(split), generator=generator)[:rows]
    (batch,) = batches(pair, split[chosen].of_one_length(), rows)
    if codes_only(pair):
        return {}, {"mutual_information": "codes are points without a density: they carry no finite information"}
    prior, known = prior_of(pair, batch)
    if known and tuple(prior.batch_shape):
        return {}, {"mutual_information": "p(z | condition) differs from datum to datum: there is no one prior to compare with"}
    q = pair.can.encode.posterior(*batch)
    if marginals(q) is None and len(chosen) > SLOW_ROWS:
        q = pair.can.encode.posterior(*(part[:SLOW_ROWS] for part in batch))
    try:
        parts = surgery(q, prior, size=len(split), samples=samples)
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


def _standard_error(values: Tensor, samples: int) -> float:
    """Over the data: a datum's draws are not independent of one another."""
    means = values.unflatten(0, (samples, -1)).mean(0)
    return (means.std(correction=0) / math.sqrt(len(means))).item()
