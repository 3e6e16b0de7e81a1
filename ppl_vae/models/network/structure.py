"""Directed graphs by the names of their nodes: their order, what hangs on what, which nodes belong together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ppl_vae.text import as_line, did_you_mean

__all__ = ["ancestors", "coupled", "parents_of", "topological"]

Parents = Mapping[str, Sequence[str]]


def topological(parents: Parents) -> tuple[str, ...]:
    """The nodes, parents first, else in the order given.

    Raises:
        ValueError: a parent that is no node, or a cycle, which is named.

    Examples:
        >>> topological({"wet": ("rain",), "rain": ()})
        ('rain', 'wet')
        >>> topological({"a": ("b",), "b": ("a",)})
        Traceback (most recent call last):
        ...
        ValueError: expected a graph without cycles, got a <- b <- a: turn or leave out one of these edges
    """
    for node, above in parents.items():
        for parent in above:
            if parent not in parents:
                hint = did_you_mean(parent, parents) or "add it to the nodes"
                raise ValueError(f"expected parents of {node} that are nodes, got {parent!r}: {hint}")
    order: list[str] = []
    for node in parents:
        if node not in order:
            _visit(node, parents, order)
    return tuple(order)


def parents_of(edges: Mapping[str, Sequence[str]] | Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """The parents of every node, of edges as pairs or as parents by child; parents that are no keys have none.

    Raises:
        ValueError: an edge that is no pair of names.

    Examples:
        >>> parents_of([("rain", "wet"), ("sprinkler", "wet")])
        {'rain': (), 'wet': ('rain', 'sprinkler'), 'sprinkler': ()}
    """
    if isinstance(edges, Mapping):
        above = {child: [parents] if isinstance(parents, str) else list(parents) for child, parents in edges.items()}
        pairs: list[Any] = [(parent, child) for child, parents in above.items() for parent in parents]
        found: dict[str, list[str]] = {child: [] for child in above}
    else:
        pairs, found = list(edges), {}
    for edge in pairs:
        if isinstance(edge, str) or len(edge) != 2 or not all(isinstance(name, str) for name in edge):
            raise ValueError(f"expected edges as pairs (parent, child) of names, got {as_line(repr(edge), 80)}")
        parent, child = edge
        found.setdefault(parent, [])
        found.setdefault(child, []).append(parent)
    return {name: tuple(dict.fromkeys(parents)) for name, parents in found.items()}


def ancestors(parents: Parents, of: Collection[str]) -> set[str]:
    """These nodes and all that they hang on.

    Examples:
        >>> sorted(ancestors({"rain": (), "wet": ("rain",), "slip": ("wet",)}, ["wet"]))
        ['rain', 'wet']
    """
    found: set[str] = set()
    left = list(of)
    while left:
        if (node := left.pop()) not in found:
            found.add(node)
            left += parents[node]
    return found


def coupled(parents: Parents, unknown: Collection[str]) -> list[tuple[str, ...]]:
    """The nodes in groups, each in their order: a node belongs with its parents that are unknown.

    Examples:
        >>> coupled({"a": (), "b": ("a",), "c": ("b",)}, {"a"})
        [('a', 'b'), ('c',)]
    """
    group = {node: node for node in parents}

    def root(node: str) -> str:
        while group[node] != node:
            node = group[node]
        return node

    for node, above in parents.items():
        for parent in above:
            if parent in unknown and parent in group:
                group[root(node)] = root(parent)
    roots = {node: root(node) for node in parents}
    return [tuple(node for node in parents if roots[node] == first) for first in dict.fromkeys(roots.values())]


def _visit(node: str, parents: Parents, order: list[str]) -> None:
    """Append a node after its parents."""
    stack, path = [(node, iter(parents[node]))], [node]
    while stack:
        current, above = stack[-1]
        parent = next((each for each in above if each not in order), None)
        if parent is None:
            stack.pop()
            path.pop()
            order.append(current)
        elif parent in path:
            cycle = " <- ".join([*path[path.index(parent) :], parent])
            raise ValueError(f"expected a graph without cycles, got {cycle}: turn or leave out one of these edges")
        else:
            stack.append((parent, iter(parents[parent])))
            path.append(parent)
