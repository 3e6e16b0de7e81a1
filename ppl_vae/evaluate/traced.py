"""Codes of data and data of codes by runs of the programs, for any pair of Pyro programs with a plate over the data.

The guide's sites get their means one after the other, each at those before it, or are drawn; the model's latent sites get the
values of the guide, and the distribution of its observed site is read. Of discrete variables the mean is no value, so they get
their mode. What the model sums out is no part of a code: data of codes are averaged over it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Categorical

from ppl_vae.data import Split, Transform
from ppl_vae.evaluate.observed import ROWS_AT_ONCE, Given, Observed, as_in, at_once, joined
from ppl_vae.evaluate.rows import batches
from ppl_vae.evaluate.site_values import (
    Site,
    Take,
    as_rows,
    as_value,
    at_mean,
    latent_sites,
    observed_sites,
    prediction,
    ran,
)
from ppl_vae.evaluate.stand_ins import StandIns
from ppl_vae.evaluate.summed import averaged, of_one, probabilities
from ppl_vae.evaluate.temperature import check_temperature
from ppl_vae.program.pair import Pair, Plates
from ppl_vae.program.sites import Tree, top_values, tree
from ppl_vae.program.stacking import stacks
from ppl_vae.program.terms import sampled
from ppl_vae.program.traces import vectorize_particles
from ppl_vae.types import DataSpec

__all__ = ["TracedDecoder", "TracedEncoder"]

Kept = dict[str, Tensor]
"""Values that all data share, found at the first batch, by site."""


class TracedEncoder:
    """Of a guide that only runs.

    Attributes:
        shared: the latent variables that all data share, known after the first codes.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.shared: tuple[str, ...] = ()

    def posterior(self, batch: tuple[Tensor, ...]) -> Tree:
        """p(k | x) of what the model sums out, as categoricals over its values in their order; what is drawn is at its mean.

        Raises:
            ValueError: the model sums nothing out, and a run of a guide is no distribution.
        """
        plates = self.pair.plates(*batch)
        if not plates.summed:
            raise ValueError(
                "this guide is a plain Pyro program, which has no `posterior`: encode(x, samples=...) gives its draws, "
                "encode(x) its means; or give the program `posterior`"
            )
        drawn = {name: site["value"] for name, site in latent_sites(ran(self.pair.programs.guide, batch, at_mean))}
        trace = ran(self.pair.programs.model, batch, lambda site: drawn.get(site["name"]), enumerated=plates)
        known = [name for name, _ in sampled(trace) if name not in plates.summed]
        found = probabilities(trace, known, plates.summed)
        sites = {name: trace.nodes[name] for name in plates.summed}
        single = {name: of_one(found[name], site["infer"]["_enumerate_dim"], plates) for name, site in sites.items()}
        return tree({name: Categorical(as_rows(p, sites[name], plates, event_dim=1)) for name, p in single.items()})

    def encode(self, split: Split, samples: int | None = None) -> Tree:
        """Means fed forward from site to site, or draws; of what all data share one value, the same at every batch.

        Raises:
            ValueError: a site of a plate of which a run sees a part, or one without a mean.
        """
        kept: list[Kept] = []
        found = [self._of_batch(batch, samples, kept) for batch in batches(self.pair, split, at_once(self.pair, split))]
        codes = {name: first for name, first in found[0].items() if all(name in part for part in found)}
        dim = 0 if samples is None else 1
        for name, first in codes.items():
            if name in self.shared:  # its mean may be the guide's own parameter, which is not given away
                codes[name] = first.detach().clone()
            else:
                codes[name] = as_in(split, self.pair, torch.cat([part[name] for part in found], dim), dim)
        return tree(codes)

    def means(self, batch: tuple[Tensor, ...]) -> Tree:
        """Of one batch."""
        return tree(self._of_batch(batch, None, []))

    def _of_batch(self, batch: tuple[Tensor, ...], samples: int | None, kept: list[Kept]) -> dict[str, Tensor]:
        """Rows by site: means, or draws in runs that each keep what all data share."""
        if not kept:
            together = samples is None or (samples > 1 and stacks(self.pair, batch))
            kept.extend({} for _ in range(1 if together or samples is None else samples))
        if samples is None:
            return self._run(batch, kept[0], at_mean)
        if len(kept) < samples:
            return self._run(batch, kept[0], lambda site: None, samples=samples)
        runs = [self._run(batch, each, lambda site: None) for each in kept]
        return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}

    def _run(self, batch: tuple[Tensor, ...], kept: Kept, take: Take, *, samples: int = 0) -> dict[str, Tensor]:
        """Rows by site of one run of the guide, with a plate of samples if there are any."""
        plates = self.pair.plates(*batch)
        program = self.pair.programs.guide
        if samples:
            program = vectorize_particles(program, samples, plates)
        trace = ran(program, batch, lambda site: kept[site["name"]] if site["name"] in kept else take(site))
        kept.update({name: site["value"] for name, site in sampled(trace) if not plates.of_data(site)})
        found = dict(latent_sites(trace))
        _check_whole(found, plates)
        self.shared = tuple(name for name, site in found.items() if not plates.of_data(site))
        return {name: as_rows(site["value"], site, plates, samples=bool(samples)) for name, site in found.items()}


def _check_whole(found: Mapping[str, Site], plates: Plates) -> None:
    """Raise ``ValueError`` if a run has a part of a latent variable only."""
    for name, site in found.items():
        if parts := [frame.name for frame in site["cond_indep_stack"] if frame.name in plates.subsampled]:
            raise ValueError(
                f"{name} stands in the plate {parts[0]!r}, of which a run sees a random part, so there is no code of a whole "
                "datum: leave out its subsample_size"
            )


class Story(NamedTuple):
    """The latent variables of a model: shapes of a row of those of a datum, in their order, and of what all share; dtypes."""

    own: dict[str, tuple[int, ...]]
    shared: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]


class TracedDecoder:
    """Of a model that only runs.

    Args:
        pair: the pair.
        spec: what the data look like.
        transform: to what the model sees, on the device and of the dtype of that.
    """

    def __init__(self, pair: Pair, spec: DataSpec, transform: Transform) -> None:
        self.pair = pair
        self.spec = spec
        self.stand_ins = StandIns(pair, spec, transform)

    def check_given(self, *, x: bool, y: bool) -> None:
        """Raise ``ValueError`` if the programs read no labels, or rows are given that have their own."""
        if y and (x or self.pair.reads != ("x", "y")):
            told = "leave y out" if x else "leave y out, or give rows as x"
            raise ValueError(f"expected no classes for programs that read {', '.join(self.pair.reads)}: {told}")

    def given(self, rows: Split | None, classes: Tensor | None) -> Given:
        """What the programs read of rows; of classes, with a stand-in for x."""
        if rows is not None:
            (batch,) = batches(self.pair, rows, max(1, len(rows)))
            return batch
        if classes is None:
            return ()
        return (self.stand_ins.batch(len(classes))[0], classes)

    def decode(self, z: Tree, given: Given) -> Observed:
        """Means of p(x | z) at values of latent variables, the later ones at the means that the model has at them.

        What all data share is at the guide's means, where it is not given.
        """
        story = self._story(given)
        values = {name: value.to(story.dtypes[name]) for name, value in top_values(story.own, z, story.shared).items()}
        shared = {name: value for name, value in values.items() if name in story.shared}
        shapes = [value.shape[: value.dim() - len(story.own[name])] for name, value in values.items() if name in story.own]
        leading = torch.broadcast_shapes(*shapes)
        rows = {
            name: values[name].expand(*leading, *shape).reshape(-1, *shape)
            for name, shape in story.own.items()
            if name in values
        }

        def read(batch: tuple[Tensor, ...], index: Tensor) -> Observed:
            picked = {name: value[index] for name, value in rows.items()}
            return self._means(poutine.uncondition(self.pair.programs.model), batch, picked | shared)

        found = self._in_chunks(math.prod(leading), given, read)
        return found._replace(values={name: value.reshape(*leading, *value.shape[1:]) for name, value in found.values.items()})

    def reconstruct(self, batch: tuple[Tensor, ...], z: Tree) -> Observed:
        """Means of p(x | z) at codes of a batch, which is observed: what hangs on an earlier part of x sees that."""
        return self._means(self.pair.programs.model, batch, z)

    def sample(self, n: int, given: Given, *, means: bool, temperature: float | Mapping[str, float] = 1.0) -> Observed:
        """New data: latent variables as the model draws them, but what all data share at the guide's means."""
        check_temperature(temperature)
        kept: Kept = {}

        def read(batch: tuple[Tensor, ...], index: Tensor) -> Observed:
            plates = self.pair.plates(*batch)
            kept.update({name: value for name, value in self.stand_ins.shared(batch).items() if name not in kept})
            program = poutine.uncondition(self.pair.programs.model)
            trace = ran(program, batch, lambda site: kept.get(site["name"]))
            kept.update({name: site["value"] for name, site in latent_sites(trace) if not plates.of_data(site)})
            sites = dict(observed_sites(trace, plates))
            found = {name: _averaged(site, None, plates) if means else site["value"] for name, site in sites.items()}
            return self._observed(found, sites, batch, plates)

        return self._in_chunks(n, given, read)

    def _story(self, given: Given) -> Story:
        """The latent variables of the model, in the order of a run."""
        batch = given or self.stand_ins.batch(self.stand_ins.size(1))
        plates, shared = self.pair.plates(*batch), self.stand_ins.shared(batch)

        def take(site: Site) -> Tensor:
            return shared[site["name"]] if site["name"] in shared else at_mean(site)

        trace = ran(poutine.uncondition(self.pair.programs.model), batch, take)
        story = Story({}, {}, {})
        for name, site in latent_sites(trace):
            rows = as_rows(site["value"], site, plates)
            if name in plates.summed:
                continue
            story.dtypes[name] = rows.dtype
            if plates.of_data(site):
                story.own[name] = tuple(rows.shape[1:])
            else:
                story.shared[name] = tuple(rows.shape)
        return story

    def _in_chunks(self, n: int, given: Given, read: Callable[[tuple[Tensor, ...], Tensor], Observed]) -> Observed:
        """What is read of n rows, in batches that the programs can be run on; what fills up the last one is dropped."""
        if given and len(given[0]) not in (1, n):
            raise ValueError(f"expected one condition or {n}, got {len(given[0])}")
        size = min(n, ROWS_AT_ONCE) if given else self.stand_ins.size(min(n, ROWS_AT_ONCE))
        parts: list[Observed] = []
        for start in range(0, n, size):
            index = torch.arange(start, start + size, device=self.stand_ins.device).clamp_max(n - 1)
            rows = index if given and len(given[0]) == n else torch.zeros_like(index)
            batch = tuple(part[rows] for part in given) if given else self.stand_ins.batch(size)
            part = read(batch, index)
            parts.append(part._replace(values={name: value[: n - start] for name, value in part.values.items()}))
        return joined(parts)

    def _means(self, program: Any, batch: tuple[Tensor, ...], z: Tree) -> Observed:
        """Means of what a program observes, at values of its latent variables, averaged over what it sums out."""
        plates = self.pair.plates(*batch)
        values = z if isinstance(z, Mapping) else None
        shared = {} if values is None else self.stand_ins.shared(batch)

        def take(site: Site) -> Tensor | None:
            name = site["name"]
            if values is None and name not in plates.summed and not site["infer"].get("was_observed"):
                return as_value(z, site, plates)
            if values is not None and name in values:
                return as_value(values[name], site, plates)
            if name in plates.summed:
                return None
            return shared[name] if name in shared else at_mean(site)

        trace = ran(program, batch, take, enumerated=plates)
        sites = dict(observed_sites(trace, plates))
        weights: dict[str, Tensor] = {}
        if plates.summed:
            known = [name for name, site in sampled(trace) if site["is_observed"] or values is None or name in values]
            weights = probabilities(trace, known, list(sites))
        found = {name: _averaged(site, weights.get(name), plates) for name, site in sites.items()}
        return self._observed(found, sites, batch, plates)

    def _observed(
        self, found: Mapping[str, Tensor], sites: Mapping[str, Site], batch: tuple[Tensor, ...], plates: Plates
    ) -> Observed:
        """Values by site as rows, those of x in its shape.

        Raises:
            ValueError: nothing that is observed has a distribution.
        """
        if not sites:
            raise ValueError("this model observes nothing of a datum but by pyro.factor, which has no distribution of data")
        values, x = {}, ""
        for name, site in sites.items():
            values[name] = as_rows(found[name], site, plates)
            seen = as_rows(site["infer"].get("obs", site["value"]), site, plates).reshape(len(batch[0]), -1)
            if torch.equal(seen.nan_to_num(), batch[0].reshape(seen.shape[0], -1).to(seen.dtype).nan_to_num()):
                x, values[name] = name, values[name].reshape(batch[0].shape)
        return Observed(values, x)


def _averaged(site: Site, weights: Tensor | None, plates: Plates) -> Tensor:
    """What stands for an observed site's distribution, over what is summed out."""
    values, event_dim, datum = prediction(site["fn"])
    return datum(values if weights is None else averaged(values, weights, event_dim, plates))
