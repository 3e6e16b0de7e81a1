"""A directed graph of named nodes, in layers: parents above what hangs on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from matplotlib.figure import Figure

from ppl_vae.plots.canvas import new_figure

__all__ = ["graph"]

EDGE = "slategrey"


def graph(parents: Mapping[str, Sequence[str]], *, hidden: Collection[str] = (), numbers: Collection[str] = ()) -> Figure:
    """The graph of a network: states in boxes, numbers in rounded ones, what is hidden in grey.

    Args:
        parents: of each node, parents first.
        hidden: the nodes that are in no column.
        numbers: the nodes that are numbers.

    Examples:
        >>> len(graph({"rain": (), "wet": ("rain",)}).axes)
        1
    """
    places = layered(parents)
    widest = max(sum(depth == place[1] for place in places.values()) for _, depth in places.values())
    deepest = max(depth for _, depth in places.values())
    figure, (axes,) = new_figure(min(16.0, 1.5 + 1.4 * widest), min(16.0, 1.2 + 0.9 * deepest))
    for node, above in parents.items():
        for parent in above:
            line = {"arrowstyle": "-|>", "color": EDGE, "shrinkA": 10, "shrinkB": 10}
            axes.annotate("", xy=_at(places[node]), xytext=_at(places[parent]), arrowprops=line)
    for node, place in places.items():
        box = {"boxstyle": "round,pad=0.4" if node in numbers else "square,pad=0.4", "edgecolor": EDGE}
        box["facecolor"] = "lightgrey" if node in hidden else "white"
        axes.text(*_at(place), node.replace("$", r"\$"), ha="center", va="center", fontsize=9, bbox=box)
    axes.set_xlim(-widest / 2 - 0.2, widest / 2 + 0.2)
    axes.set_ylim(-deepest - 0.6, 0.6)
    axes.set_axis_off()
    return figure


def layered(parents: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, int]]:
    """The place of each node in its layer, from the middle, and the layer: one below the lowest of its parents.

    In a layer nodes stand below their parents as far as there is room, by the mean of the parents' places.

    Examples:
        >>> layered({"a": (), "b": (), "c": ("a", "b")})
        {'a': (-0.5, 0), 'b': (0.5, 0), 'c': (0.0, 1)}
    """
    depth: dict[str, int] = {}
    for node, above in parents.items():
        depth[node] = max((depth[parent] + 1 for parent in above), default=0)
    found: dict[str, tuple[float, int]] = {}
    for layer in range(max(depth.values()) + 1):
        nodes = [node for node in parents if depth[node] == layer]
        middle = {node: sum(found[parent][0] for parent in parents[node]) / max(1, len(parents[node])) for node in nodes}
        for place, node in enumerate(sorted(nodes, key=lambda node: middle[node])):
            found[node] = (place - (len(nodes) - 1) / 2, layer)
    return {node: found[node] for node in parents}


def _at(place: tuple[float, int]) -> tuple[float, float]:
    return place[0], -float(place[1])
