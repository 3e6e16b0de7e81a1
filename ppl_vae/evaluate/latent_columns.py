"""What each datum's posterior tells by itself: its mean, and its KL from the prior, latent variable by latent variable.

    KL(q(z | x) || p(z)) = sum over the sites l of E_q[KL(q(z_l | z_<l, x) || p(z_l | z_<l))]

By distributions, where guide and model say them, else by runs of the programs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.data import Split
from ppl_vae.evaluate.batches import layout
from ppl_vae.evaluate.observed import ROWS_AT_ONCE
from ppl_vae.evaluate.rows import batches
from ppl_vae.evaluate.surgery import dimensions, marginals
from ppl_vae.evaluate.traced import TracedEncoder
from ppl_vae.program.joint import Joint
from ppl_vae.program.pair import Pair
from ppl_vae.program.sites import leaves
from ppl_vae.program.stacking import stacks
from ppl_vae.program.traces import Traces, guide_sites, log_joint, log_q, reconstruction, site_kl, traces

__all__ = ["LatentColumns", "codes_only", "columns", "prior_of"]

KL_DRAWS = 64  # where a KL has no closed form
UNCONSTRAINED = "_unconstrained"  # what AutoNormal and its like call the normal that a variable comes from


@dataclasses.dataclass(frozen=True)
class LatentColumns:
    """Of all data, by site, in float64: ``mean (N, K)`` and, where known, ``kl (N,)`` and ``kl_per_dimension (N, K)``.

    ``kl_of_all (N,)`` is the KL of all sites; ``notes`` say why something is not there, by name.
    """

    mean: dict[str, Tensor]
    kl: dict[str, Tensor]
    kl_per_dimension: dict[str, Tensor]
    kl_of_all: Tensor | None
    notes: dict[str, str]


def columns(pair: Pair, split: Split) -> LatentColumns:
    """Those of a split, the pair in evaluation mode."""
    if pair.can.encode is None or pair.can.generate is None:
        return _traced(pair, split)
    return _by_distributions(pair, split)


def codes_only(pair: Pair) -> bool:
    """Whether q(z | x) is a point, or there is no p(z)."""
    return pair.guide_facts.point or pair.model_facts.latent == "code"


def prior_of(pair: Pair, batch: tuple[Tensor, ...]) -> Any:
    """p(z), given what is known of a batch, and what that is."""
    model: Any = pair.can.generate
    known = model.known(*batch)
    return (model.prior_given(*known) if known else model.prior()), known


def _by_distributions(pair: Pair, split: Split) -> LatentColumns:
    parts: list[dict[str, dict[str, Tensor]]] = []
    notes: dict[str, str] = {}
    encoder: Any = pair.can.encode
    for batch in batches(pair, split, ROWS_AT_ONCE):
        q = encoder.posterior(*batch)
        part: dict[str, dict[str, Tensor]] = {"mean": {name: mean.flatten(1) for name, mean in leaves(q.mean).items()}}
        if codes_only(pair):
            notes["kl"] = "codes are points without a density: they have no KL from a prior"
        else:
            p, _ = prior_of(pair, batch)
            part |= _kl_by_site(q, p) if isinstance(q, Joint) else _kl_of_one(q, p, notes)
        parts.append(part)
    found = {kind: {name: _joined(parts, kind, name) for name in columns_of} for kind, columns_of in parts[0].items()}
    kl = found.get("kl", {})
    of_all = torch.stack(list(kl.values())).sum(0) if kl else None
    return LatentColumns(found["mean"], kl, found.get("kl_per_dimension", {}), of_all, notes)


def _joined(parts: list[dict[str, dict[str, Tensor]]], kind: str, name: str) -> Tensor:
    return torch.cat([part[kind][name].double() for part in parts])


def _kl_of_one(q: Any, p: Any, notes: dict[str, str]) -> dict[str, dict[str, Tensor]]:
    """Of a lone latent variable, dimension by dimension where both are known so."""
    part = {"kl": {"z": _kl(q, p.expand(q.batch_shape))}}
    each, each_prior = marginals(q), marginals(p)
    if each is None or each_prior is None:
        which = "posterior" if each is None else "prior"
        notes["kl_per_dimension"] = f"the {which} is not known dimension by dimension: it is not independent over them"
        return part
    single = dimensions(_kl(each, each_prior.expand(each.batch_shape)), each.batch_shape[1:])
    return {**part, "kl_per_dimension": {"z": single}}


def _kl_by_site(q: Joint, p: Joint) -> dict[str, dict[str, Tensor]]:
    """Of several, each given draws of those before it; dimension by dimension where its factors are known so."""
    z = q.sample((KL_DRAWS,))
    theirs, mine = p.given(z), q.given(z)
    part: dict[str, dict[str, Tensor]] = {"kl": {name: _over_draws(kl, 1) for name, kl in q.kl(p, z).items()}}
    singles: dict[str, Tensor] = {}
    for name in q.names if q.follows(p) else ():
        each, each_prior = marginals(mine[name]), marginals(theirs[name])
        if each is None or each_prior is None:
            return part
        event_dim = len(mine[name].event_shape)
        single = _kl(each, each_prior)
        singles[name] = dimensions(_over_draws(single, 1 + event_dim), single.shape[single.dim() - event_dim :])
    return {**part, "kl_per_dimension": singles} if singles else part


def _over_draws(values: Tensor, dims: int) -> Tensor:
    """The mean over draws, where values ``(S, B, ...)`` hang on them."""
    return values.mean(0) if values.dim() > dims else values


def _kl(q: Any, p: Any) -> Tensor:
    """In closed form, or from draws of q."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        z = q.sample((KL_DRAWS,))
        return (q.log_prob(z) - p.log_prob(z)).mean(0)


def _traced(pair: Pair, split: Split) -> LatentColumns:
    encoder = TracedEncoder(pair)
    codes = leaves(encoder.encode(split))
    mean = {name: code.reshape(len(code), -1).double() for name, code in codes.items() if name not in encoder.shared}
    notes = {"kl_per_dimension": "the programs say their densities site by site, not dimension by dimension"}
    if pair.score != "elbo":
        notes["kl"] = "the sum of the programs' terms is no ELBO, of which the KL would be a part"
        return LatentColumns(mean, {}, {}, None, notes)
    parts = [_kl_of_batch(pair, batch) for batch in batches(pair, split, layout(pair, split, KL_DRAWS).rows)]
    kl = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if all(name in part for part in parts)}
    of_all = torch.cat([torch.stack(list(part.values())).sum(0) for part in parts]) if kl else None
    if beside := kl.keys() - codes.keys():
        notes["kl_by_site"] = f"the programs tell the KL of all variables together: see {', '.join(sorted(beside))} in them"
        kl = {}
    return LatentColumns(mean, kl, {}, of_all, notes)


def _kl_of_batch(pair: Pair, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """By site ``(B,)``, the mean over draws of those before it; where the model sums variables out, of all together."""
    together = KL_DRAWS if stacks(pair, batch) else 1
    runs = [traces(pair, batch, together) for _ in range(KL_DRAWS // together)]
    if runs[0].plates.summed:
        kl = torch.stack([log_q(ran) - (log_joint(ran) - reconstruction(ran)) for ran in runs])
        return {", ".join(runs[0].plates.summed): kl.mean((0, 1)).double()}
    found = [_kl_of_run(pair, ran) for ran in runs]
    return {name: torch.stack([run[name] for run in found]).mean(0) for name in found[0]}


def _kl_of_run(pair: Pair, ran: Traces) -> dict[str, Tensor]:
    """By site ``(B,)``, the mean over the samples of a run; what a variable comes from counts as it."""
    kl: dict[str, Tensor] = {}
    for site in guide_sites(ran.guide):
        name = site["name"]
        own = name.removesuffix(UNCONSTRAINED)
        own = own if own in ran.model.nodes else name
        kl[own] = kl.get(own, ran.zero) + site_kl(ran.model, ran.guide, name, ran.plates, pair.follows) + ran.zero
    return {name: values.mean(0).double() for name, values in kl.items()}
