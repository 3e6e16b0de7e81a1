"""What single dimensions of the codes stand for: data along the quantiles of each."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.data import Split
from ppl_vae.evaluate.latent_columns import LatentColumns, columns
from ppl_vae.evaluate.latents import ACTIVE
from ppl_vae.evaluate.quantiles import along, codes_of
from ppl_vae.fitting.inputs import Classes, Given
from ppl_vae.fitting.interpolating import Interpolating
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.sites import Tree, leaves, tree
from ppl_vae.types import FitWarning

__all__ = ["Traversal", "Traversing"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Traversal:
    """What :meth:`~ppl_vae.Fit.traverse` gives, of D dimensions and S quantiles.

    Attributes:
        dimensions: their names: ``z1`` is the first of a lone latent variable, ``z2_1`` that of a ``z2`` among several.
        kl: KL(q(z_k | x) || p(z_k)) of each, the mean over the data, in nats ``(D,)``; ``None`` where it is not known.
        levels: the probabilities whose quantiles are gone through ``(S,)``.
        codes: ``(D, S, *latent)``, of several latent variables by their names.
        decoded: the data of these: ``(D, S, *event)``; of rows a list of D, each S texts or :class:`~ppl_vae.Ragged`.
    """

    dimensions: tuple[str, ...]
    kl: Tensor | None
    levels: Tensor
    codes: Tree
    decoded: Any

    def __str__(self) -> str:
        told = [""] * len(self.dimensions) if self.kl is None else [f" {kl:.3f} nats" for kl in self.kl.tolist()]
        return ", ".join(f"{name}{kl}" for name, kl in zip(self.dimensions, told, strict=True))


class Traversing(Interpolating):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that walks along single dimensions."""

    def traverse(
        self,
        data: Given,
        *,
        around: Given | None = None,
        steps: int = 11,
        dimensions: Sequence[str] | None = None,
        active: bool = True,
        y: Classes | Mapping[str, Any] | None = None,
        codes: bool = False,
        seed: int = 0,
        seen: bool = False,
    ) -> Traversal:
        """Data along each dimension of the codes, the others standing still, with what each dimension tells in nats.

        A dimension goes through the quantiles of its prior at (i + 1/2) / S, so that each code stands for as much of its
        mass, from small to large. Of several latent variables those below keep their distance from what their prior has at
        the codes above, in its scales, and so follow.

        Args:
            data: rows by which the KL of the dimensions is taken, such as ``data.test``.
            around: the datum, one row as for :meth:`interpolate`, or with ``codes`` the code at which the other dimensions
                stand; by default the centre of p(z), the median of each.
            steps: S, quantiles of each dimension.
            dimensions: names of those wanted, in this order; by default those that are active, by their KL, the largest first.
            active: only dimensions whose posterior mean varies over the data by more than 0.01 (Burda et al. 2016).
            y: the class, where the model is conditioned on labels, by default that of ``around``; or covariates by name.
            codes: whether ``around`` is a code.
            seed: of the draws by which a KL is taken that has no closed form.
            seen: data as the model sees them, instead of in the units of the source.

        Returns:
            ``dimensions``, ``kl``, ``levels``, ``codes`` and ``decoded``. The KL of all dimensions sum to that of
            :meth:`latents` if the posterior is independent over dimensions.

        Raises:
            ValueError: fewer than two steps or data, an unknown dimension, no active one, a prior that does not say the
                quantiles of single dimensions, as a mixture or a flow, or codes that are no real numbers.

        Examples:
            ``print(fit.traverse(data.test, around=data.test[0]))``
        """
        steps = whole("steps", steps)
        if steps < 2:
            raise ValueError(f"expected at least 2 steps, got {steps}")
        if codes and around is None:
            raise ValueError("expected a code to walk around, got none: give around=..., or leave codes out")
        self._generative()
        rows = None if around is None or codes else [self._one(around, None if isinstance(y, Mapping) else y)]
        self._check_codes(rows, "linear")
        names, kl = self._dimensions(self._split(data), dimensions, active=active, seed=seed)
        levels = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        with evaluating(self.pair):
            prior = self._prior(rows, y)
            base = self._centre(prior) if around is None else self._as_code(around) if rows is None else self._code(rows[0])
            walks = [leaves(along(prior, tree(base), *names[each], levels.to(self.device)), next(iter(base))) for each in names]
        found = {name: torch.stack([walk[name] for walk in walks]) for name in base}
        flat = {name: code.flatten(0, 1) for name, code in found.items()}
        lengths = self._lengths(rows, len(names) * steps)
        decoded = self._decoded(flat, rows, y, lengths=lengths, seen=seen)
        return Traversal(
            dimensions=tuple(names), kl=kl, levels=levels, codes=tree(found), decoded=_by_dimension(decoded, len(names))
        )

    def _centre(self, prior: Any) -> dict[str, Tensor]:
        """The medians of p(z) from the top to the bottom, by name."""
        shapes = {name: site.event_shape for name, site in self.pair.model_facts.sites.items()}
        origin = {name: self.transform.loc.new_zeros((1, *shape)) for name, shape in shapes.items()}
        return {name: code[0] for name, code in leaves(codes_of(prior, tree(origin)), next(iter(shapes))).items()}

    def _dimensions(
        self, split: Split, wanted: Sequence[str] | None, *, active: bool, seed: int
    ) -> tuple[dict[str, tuple[str, int]], Tensor | None]:
        """The site and the place of each wanted dimension by its name, and their KL."""
        if len(split) < 2:
            raise ValueError(f"expected at least 2 data to tell what dimensions hold, got {len(split)}")
        with evaluating(self.pair), seeded(seed, split.device), pyro.validation_enabled(False):
            held = columns(self.pair, split)
        several = len(held.mean) > 1
        places = {
            f"{site}_{place + 1}" if several else f"{site}{place + 1}": (site, place)
            for site, mean in held.mean.items()
            for place in range(mean.shape[1])
        }
        kl, variance = _means(held, places), torch.cat(list(held.mean.values()), 1).var(0, correction=0)
        chosen = _chosen(list(places), wanted, kl, variance, active=active, notes=held.notes)
        lone = next(iter(self.pair.model_facts.sites))
        return (
            {name: (places[name][0] if several else lone, places[name][1]) for name in chosen},
            None if kl is None else kl[[list(places).index(name) for name in chosen]].cpu(),
        )


def _means(held: LatentColumns, places: Mapping[str, Any]) -> Tensor | None:
    """The mean KL of each dimension, where it is known of all."""
    found = held.kl_per_dimension
    return torch.cat([found[site] for site in held.mean], 1).mean(0) if found.keys() >= held.mean.keys() and places else None


def _chosen(
    names: list[str],
    wanted: Sequence[str] | None,
    kl: Tensor | None,
    variance: Tensor,
    *,
    active: bool,
    notes: Mapping[str, str],
) -> list[str]:
    """The names of the dimensions that are walked along, in their order."""
    if wanted is not None:
        wanted = [wanted] if isinstance(wanted, str) else list(wanted)
        if unknown := [str(name) for name in wanted if name not in names]:
            raise ValueError(f"expected dimensions among {', '.join(names[:40])}, got {', '.join(unknown)}")
        if not wanted or len(set(wanted)) < len(wanted):
            raise ValueError(f"expected different dimensions, at least one, got {', '.join(wanted) or 'none'}")
        return wanted
    if kl is None:
        reason = notes.get("kl_per_dimension") or notes.get("kl") or "the guide has not the order of its model"
        told = f"dimensions are ordered by the variance of their means, for their KL are not known: {reason}"
        warnings.warn(told, FitWarning, stacklevel=4)
    order = (variance if kl is None else kl).argsort(descending=True).tolist()
    found = [names[place] for place in order if not active or variance[place] > ACTIVE]
    if not found:
        raise ValueError(
            f"expected dimensions whose posterior mean varies over the data by more than {ACTIVE}, got none: the posterior has "
            "collapsed; active=False (--every) walks along all"
        )
    return found


def _by_dimension(decoded: Any, count: int) -> Any:
    """Data ``(D S, ...)`` as ``(D, S, ...)``; of rows, and of several observed sites, part by part."""
    if isinstance(decoded, Tensor):
        return decoded.unflatten(0, (count, -1))
    if isinstance(decoded, Mapping):
        return {name: _by_dimension(value, count) for name, value in decoded.items()}
    size = len(decoded) // count
    return [decoded[place * size : (place + 1) * size] for place in range(count)]
