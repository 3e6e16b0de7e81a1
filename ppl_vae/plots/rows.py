"""Rows of elements: texts, series, the states behind them, and tables of states and tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ppl_vae.plots.canvas import NAMED, new_figure

__all__ = ["chart", "series", "texts"]

LINES, WIDTH, PANELS = 24, 100, 4  # of a picture of text, and series beside each other
LETTERS = 5  # of the longest token that stands upright, as <end> among characters does
COLOURS = 20  # of states, a colour each
TOP = 40  # columns of a table that are shown, those of the largest values


def texts(rows: Sequence[str], *, title: str | None = None) -> Figure:
    """Texts, a line each, long ones cut.

    Examples:
        >>> len(texts(["to be", "or not"]).axes)
        1
    """
    shown = [row if len(row) <= WIDTH else f"{row[: WIDTH - 1]}…" for row in rows[:LINES]]
    figure, (ax,) = new_figure(9, 0.6 + 0.24 * len(shown))
    ax.set_axis_off()
    for place, row in enumerate(shown):
        line = "".join(character if character.isprintable() else "↵" for character in row)
        ax.text(0, -place, line.replace("$", r"\$"), family="monospace", fontsize=8, va="center")
    ax.set(xlim=(0, 1), ylim=(-len(shown) + 0.4, 0.6))
    if title is not None:
        figure.suptitle(title)
    return figure


def series(rows: Sequence[Tensor], *, title: str | None = None, discrete: bool = False) -> Figure:
    """Rows of numbers ``(length, *element)``: a heat map with a row each, or of vectors a panel of lines for the first few.

    Args:
        rows: of any lengths.
        title: a line above the picture.
        discrete: whether numbers are those of states or tokens, each with a colour of its own.

    Raises:
        ValueError: no rows.

    Examples:
        >>> len(series([torch.zeros(3), torch.ones(2)]).axes)
        2
    """
    if not rows:
        raise ValueError("expected at least one row, got none")
    figure = _heat(rows, discrete=discrete) if rows[0].dim() == 1 else _lines(rows[:PANELS])
    if title is not None:
        figure.suptitle(title)
    return figure


def chart(values: Tensor, *, rows: str, columns: str, names: Sequence[str] = (), title: str | None = None) -> Figure:
    """A table ``(R, C)`` as a heat map, columns by their names where they have such.

    Of many columns those are shown whose values are largest, in the order of how large.

    Examples:
        >>> len(chart(torch.eye(3), rows="from", columns="to").axes)
        2
    """
    values = values.detach().double().cpu()
    order = torch.arange(values.shape[1])
    if values.shape[1] > TOP:
        order = values.sum(0).argsort(descending=True)[:TOP]
    figure, (ax,) = new_figure(2.5 + 0.16 * min(len(order), TOP), 2.0 + 0.16 * min(len(values), TOP))
    image = ax.imshow(values[:, order].numpy(), cmap="cividis", aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=ax)
    ax.set(xlabel=columns, ylabel=rows)
    if len(names) > 0 and len(order) <= NAMED:
        shown = [_printable(names[place]) for place in order.tolist()]
        ax.set_xticks(range(len(order)), shown, fontsize=7, rotation=90 if max(map(len, shown)) > LETTERS else 0)
    if title is not None:
        figure.suptitle(title)
    return figure


def _printable(name: str) -> str:
    shown = name if name.isprintable() else repr(name)[1:-1]
    return ("␣" if name == " " else shown).replace("$", r"\$")


def _heat(rows: Sequence[Tensor], *, discrete: bool) -> Figure:
    longest = max(len(row) for row in rows)
    table = np.full((len(rows), max(1, longest)), math.nan)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row.detach().double().cpu().numpy()
    figure, (ax,) = new_figure(7, 1.5 + 0.12 * len(rows))
    ax.set_facecolor("lightgrey")  # after the end of a row
    image = ax.imshow(table, cmap="tab20" if discrete else "cividis", aspect="auto", interpolation="nearest")
    bar = figure.colorbar(image, ax=ax)
    states = int(np.nanmax(table)) + 1 if discrete and np.isfinite(table).any() else 0
    if 0 < states <= COLOURS:  # a colour each, and no others beside the bar
        image.set(cmap=ListedColormap(colormaps["tab20"](range(states))), clim=(-0.5, states - 0.5))
        bar.set_ticks(range(states))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.set(xlabel="element", ylabel="row")
    return figure


def _lines(rows: Sequence[Tensor]) -> Figure:
    figure, axes = new_figure(3.2 * len(rows), 3, columns=len(rows))
    for ax, row in zip(axes, rows, strict=True):
        ax.plot(row.detach().flatten(1).double().cpu().numpy(), linewidth=1)
        ax.set_xlabel("element")
    return figure
