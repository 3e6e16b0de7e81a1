"""The free numbers of a code: how far they go under the prior, and how much the data use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.evaluate.latent_columns import columns
from ppl_vae.evaluate.latents import ACTIVE
from ppl_vae.evaluate.quantiles import marginal_quantiles
from ppl_vae.evaluate.surgery import marginals
from ppl_vae.explore.blocks import Layout
from ppl_vae.fitting import Fit
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.sites import leaves

__all__ = ["PROBABILITIES", "Dimensions", "dimensions_of"]

PROBABILITIES = 135
DRAWS = 20_000  # where a quantile has no formula


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """Those of all blocks of real numbers.

    Args:
        places: in the whole code, those that tell most about the data first.
        names: of each.
        kl: nats of each, ``None`` where they are not known dimension by dimension.
        active: whether the posterior mean varies over the data by more than 0.01.
        quantiles: ``(K, 135)`` under the prior, at probabilities (i + 1/2) / 135.
        source: what the quantiles are of.
    """

    places: tuple[int, ...]
    names: tuple[str, ...]
    kl: tuple[float | None, ...]
    active: tuple[bool, ...]
    quantiles: Tensor
    source: str


def dimensions_of(fit: Fit, layout: Layout, rows: Split, codes: Tensor) -> Dimensions:
    """The dimensions of a fit by some of its data, in the order of their KL, or of their variance where that is not known.

    Args:
        fit: the fit.
        layout: of its codes.
        rows: data.
        codes: of these ``(N, size)``.
    """
    places, names = _named(layout)
    chosen = codes[:, places].double()
    variance = chosen.var(0, correction=0) if places else chosen.new_zeros(0)
    kl = _kl(fit, layout, rows)
    order = (variance if kl is None else kl).argsort(descending=True).tolist()
    quantiles, source = _quantiles(fit, layout, chosen)
    return Dimensions(
        places=tuple(places[one] for one in order),
        names=tuple(names[one] for one in order),
        kl=tuple(None if kl is None else round(float(kl[one]), 4) for one in order),
        active=tuple(bool(variance[one] > ACTIVE) for one in order),
        quantiles=quantiles[order],
        source=source,
    )


def _named(layout: Layout) -> tuple[list[int], list[str]]:
    """The places of real numbers in the code, and their names from 1, as files of codes call them."""
    places: list[int] = []
    names: list[str] = []
    for block, start in zip(layout.blocks, layout.starts, strict=True):
        if block.kind == "real":
            places += range(start, start + block.size)
            names += [f"{block.name}_{one}" if layout.levels else f"{block.name}{one}" for one in range(1, block.size + 1)]
    return places, names


def _kl(fit: Fit, layout: Layout, rows: Split) -> Tensor | None:
    """KL of each dimension ``(K,)``, the mean over data, where the programs say it."""
    if fit.pair.plain or fit.pair.can.encode is None:
        return None
    split = rows.labelled(None, ()) if fit.pair.model_facts.classifies else rows
    with evaluating(fit.pair), seeded(0, fit.device):
        found = columns(fit.pair, split).kl_per_dimension
    wanted = [block for block in layout.blocks if block.kind == "real"]
    if len(wanted) == len(found) == 1:  # a lone one may go by another name
        found = {wanted[0].name: next(iter(found.values()))}
    if any(block.name not in found or found[block.name].shape[1] != block.size for block in wanted) or not wanted:
        return None
    return torch.cat([found[block.name].mean(0) for block in wanted]).cpu()


def _quantiles(fit: Fit, layout: Layout, codes: Tensor) -> tuple[Tensor, str]:
    """Those of each dimension ``(K, 135)``, and what they are of."""
    u = (torch.arange(PROBABILITIES, dtype=torch.float64) + 0.5) / PROBABILITIES
    if not codes.shape[1]:
        return torch.zeros(0, PROBABILITIES), ""
    facts = fit.pair.model_facts
    if fit.pair.can.generate is None or facts.latent == "code" or facts.given_prior:
        return torch.quantile(codes, u, dim=0).T, "the codes of the data"
    with evaluating(fit.pair), seeded(0, fit.device):
        prior = fit.pair.can.generate.prior()
        lone = sum(block.latent for block in layout.blocks) == 1
        exact = _of_formula(prior, u, codes.shape[1]) if lone else None
        if exact is not None:
            return exact, "the prior"
        drawn: Any = leaves(prior.sample((DRAWS,)))
    wanted = [block for block in layout.blocks if block.kind == "real"]
    only = next(iter(drawn.values()))
    parts = [drawn.get(block.name, only).reshape(DRAWS, -1).double().cpu() for block in wanted]
    return torch.quantile(torch.cat(parts, 1), u, dim=0).T, "draws from the prior"


def _of_formula(prior: Any, u: Tensor, size: int) -> Tensor | None:
    """By the inverse CDF of each dimension, where the prior has one."""
    each = marginals(prior)
    if each is None:
        return None
    try:
        found = marginal_quantiles(each, u.to(each.mean))
    except NotImplementedError:
        return None
    return found.expand(len(u), size).double().cpu().T
