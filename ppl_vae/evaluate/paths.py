"""Ways from one code to another."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.declaration import require
from ppl_vae.evaluate.quantiles import codes_of, scores_of
from ppl_vae.evaluate.site_values import at_mean, latent_sites, ran
from ppl_vae.program.pair import Pair
from ppl_vae.program.sites import leaves, tree
from ppl_vae.types import CodePath as Path

__all__ = ["Path", "check_path", "code_supports", "path_between", "path_through", "unbounded"]

PARALLEL = 1e-4  # sine of an angle below which there is no arc to speak of


def path_between(a: Tensor, b: Tensor, steps: int, path: Path = "linear") -> Tensor:
    r"""Codes on the way from a to b, both among them, ``(steps, *shape)``.

    Linear ones lie on the line; spherical ones turn from the direction of a to that of b at a steady pace, and their length
    goes steadily from that of a to that of b:

    .. math:: z_t = ((1 - t) |a| + t |b|) \left( \frac{\sin((1 - t) \omega)}{\sin \omega} \frac{a}{|a|}
        + \frac{\sin(t \omega)}{\sin \omega} \frac{b}{|b|} \right), \quad \cos \omega = \frac{a \cdot b}{|a| |b|}

    Draws of a normal of many dimensions have about one length, which the middle of the line between two falls short of (White
    2016, "Sampling generative networks"; Shoemake 1985). Codes that point one way, opposite ways or nowhere have no such arc:
    theirs is the line.

    Args:
        a: the code ``(*shape)`` at the beginning.
        b: that at the end.
        steps: how many codes, at least 2.
        path: ``linear`` or ``spherical``; that through a prior needs it, see :func:`path_through`.

    Raises:
        ValueError: fewer than 2 steps, or another path.

    Examples:
        >>> path_between(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]), 3, "spherical").round(decimals=4)
        tensor([[2.0000, 0.0000],
                [1.4142, 1.4142],
                [0.0000, 2.0000]])
    """
    check_path(steps, path)
    require(path != "prior", "a path by two codes alone, linear or spherical", path)
    t = _times(steps, a)
    found = torch.lerp(a, b, t)
    sizes = a.norm(), b.norm()
    tiny = torch.finfo(a.dtype).tiny
    ways = [code / size.clamp_min(tiny) for code, size in zip((a, b), sizes, strict=True)]
    angle = torch.arccos((ways[0] * ways[1]).sum().clamp(-1, 1))
    if path == "linear" or angle.sin() < PARALLEL or min(sizes) == 0:
        return found
    arc = (((1 - t) * angle).sin() * ways[0] + (t * angle).sin() * ways[1]) / angle.sin()
    found = torch.lerp(*sizes, t) * arc
    found[0], found[-1] = a, b  # to the bit, so that what they decode to is what is reconstructed
    return found


def path_through(prior: Any, a: dict[str, Tensor], b: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    r"""Codes on the way from a to b, both among them, that are draws of the prior if both ends are independent draws of it.

    .. math:: u_t = \frac{(1 - t)\, u_a + t\, u_b}{\sqrt{(1 - t)^2 + t^2}}

    on normal scores u, which for such ends is Normal(0, I) at every t. Of a standard normal prior z = u, and this is the
    matched interpolation of Agustsson et al. 2019 ("Optimal transport maps for distribution preserving operations on latent
    spaces of generative models"). Ends that are alike are no independent draws: between them the way leads outwards, at half
    way by a factor of sqrt(2).

    Args:
        prior: p(z), a distribution or a joint, of batch shape ``()`` or ``(1,)``.
        a: the code at the beginning, ``(*shape)`` by the names of latent variables.
        b: that at the end.
        steps: how many codes, at least 2.

    Raises:
        ValueError: fewer than 2 steps, or a prior without normal scores, as a mixture.

    Examples:
        >>> p = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 1.0), 1)
        >>> path_through(p, {"z": torch.tensor([2.0, 0.0])}, {"z": torch.tensor([0.0, 2.0])}, 3)["z"].round(decimals=4)
        tensor([[2.0000, 0.0000],
                [1.4142, 1.4142],
                [0.0000, 2.0000]])
    """
    check_path(steps, "prior")
    lone = next(iter(a))
    ends = [scores_of(prior, tree({name: code[None] for name, code in each.items()})) for each in (a, b)]
    first, last = (leaves(each, lone) for each in ends)
    scores = {}
    for name, u in first.items():
        t = _times(steps, u[0])
        scores[name] = torch.lerp(u, last[name], t) / ((1 - t).square() + t.square()).sqrt()
    found = {name: codes.clone() for name, codes in leaves(codes_of(prior, tree(scores)), lone).items()}
    for name, codes in found.items():
        codes[0], codes[-1] = a[name], b[name]  # to the bit, so that what they decode to is what is reconstructed
    return found


def _times(steps: int, code: Tensor) -> Tensor:
    """From 0 to 1, as codes broadcast with them."""
    return torch.linspace(0, 1, steps, dtype=code.dtype, device=code.device).reshape(-1, *(1 for _ in code.shape))


def check_path(steps: int, path: Path) -> None:
    """Raise ``ValueError`` for fewer than 2 steps, or a path that is none."""
    require(steps >= 2, "at least 2 steps, both ends among them", steps)
    require(path in get_args(Path), f"a path of {', '.join(get_args(Path))}", path)


def code_supports(pair: Pair, batch: tuple[Tensor, ...]) -> dict[str, Any]:
    """Where the codes of a datum lie, a constraint by the name of each latent variable that the guide draws.

    Args:
        pair: the pair, in evaluation.
        batch: one on which plain programs are run to find out.

    Raises:
        ValueError: each element of a row has a code of its own.
    """
    if pair.plain:
        return {name: site["fn"].support for name, site in latent_sites(ran(pair.programs.guide, batch, at_mean))}
    sites = {name: site for name, site in pair.model_facts.sites.items() if not site.summed}
    if each := [name for name, site in sites.items() if site.per_element]:
        raise ValueError(f"expected a model with a code of each datum, got one of each element of it ({', '.join(each)})")
    return {name: site.support for name, site in sites.items()}


def unbounded(support: Any) -> bool:
    """Whether a constraint is that of all real numbers."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support in (constraints.real, constraints.real_vector)
