"""Data, samples, reconstructions and completions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from ppl_vae.plots.canvas import escaped, extend_of, heat, images_of, limits_of, new_figure, points_on, tiled, values_of
from ppl_vae.types import Kind

__all__ = ["by_class", "comparison", "completions", "grid", "walks"]


def grid(
    x: Tensor, *, columns: int | None = None, title: str | None = None, kind: Kind | str, names: Sequence[str] = ()
) -> Figure:
    """Data or samples at a glance.

    Images are tiled, row by row, with gutters of one pixel; a two-dimensional event is a scatter;
    every other event is flattened to a row of a heat map. Missing values (NaN) are left blank.

    Args:
        x: ``(N, *event)``; images are ``(1, H, W)``, ``(3, H, W)`` or ``(H, W)``.
        columns: images in a row, about the square root of N by default; only images use it.
        title: a line above the picture.
        kind: set of the values; ``binary`` and ``unit_interval`` are drawn on 0 to 1, every other
            kind on the 1st to 99th percentile.
        names: of the columns of a table, which stand below them if they are few.

    Raises:
        ValueError: if x is empty, columns is not positive, kind is unknown, or integer pixels exceed 1 on a 0 to 1 scale.
    """
    x = values_of(x, kind)
    limits = limits_of(x, kind)
    if (images := images_of(x)) is not None:
        columns = math.ceil(math.sqrt(len(x))) if columns is None else columns
        if columns < 1:
            raise ValueError(f"columns: expected a positive number, got {columns}")
        figure, _ = tiled(images, min(columns, len(x)), limits, kind)
    elif x.shape[1:] == (2,):
        figure, (ax,) = new_figure(4.5, 4.5)
        points_on(ax, x, "tab:blue", escaped(names))
    else:
        figure, (ax,) = new_figure(6, 5)
        figure.colorbar(heat(ax, x, limits, names), ax=ax, label="value", extend=extend_of(kind))
        ax.set_ylabel("datum")
    if title is not None:
        figure.suptitle(title)
    return figure


def comparison(data: Tensor, reconstruction: Tensor, *, kind: Kind | str, names: Sequence[str] = ()) -> Figure:
    """Data and their reconstructions on one scale, that of the data.

    Images alternate: a row of data, below it the row of their reconstructions. Tables are two heat
    maps side by side, two-dimensional data two scatters in one panel.

    Args:
        data: ``(N, *event)``, as for `grid`.
        reconstruction: ``(N, *event)``, such as the mean of the likelihood.
        kind: set of the values, as for `grid`.
        names: of the columns of a table, as for `grid`.

    Raises:
        ValueError: if the shapes differ, or for the reasons of `grid`.
    """
    if data.shape != reconstruction.shape:
        raise ValueError(f"expected two tensors of one shape, got {tuple(data.shape)} and {tuple(reconstruction.shape)}")
    data, reconstruction = values_of(data, kind), values_of(reconstruction, kind)
    limits = limits_of(data, kind)
    if (images := images_of(data)) is not None:
        return _compare_images(images, reconstruction.reshape(images.shape), limits, kind)
    named = {"data": data, "reconstruction": reconstruction}
    if data.shape[1:] == (2,):
        figure, (ax,) = new_figure(5, 5)
        for (name, points), colour in zip(named.items(), ("tab:blue", "tab:orange"), strict=True):
            points_on(ax, points, colour, escaped(names))
            ax.plot([], [], "o", color=colour, label=name)  # the legend shows solid points, not the translucent ones
        ax.legend()
        ax.set_title("data and their reconstructions")
        return figure
    figure, axes = new_figure(9, 5, columns=2)
    for ax, (name, table) in zip(axes, named.items(), strict=True):
        image = heat(ax, table, limits, names)
        ax.set_title(name)
    axes[0].set_ylabel("datum")
    figure.colorbar(image, ax=axes, label="value", extend=extend_of(kind))
    return figure


def by_class(
    x: Tensor, classes: Sequence[str], *, kind: Kind | str, title: str = "a row: one z; a column: one class"
) -> Figure:
    """Samples of a model conditioned on classes: the class changes along a row, z along a column.

    What is not an image is drawn as `grid` draws it, one row after the other.

    Args:
        x: ``(R, C, *event)``, for R latent variables and C classes.
        classes: their names.
        kind: set of the values, as for `grid`.
        title: a line above the picture.

    Raises:
        ValueError: if there are not as many names as columns, or for the reasons of `grid`.
    """
    if x.ndim < 2 or x.shape[1] != len(classes):
        raise ValueError(f"x: expected (rows, {len(classes)}, *event), got {tuple(x.shape)}")
    return _table_of_images(x, [""] * len(x), classes, kind, title)


def completions(x: Tensor, known: Tensor, samples: Tensor, *, kind: Kind | str, title: str = "completions") -> Figure:
    """Data of which a part is known, and samples of the rest.

    Images alternate in a column: what is known, the samples, the truth. Everything else is drawn as `grid` draws it.

    Args:
        x: ``(N, *event)``, the truth.
        known: which entries are, ``(*event)``.
        samples: ``(S, N, *event)``.
        kind: set of the values, as for `grid`.
        title: a line above the picture.

    Raises:
        ValueError: if the shapes differ, or for the reasons of `grid`.
    """
    if samples.shape[1:] != x.shape or known.shape != x.shape[1:]:
        raise ValueError(
            f"expected samples (S, *{tuple(x.shape)}) and known {tuple(x.shape[1:])}, got {tuple(samples.shape)} and "
            f"{tuple(known.shape)}"
        )
    x, samples, known = x.cpu(), samples.cpu(), known.cpu()
    rows = torch.cat([x.where(known, math.nan)[None], samples.to(x.dtype), x[None]])
    names = ["known", *(f"sample {i + 1}" for i in range(len(samples))), "truth"]
    return _table_of_images(rows, names, [""] * len(x), kind, title)


def walks(
    x: Tensor, rows: Sequence[str], columns: Sequence[str] = (), *, kind: Kind | str, title: str = "", names: Sequence[str] = ()
) -> Figure:
    """Data of codes along several ways, a way a row, such as the dimensions of a traversal or a grid of two attributes.

    Data that are no images are a heat map each way, on one scale.

    Args:
        x: ``(R, C, *event)``, of R ways of C steps.
        rows: names of the ways.
        columns: names of the steps, or none.
        kind: set of the values, as for `grid`.
        title: a line above the picture.
        names: of the columns of a table, which stand below the heat maps if they are few.

    Raises:
        ValueError: if there are not as many names as rows and columns, or for the reasons of `grid`.
    """
    if x.ndim < 2 or x.shape[0] != len(rows) or len(columns) not in (0, x.shape[1]):
        raise ValueError(f"x: expected ({len(rows)}, {len(columns) or 'steps'}, *event), got {tuple(x.shape)}")
    if images_of(values_of(x.flatten(0, 1), kind)) is not None:
        return _table_of_images(x, rows, columns or [""] * x.shape[1], kind, title)
    values = values_of(x.flatten(2), kind)
    limits = limits_of(values, kind)
    figure, axes = new_figure(min(16.0, 3.2 * len(rows) + 1), 4.5, columns=len(rows))
    for ax, name, table in zip(axes, rows, values, strict=True):
        image = heat(ax, table, limits, names)
        ax.set_title(name)
        if columns:
            ax.set_yticks(range(len(columns)), list(columns))
    figure.colorbar(image, ax=axes, label="value", extend=extend_of(kind))
    figure.suptitle(title)
    return figure


def _compare_images(data: Tensor, reconstruction: Tensor, limits: tuple[float, float], kind: Kind | str) -> Figure:
    """Rows of at most ten data, each above the row of their reconstructions."""
    columns = min(len(data), 10)
    blank = -len(data) % columns
    rows = [pad(x, (0, 0, 0, 0, 0, 0, 0, blank), value=math.nan).unflatten(0, (-1, columns)) for x in (data, reconstruction)]
    figure, ax = tiled(torch.stack(rows, dim=1).flatten(0, 2), columns, limits, kind)
    height = data.shape[-2]
    ax.set_yticks([(height - 1) / 2, height + 1 + (height - 1) / 2], ["data", "reconstruction"])
    figure.suptitle("data above their reconstructions")
    return figure


def _table_of_images(x: Tensor, rows: Sequence[str], columns: Sequence[str], kind: Kind | str, title: str) -> Figure:
    """``(R, C, *event)`` with names at the sides; a `grid` where the data are no images."""
    flat = values_of(x.flatten(0, 1), kind)
    images = images_of(flat)
    if images is None:
        return grid(flat, kind=kind, title=title)
    figure, ax = tiled(images, x.shape[1], limits_of(flat, kind), kind)
    height, width = images.shape[-2:]
    for axis, size, names in ((ax.yaxis, height, rows), (ax.xaxis, width, columns)):
        if any(names):
            axis.set_ticks([(size - 1) / 2 + place * (size + 1) for place in range(len(names))], list(names))
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    figure.suptitle(title)
    return figure
