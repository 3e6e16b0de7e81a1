"""The latent variables of a program: what each is, and trees of them.

A program has its latent variables by name. What is asked or given per variable is a *tree*: of several a mapping from their
names, of a lone one the bare value. ``torch.utils._pytree.tree_map`` goes over both alike, so nobody asks how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor
from torch.distributions import constraints

__all__ = ["Site", "Tree", "by_name", "leaves", "top_values", "tree"]

T = TypeVar("T")
NO_SHAPES: Mapping[str, tuple[int, ...]] = {}
Tree = Any
"""A value, or values by the names of several sites."""


@dataclass(frozen=True)
class Site:
    """One latent variable of a program.

    Args:
        name: of its ``pyro.sample`` statement.
        event_shape: of one datum's value.
        support: where it lies, a ``torch.distributions.constraints``.
        plates: those that it stands in, without that over the data, from the outermost.
        shared: whether all data share it, as a parameter with a prior.
        summed: whether the model sums it out, so that the guide has none of this name.
        index: whether the program draws the number of a category, where the value here is its one-hot vector.
        per_element: whether each element of a row has one, so that of a row of T elements they are ``(T, *event_shape)``.
    """

    name: str
    event_shape: tuple[int, ...]
    support: Any = constraints.real
    plates: tuple[str, ...] = ()
    shared: bool = False
    summed: bool = False
    index: bool = False
    per_element: bool = False


def tree(values: Mapping[str, T]) -> Tree:
    """Values by the names of sites as a tree: that of a lone site stands by itself.

    Examples:
        >>> tree({"z": 1}), tree({"z1": 1, "z2": 2})
        (1, {'z1': 1, 'z2': 2})
    """
    return dict(values) if len(values) != 1 else next(iter(values.values()))


def by_name(sites: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """The leaves of a tree by the names of its sites.

    Args:
        sites: in the order of the story; only their names matter.
        value: a mapping with these names, or of a lone site also the bare value.

    Raises:
        ValueError: other names, or a bare value in place of several.

    Examples:
        >>> by_name({"z": ...}, 3)
        {'z': 3}
    """
    if isinstance(value, Mapping):
        if missing := [name for name in sites if name not in value]:
            raise ValueError(f"expected a value for each of {', '.join(sites)}, got none for {', '.join(missing)}")
        if unknown := [str(name) for name in value if name not in sites]:
            raise ValueError(f"expected values for {', '.join(sites)}, got one for {', '.join(unknown)} as well: leave it out")
        return {name: value[name] for name in sites}
    if len(sites) != 1:
        names = ", ".join(f"{name!r}: ..." for name in sites)
        raise ValueError(f"expected a mapping {{{names}}} of the {len(sites)} latent variables, got {type(value).__name__}")
    return dict.fromkeys(sites, value)


def leaves(value: Tree, lone: str = "z") -> dict[str, Any]:
    """The leaves of a tree by name, a bare value under the name ``lone``.

    Examples:
        >>> leaves(1), leaves({"z1": 1, "z2": 2})
        ({'z': 1}, {'z1': 1, 'z2': 2})
    """
    return dict(value) if isinstance(value, Mapping) else {lone: value}


def top_values(
    shapes: Mapping[str, tuple[int, ...]], value: Tree, others: Mapping[str, tuple[int, ...]] = NO_SHAPES
) -> dict[str, Any]:
    """Values of the upper sites of a story by name: of the first, and of as many after it as are given.

    Args:
        shapes: of one value of each site, in the order of the story.
        value: a tree ``(..., *shape)`` over them, or over the first ones.
        others: shapes of values that may be given besides.

    Raises:
        ValueError: an unknown name, a site left out above one that is given, or another shape.

    Examples:
        >>> list(top_values({"z2": (), "z1": ()}, {"z2": torch.zeros(3)}))
        ['z2']
    """
    names = list(shapes)
    if isinstance(value, Mapping):
        if unknown := [str(name) for name in value if name not in shapes and name not in others]:
            raise ValueError(f"expected values for {', '.join(names)}, got one for {', '.join(unknown)} as well: leave it out")
        given = [place for place, name in enumerate(names) if name in value]
        if given != list(range(len(given))) or (names and not given):
            told = next(name for place, name in enumerate(names) if name not in value)
            raise ValueError(f"expected a value for {told}, which the later ones follow: give it, or {names[0]} alone")
        values = {name: value[name] for name in (*names, *others) if name in value}
    else:
        values = by_name(shapes, value)
    for name, found in values.items():
        _check_shape(name if len(shapes) > 1 else "", found, {**others, **shapes}[name])
    return values


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    least = value.dim() - len(shape)
    if least < 0 or tuple(value.shape[least:]) != tuple(shape):
        of = f" of {name}" if name else ""
        expected = ", ".join(["...", *map(str, shape)])
        raise ValueError(f"expected latent codes{of} of shape ({expected}), got {tuple(value.shape)}")
