"""The fixed points of mean field, of which a lattice may have several: below the critical temperature one for each phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ppl_vae.exact.lattice import Field
from ppl_vae.exact.lattice.mean_field import bound, settled
from ppl_vae.models.lattice.values import Encoding

__all__ = ["Solution", "begun", "differ", "solutions", "told", "turned"]

LEANING = 0.75  # of the probability of the state that a start leans to
APART = 1e-3  # probabilities that differ by less are the same solution
MOST = 5  # solutions that are told one by one


class Solution(NamedTuple):
    """A fixed point: its bound on log Z in nats, and the probabilities of the states of each site ``(n, q)``."""

    bound: float
    probs: Tensor


def begun(field: Field, generator: Generator | None) -> Tensor:
    """A start ``(n, q)``: leaning to the state that the field does, the last of several; or drawn."""
    if generator is not None:
        noise = torch.randn(field.unary.shape[-2:], generator=generator, dtype=torch.float64, device=generator.device)
        return noise.to(field.unary).softmax(-1)
    total = field.unary.sum(-2)
    favoured = int((total >= total.max()).nonzero().max())
    return _leaning(field)[favoured]


def solutions(field: Field, random: int = 0, *, sweeps: int = 1000, seed: int = 0) -> list[Solution]:
    """The fixed points that sweeps end at, from a start that leans to each state and from random ones; the best first."""
    generator = torch.Generator(field.unary.device).manual_seed(seed)
    starts = torch.stack([*_leaning(field), *(begun(field, generator) for _ in range(random))])
    q, _ = settled(field, starts, sweeps=sweeps)
    return turned([Solution(float(value), one) for value, one in zip(bound(field, q), q, strict=True)])


def differ(q: Tensor, other: Tensor) -> bool:
    """Whether two solutions are not the same but for rounding."""
    return float((q - other).abs().amax()) > APART


def turned(found: Sequence[Solution]) -> list[Solution]:
    """Those that differ, the best first."""
    different: list[Solution] = []
    for one in sorted(found, key=lambda one: -one.bound):
        if all(differ(one.probs, other.probs) for other in different):
            different.append(one)
    return different


def told(found: Sequence[Solution], encoding: Encoding, shape: tuple[int, ...]) -> str | None:
    """The bounds and means of those that differ, in words; nothing of one alone."""
    different = turned(found)
    if len(different) < 2:
        return None
    each = [f"{_mean(one, encoding, shape)} (bound {one.bound:.6g})" for one in different[:MOST]]
    more = f" and {len(different) - MOST} more" if len(different) > MOST else ""
    return f"mean field has several solutions, of which a fit keeps one: {', '.join(each)}{more}"


def _mean(one: Solution, encoding: Encoding, shape: tuple[int, ...]) -> str:
    if len(one.probs[0]) == 2:
        return f"mean magnetisation {float(encoding.value(one.probs, shape).mean()):+.4f}"
    return f"mean probabilities {', '.join(f'{share:.3f}' for share in one.probs.mean(0).tolist())}"


def _leaning(field: Field) -> list[Tensor]:
    """A start ``(n, q)`` that leans to each state."""
    sites, levels = field.unary.shape[-2:]
    rest = (1 - LEANING) / (levels - 1)
    one = torch.eye(levels).to(field.unary) * (LEANING - rest) + rest
    return [row.expand(sites, levels).clone() for row in one]
