"""What pictures are drawn on: figures, tiles of images, heat maps, points."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn.functional import pad

from ppl_vae.storage.atomic import replaced
from ppl_vae.types import Kind

__all__ = [
    "DPI",
    "NATS",
    "escaped",
    "extend_of",
    "heat",
    "images_of",
    "limits_of",
    "new_figure",
    "points_on",
    "save",
    "tiled",
    "values_of",
]

DPI = 150
GUTTER = "lightsteelblue"  # neither black nor white, so it is told from every grey pixel
NATS = "nats per datum"
NAMED, LONGEST = 40, 20  # columns of a heat map, and letters of a name, that there is room for


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG or SVG, whole or not at all; folders are made as needed.

    Args:
        figure: what to write.
        path: a file name that ends in ``.png``, or in ``.svg``.

    Raises:
        ValueError: if the name ends otherwise.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise ValueError(f"path: expected a name that ends in .png or .svg, got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as partial:
        figure.savefig(partial, format=kind, dpi=DPI, bbox_inches="tight", pad_inches=0.1)


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches outside pyplot, with a row of axes."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


def values_of(x: Tensor, kind: Kind | str) -> Tensor:
    """Check ``(N, *event)`` and bring it to the CPU in float64."""
    bounded = Kind.of(kind).bounded
    if x.ndim < 1 or not x.numel():
        raise ValueError(f"expected at least one datum, (N, *event), got shape {tuple(x.shape)}")
    integer = not (x.is_floating_point() or x.is_complex())
    if integer and bounded and x.max() > 1:
        raise ValueError(f"{kind} data: expected values of 0 to 1, got {int(x.max())}; divide 8-bit images by 255")
    return x.detach().to("cpu", torch.float64)


def images_of(x: Tensor) -> Tensor | None:
    """``(N, C, H, W)``, or None where the data are no images."""
    if x.ndim == 3:
        return x.unsqueeze(1)
    return x if x.ndim == 4 and x.shape[1] in (1, 3) else None


def limits_of(x: Tensor, kind: Kind | str) -> tuple[float, float]:
    """Ends of the colour scale."""
    if Kind.of(kind).bounded:
        return 0.0, 1.0
    values = x[x.isfinite()].sort().values
    if not len(values):
        return 0.0, 1.0
    margin = (len(values) - 1) // 100
    low, high = float(values[margin]), float(values[-1 - margin])
    if low == high:  # sparse counts: nearly all are zero
        low, high = float(values[0]), float(values[-1])
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def extend_of(kind: Kind | str) -> str:
    """Which ends of a colour bar go on, ``matplotlib``'s ``extend``."""
    return "neither" if Kind.of(kind).bounded else "both"


def tiled(images: Tensor, columns: int, limits: tuple[float, float], kind: Kind | str) -> tuple[Figure, Axes]:
    """One mosaic: grey with a colour bar where the scale is not 0 to 1, or RGB."""
    mosaic = _mosaic(images, columns)
    cells = max(columns, math.ceil(len(images) / columns))
    inches = min(12.0, max(3.0, 0.45 * cells, 3 * max(mosaic.shape[:2]) / DPI)) / max(mosaic.shape[:2])
    grey = mosaic.shape[-1] == 1
    bar = grey and extend_of(kind) == "both"
    figure, (ax,) = new_figure(max(2.0, mosaic.shape[1] * inches) + 1.2 + bar, max(0.4, mosaic.shape[0] * inches) + 0.5)
    ax.set_facecolor(GUTTER)
    low, high = limits
    if grey:
        image = ax.imshow(mosaic[..., 0].numpy(), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    else:
        colour = ((mosaic - low) / (high - low)).clamp(0, 1)
        opaque = mosaic.isfinite().all(-1, keepdim=True)
        image = ax.imshow(torch.cat((colour.nan_to_num(), opaque), -1).numpy(), interpolation="nearest")
    if bar:
        figure.colorbar(image, ax=ax, label="value", extend="both")
    ax.set(xticks=[], yticks=[])
    return figure, ax


def heat(ax: Axes, table: Tensor, limits: tuple[float, float], names: Sequence[str] = ()) -> AxesImage:
    """``(N, *event)``: rows are data, columns the features of the flattened event, called by their names if they are few."""
    ax.set_facecolor("lightgrey")  # where values are missing
    ax.set_xlabel("feature")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    low, high = limits
    cells = table.reshape(len(table), -1).numpy()
    if 0 < len(names) <= NAMED and len(names) == cells.shape[1]:
        ax.set_xlabel("")
        shown = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
        ax.set_xticks(range(len(names)), escaped(shown), rotation=90)
    return ax.imshow(cells, cmap="cividis", vmin=low, vmax=high, aspect="auto", interpolation="nearest")


def escaped(names: Sequence[str]) -> list[str]:
    """Names as they are: a dollar sign is no mathematics."""
    return [name.replace("$", r"\$") for name in names]


def points_on(ax: Axes, points: Tensor, colour: Any, names: Sequence[str] = ()) -> None:
    """``(N, 2)`` under the names of both, small translucent points, fewer of them larger; the axes have one unit of length."""
    size = min(25.0, max(4.0, 20_000 / len(points)))
    ax.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=size, c=colour, alpha=0.5, linewidths=0)
    ax.set_aspect("equal", adjustable="datalim")
    across, up = names if len(names) == 2 else ("feature 0", "feature 1")
    ax.set(xlabel=across, ylabel=up)


def _mosaic(images: Tensor, columns: int) -> Tensor:
    """Tile ``(N, C, H, W)`` row by row to ``(rows (H + 1) - 1, columns (W + 1) - 1, C)``, NaN between and after."""
    rows = math.ceil(len(images) / columns)
    _, C, H, W = images.shape
    cells = pad(images, (0, 1, 0, 1, 0, 0, 0, rows * columns - len(images)), value=math.nan)
    tiled = cells.reshape(rows, columns, C, H + 1, W + 1).permute(0, 3, 1, 4, 2)
    return tiled.reshape(rows * (H + 1), columns * (W + 1), C)[:-1, :-1]
