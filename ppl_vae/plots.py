"""Every picture of the library: plain tensors and history rows in, a matplotlib ``Figure`` out.

No function touches ``pyplot``: no backend is switched, no setting changed, and a figure that nobody
holds is freed. Show one by returning it in a notebook, keep one with `save`.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn.functional import pad

from ppl_vae.inference import Comparison
from ppl_vae.types import KINDS, Kind

__all__ = [
    "by_class",
    "compare",
    "comparison",
    "completions",
    "grid",
    "latent_scatter",
    "learning_curve",
    "manifold",
    "quantile_grid",
    "save",
]

DPI = 150
GUTTER = "lightsteelblue"  # neither black nor white, so it is told from every grey pixel
NATS = "nats per datum"


def grid(x: Tensor, *, columns: int | None = None, title: str | None = None, kind: Kind) -> Figure:
    """Data or samples at a glance.

    Images are tiled, row by row, with gutters of one pixel; a two-dimensional event is a scatter;
    every other event is flattened to a row of a heat map. Missing values (NaN) are left blank.

    Args:
        x: ``(N, *event)``; images are ``(1, H, W)``, ``(3, H, W)`` or ``(H, W)``.
        columns: images in a row, about the square root of N by default; only images use it.
        title: a line above the picture.
        kind: set of the values; ``binary`` and ``unit_interval`` are drawn on 0 to 1, every other
            kind on the 1st to 99th percentile.

    Raises:
        ValueError: if x is empty, columns is not positive, kind is unknown, or integer pixels exceed 1 on a 0 to 1 scale.
    """
    x = _values(x, kind)
    limits = _limits(x, kind)
    if (images := _images(x)) is not None:
        columns = math.ceil(math.sqrt(len(x))) if columns is None else columns
        if columns < 1:
            raise ValueError(f"columns: expected a positive number, got {columns}")
        figure, _ = _tiled(images, min(columns, len(x)), limits, kind)
    elif x.shape[1:] == (2,):
        figure, (ax,) = _figure(4.5, 4.5)
        _points(ax, x, "tab:blue")
    else:
        figure, (ax,) = _figure(6, 5)
        figure.colorbar(_heat(ax, x, limits), ax=ax, label="value", extend=_extend(kind))
        ax.set_ylabel("datum")
    if title is not None:
        figure.suptitle(title)
    return figure


def comparison(data: Tensor, reconstruction: Tensor, *, kind: Kind) -> Figure:
    """Data and their reconstructions on one scale, that of the data.

    Images alternate: a row of data, below it the row of their reconstructions. Tables are two heat
    maps side by side, two-dimensional data two scatters in one panel.

    Args:
        data: ``(N, *event)``, as for `grid`.
        reconstruction: ``(N, *event)``, such as the mean of the likelihood.
        kind: set of the values, as for `grid`.

    Raises:
        ValueError: if the shapes differ, or for the reasons of `grid`.
    """
    if data.shape != reconstruction.shape:
        raise ValueError(f"expected two tensors of one shape, got {tuple(data.shape)} and {tuple(reconstruction.shape)}")
    data, reconstruction = _values(data, kind), _values(reconstruction, kind)
    limits = _limits(data, kind)
    if (images := _images(data)) is not None:
        return _compare_images(images, reconstruction.reshape(images.shape), limits, kind)
    named = {"data": data, "reconstruction": reconstruction}
    if data.shape[1:] == (2,):
        figure, (ax,) = _figure(5, 5)
        for (name, points), colour in zip(named.items(), ("tab:blue", "tab:orange"), strict=True):
            _points(ax, points, colour)
            ax.plot([], [], "o", color=colour, label=name)  # the legend shows solid points, not the translucent ones
        ax.legend()
        ax.set_title("data and their reconstructions")
        return figure
    figure, axes = _figure(9, 5, columns=2)
    for ax, (name, table) in zip(axes, named.items(), strict=True):
        image = _heat(ax, table, limits)
        ax.set_title(name)
    axes[0].set_ylabel("datum")
    figure.colorbar(image, ax=axes, label="value", extend=_extend(kind))
    return figure


def learning_curve(history: Sequence[Mapping[str, Any]]) -> Figure:
    """The objective and its two halves against the epoch, in nats per datum.

    Left: training and validation ELBO, and the objective where it is not the ELBO. Right:
    reconstruction and KL, each on an axis of its own since they differ by orders of magnitude.
    Vertical limits fit the later 90 % of the epochs, so the first ones may leave the frame.

    Args:
        history: a row an epoch with ``epoch`` and ``elbo``, and where known ``objective``,
            ``reconstruction``, ``kl`` and ``valid_elbo``, ``valid_reconstruction``, ``valid_kl``,
            each in nats per datum; None stands for absent, other keys are ignored.

    Raises:
        ValueError: if history is empty or a row lacks ``epoch`` or ``elbo``.
    """
    if not history:
        raise ValueError("history: expected at least one row, got none; fit for one epoch or more")
    for row in history:
        if row.get("epoch") is None or row.get("elbo") is None:
            raise ValueError(f"history: every row needs 'epoch' and 'elbo', got the keys {sorted(row)}")
    halves = {"reconstruction": "reconstruction: E log p(x | z)", "kl": "KL of posterior from prior"}
    present = [name for name in halves if any(row.get(name) is not None for row in history)]
    figure, _ = _figure(9 if present else 5, 4, columns=0)
    axes = figure.subplot_mosaic([["elbo", name] for name in present] or [["elbo"]])
    objective = ("objective",) if any(_differs(row.get("objective"), row["elbo"]) for row in history) else ()
    for name, ax in axes.items():
        _curves(ax, history, (name, f"valid_{name}", *(objective if name == "elbo" else ())))
        ax.set_title({"elbo": "ELBO (higher is better)", **halves}[name])
    axes["elbo"].legend()
    return figure


def manifold(decoded: Tensor, *, kind: Kind) -> Figure:
    """Images decoded from a two-dimensional latent, each where its code lies under the prior.

    Args:
        decoded: ``(n, n, *event)`` images at the codes of `quantile_grid`; row 0 is the top, with the largest z2.
        kind: set of the values, as for `grid`.

    Raises:
        ValueError: if decoded is not a square of images, or for the reasons of `grid`.
    """
    images = _images(_values(decoded.flatten(0, 1), kind)) if decoded.ndim > 2 else None
    if images is None or decoded.shape[0] != decoded.shape[1]:
        raise ValueError(f"decoded: expected (n, n, *event) of images, got shape {tuple(decoded.shape)}")
    n = len(decoded)
    figure, ax = _tiled(images, n, _limits(images, kind), kind)
    shown = sorted({0, n // 4, n - 1 - n // 4, n - 1})
    z1 = quantile_grid(n)[0, :, 0]
    height, width = images.shape[-2] + 1, images.shape[-1] + 1
    ax.set_xticks([i * width + (width - 2) / 2 for i in shown], [f"{z1[i]:.2f}" for i in shown])
    ax.set_yticks([i * height + (height - 2) / 2 for i in shown], [f"{-z1[i]:.2f}" for i in shown])
    ax.set_xlabel("$z_1$, at equal steps of prior probability")
    ax.set_ylabel("$z_2$, at equal steps of prior probability")
    ax.set_title("decoded latent plane")
    return figure


def quantile_grid(n: int) -> Tensor:
    """Codes of `manifold`: a linear grid of the open unit square through the inverse normal CDF.

    ``z = Phi^-1((i + 1/2) / n)``, the medians of n cells of equal probability (Kingma and Welling, 2014, appendix A).

    Args:
        n: codes along each axis.

    Returns:
        ``(n, n, 2)``: z1 grows from left to right and z2 from the bottom row to the top row, row 0.

    Raises:
        ValueError: if n is not positive.

    >>> quantile_grid(3)[0]  # the top row: z1 grows, z2 is largest
    tensor([[-0.9674,  0.9674],
            [ 0.0000,  0.9674],
            [ 0.9674,  0.9674]])
    """
    if n < 1:
        raise ValueError(f"n: expected a positive number of codes, got {n}")
    z = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    z = (z - z.flip(0)) / 2  # exactly symmetric
    z2, z1 = torch.meshgrid(z.flip(0), z, indexing="ij")
    return torch.stack((z1, z2), dim=-1).to(torch.get_default_dtype())


def compare(comparison: Comparison) -> Figure:
    """How fast and how far each method of a comparison came.

    Left: log-likelihood of the training data against seconds, thin lines for the other seeds. Right: how many nats per datum
    each method ends behind the best, on training and test data, and its gap; shorter bars are better. For mixtures of
    two-dimensional data a third panel shows each method's components over the data, at one and two standard deviations.

    Args:
        comparison: what :func:`ppl_vae.compare` returned.
    """
    rows = comparison.rows
    mixtures = [getattr(fits[0].pair.model, "gaussians", None) for fits in comparison.fits]
    plane = math.prod(comparison.data.train.event_shape) == 2 and all(mixtures)
    height = max(5.0 if plane else 4.0, 1.5 + 0.8 * len(rows)) + 0.2 * math.ceil(len(rows) / 2)
    figure, axes = _figure(16 if plane else 11, height, columns=3 if plane else 2)
    colours = [mpl.colormaps["tab10"](i % 10) for i in range(len(rows))]
    _climbs(axes[0], comparison, colours)
    _behind(axes[1], rows, colours)
    if plane:
        _components(axes[2], comparison, mixtures, colours)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 if len(rows) > 3 else 4)
    return figure


def by_class(x: Tensor, classes: Sequence[str], *, kind: Kind, title: str = "a row: one z; a column: one class") -> Figure:
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


def completions(x: Tensor, known: Tensor, samples: Tensor, *, kind: Kind) -> Figure:
    """Data of which a part is known, and samples of the rest.

    Images alternate in a column: what is known, the samples, the truth. Everything else is drawn as `grid` draws it.

    Args:
        x: ``(N, *event)``, the truth.
        known: which entries are, ``(*event)``.
        samples: ``(S, N, *event)``.
        kind: set of the values, as for `grid`.

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
    return _table_of_images(rows, names, [""] * len(x), kind, "completions")


def latent_scatter(z: Tensor, y: Tensor | None = None, classes: Sequence[str] = ()) -> Figure:
    """Codes in the plane, coloured by class; more than two dimensions are projected by PCA.

    Args:
        z: ``(N, K)`` codes with K >= 2.
        y: ``(N,)`` class numbers, or None for one colour.
        classes: name of each class; the numbers where empty.

    Raises:
        ValueError: if z has another shape or non-finite entries, or y does not fit z and classes.
    """
    if z.ndim != 2 or not len(z) or z.shape[1] < 2:
        raise ValueError(f"z: expected (N, K) with N >= 1 and K >= 2, got {tuple(z.shape)}")
    z = z.detach().to("cpu", torch.float64)
    if not z.isfinite().all():
        raise ValueError("z: expected finite codes, got NaN or infinity; look at the learning curve for divergence")
    figure, (ax,) = _figure(6 if y is None else 7, 5.5)
    codes, axis_names = (z, ("$z_1$", "$z_2$")) if z.shape[1] == 2 else _pca(z)
    ax.set_title("latent codes" + (f", {z.shape[1]} dimensions projected by PCA" if z.shape[1] > 2 else ""))
    if y is None:
        _points(ax, codes, "tab:blue", axis_names)
        return figure
    labels, names = _classes(y, len(z), classes)
    colours = mpl.colormaps["tab10" if len(names) <= 10 else "turbo"]
    palette = [colours(i if len(names) <= 10 else i / (len(names) - 1)) for i in range(len(names))]
    _points(ax, codes, [palette[label] for label in labels], axis_names)  # one scatter, so no class covers another
    handles = [Line2D([], [], linestyle="", marker="o", color=colour) for colour in palette]
    ax.legend(handles, names, title="class", loc="center left", bbox_to_anchor=(1, 0.5), ncols=math.ceil(len(names) / 20))
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, whole or not at all; folders are made as needed.

    Args:
        figure: what to write.
        path: a file name that ends in ``.png``.

    Raises:
        ValueError: if the name ends otherwise.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path: expected a name that ends in .png, got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.1)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches outside pyplot, with a row of axes."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


def _values(x: Tensor, kind: Kind) -> Tensor:
    """Check ``(N, *event)`` and bring it to the CPU in float64."""
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    if x.ndim < 1 or not x.numel():
        raise ValueError(f"expected at least one datum, (N, *event), got shape {tuple(x.shape)}")
    integer = not (x.is_floating_point() or x.is_complex())
    if integer and kind in ("binary", "unit_interval") and x.max() > 1:
        raise ValueError(f"{kind} data: expected values of 0 to 1, got {int(x.max())}; divide 8-bit images by 255")
    return x.detach().to("cpu", torch.float64)


def _images(x: Tensor) -> Tensor | None:
    """``(N, C, H, W)``, or None where the data are no images."""
    if x.ndim == 3:
        return x.unsqueeze(1)
    return x if x.ndim == 4 and x.shape[1] in (1, 3) else None


def _limits(x: Tensor, kind: Kind) -> tuple[float, float]:
    """Ends of the colour scale."""
    if kind in ("binary", "unit_interval"):
        return 0.0, 1.0
    values = x[x.isfinite()].sort().values
    if not len(values):
        return 0.0, 1.0
    margin = (len(values) - 1) // 100
    low, high = float(values[margin]), float(values[-1 - margin])
    if low == high:  # sparse counts: nearly all are zero
        low, high = float(values[0]), float(values[-1])
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _extend(kind: Kind) -> str:
    return "neither" if kind in ("binary", "unit_interval") else "both"


def _mosaic(images: Tensor, columns: int) -> Tensor:
    """Tile ``(N, C, H, W)`` row by row to ``(rows (H + 1) - 1, columns (W + 1) - 1, C)``, NaN between and after."""
    rows = math.ceil(len(images) / columns)
    _, C, H, W = images.shape
    cells = pad(images, (0, 1, 0, 1, 0, 0, 0, rows * columns - len(images)), value=math.nan)
    tiled = cells.reshape(rows, columns, C, H + 1, W + 1).permute(0, 3, 1, 4, 2)
    return tiled.reshape(rows * (H + 1), columns * (W + 1), C)[:-1, :-1]


def _tiled(images: Tensor, columns: int, limits: tuple[float, float], kind: Kind) -> tuple[Figure, Axes]:
    """One mosaic: grey with a colour bar where the scale is not 0 to 1, or RGB."""
    mosaic = _mosaic(images, columns)
    cells = max(columns, math.ceil(len(images) / columns))
    inches = min(12.0, max(3.0, 0.45 * cells, 3 * max(mosaic.shape[:2]) / DPI)) / max(mosaic.shape[:2])
    grey = mosaic.shape[-1] == 1
    bar = grey and _extend(kind) == "both"
    figure, (ax,) = _figure(max(2.0, mosaic.shape[1] * inches) + 1.2 + bar, max(1.5, mosaic.shape[0] * inches) + 0.5)
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


def _table_of_images(x: Tensor, rows: Sequence[str], columns: Sequence[str], kind: Kind, title: str) -> Figure:
    """``(R, C, *event)`` with names at the sides; a `grid` where the data are no images."""
    flat = _values(x.flatten(0, 1), kind)
    images = _images(flat)
    if images is None:
        return grid(flat, kind=kind, title=title)
    figure, ax = _tiled(images, x.shape[1], _limits(flat, kind), kind)
    height, width = images.shape[-2:]
    for axis, size, names in ((ax.yaxis, height, rows), (ax.xaxis, width, columns)):
        if any(names):
            axis.set_ticks([(size - 1) / 2 + place * (size + 1) for place in range(len(names))], list(names))
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    figure.suptitle(title)
    return figure


def _compare_images(data: Tensor, reconstruction: Tensor, limits: tuple[float, float], kind: Kind) -> Figure:
    """Rows of at most ten data, each above the row of their reconstructions."""
    columns = min(len(data), 10)
    blank = -len(data) % columns
    rows = [pad(x, (0, 0, 0, 0, 0, 0, 0, blank), value=math.nan).unflatten(0, (-1, columns)) for x in (data, reconstruction)]
    figure, ax = _tiled(torch.stack(rows, dim=1).flatten(0, 2), columns, limits, kind)
    height = data.shape[-2]
    ax.set_yticks([(height - 1) / 2, height + 1 + (height - 1) / 2], ["data", "reconstruction"])
    figure.suptitle("data above their reconstructions")
    return figure


def _heat(ax: Axes, table: Tensor, limits: tuple[float, float]) -> AxesImage:
    """``(N, *event)``: rows are data, columns the features of the flattened event."""
    ax.set_facecolor("lightgrey")  # where values are missing
    ax.set_xlabel("feature")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    low, high = limits
    cells = table.reshape(len(table), -1).numpy()
    return ax.imshow(cells, cmap="cividis", vmin=low, vmax=high, aspect="auto", interpolation="nearest")


def _points(ax: Axes, points: Tensor, colour: Any, names: tuple[str, str] = ("feature 0", "feature 1")) -> None:
    """``(N, 2)`` small translucent points, fewer of them larger; the axes have one unit of length."""
    size = min(25.0, max(4.0, 20_000 / len(points)))
    ax.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=size, c=colour, alpha=0.5, linewidths=0)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel=names[0], ylabel=names[1])


def _differs(objective: float | None, elbo: float) -> bool:
    return objective is not None and not math.isclose(objective, elbo, rel_tol=1e-5, abs_tol=1e-8)


def _curves(ax: Axes, history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Training, validation and perhaps the objective in one panel."""
    styles = (("training", "tab:blue", "-"), ("validation", "tab:orange", "-"), ("objective", "tab:gray", "--"))
    for name, (label, colour, line) in zip(names, styles, strict=False):
        points = [(row["epoch"], row[name]) for row in history if row.get(name) is not None]
        if points:
            ax.plot(*zip(*points, strict=True), line, color=colour, label=label, marker="." if len(points) <= 30 else "")
    late = history[math.ceil(len(history) / 10) if len(history) >= 5 else 0 :]
    values = [row[name] for row in late for name in names if row.get(name) is not None and math.isfinite(row[name])]
    if values:
        margin = 0.05 * (max(values) - min(values)) or 0.05 * abs(values[0]) or 1.0
        ax.set_ylim(min(values) - margin, max(values) + margin)
    ax.set(xlabel="epoch", ylabel=NATS)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.grid(alpha=0.3)


def _climbs(ax: Axes, comparison: Comparison, colours: Sequence[Any]) -> None:
    """A line per method and seed on a logarithmic axis of time; the later 90 % of each one's points are in view."""
    late, names = [], _names(comparison.rows)
    for colour, name, climbs in zip(colours, names, comparison.climbs, strict=True):
        for i, climb in enumerate(climbs):
            seconds, values = zip(*climb, strict=True)
            ax.plot(seconds, values, color=colour, lw=0.8 if i else 2, alpha=0.5 if i else 1, label=None if i else name)
            ax.plot(seconds[-1], values[-1], "o", color=colour, ms=4 if i else 7)
            late += [value for value in values[len(values) // 10 :] if math.isfinite(value)]
    ax.set_xscale("log")
    if late:
        best = max(late)
        ax.axhline(best, color="tab:gray", ls=":", lw=1, label="best of all")
        margin = 0.06 * (best - min(late)) or 0.05 * abs(best) or 1.0
        ax.set_ylim(min(late) - margin, best + margin)
    exact = all(row["exact"] for row in comparison.rows)
    ax.set(xlabel="seconds since the fit began", ylabel=NATS)
    ax.set_title("training log-likelihood (higher is better)" if exact else "training ELBO (higher is better)")
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.grid(alpha=0.3)


def _behind(ax: Axes, rows: Sequence[Mapping[str, Any]], colours: Sequence[Any]) -> None:
    """Three horizontal bars per method: nats behind the best on training and test data, and the gap of its ELBO."""
    for place, (key, label) in enumerate((("train_log_likelihood", "train"), ("test_log_likelihood", "test"), ("gap", "gap"))):
        known = [row[key] for row in rows if row[key] is not None]
        for i, row in enumerate(rows):
            if row[key] is None:
                continue
            length = row[key] if key == "gap" else max(known) - row[key]
            y = i + (place - 1) * 0.27
            ax.barh(y, length, height=0.22, color=colours[i], alpha=(1.0, 0.6, 0.25)[place], xerr=row.get(f"{key}_sd"))
            behind = f"  ({length:.3f} behind)" if length else "  (best)"
            text = f"  {label} {row[key] + 0.0:.3f}{'' if key == 'gap' else behind}"
            ax.annotate(text, (length + (row.get(f"{key}_sd") or 0), y), va="center", fontsize=8)
    ax.set_yticks(range(len(rows)), [_wrapped(name) for name in _names(rows)], fontsize=9)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.9 * max(ax.get_xlim()[1], 1e-3))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set(xlabel=f"log-likelihood behind the best one; gap to the ELBO ({NATS})")
    ax.set_title("where each method ended (shorter is better)")
    ax.grid(axis="x", alpha=0.3)


def _components(ax: Axes, comparison: Comparison, mixtures: Sequence[Any], colours: Sequence[Any]) -> None:
    """Each method's ellipses of the first seed, over the data as the model sees them."""
    _points(ax, comparison.data.train.transformed().flatten(1).cpu(), "silver")
    styles = ("-", "--", "-.", ":")
    for i, (_, locs, covariances) in enumerate(mixtures):
        for loc, covariance in zip(locs.cpu(), covariances.cpu(), strict=True):
            variances, directions = torch.linalg.eigh(covariance)
            angle = math.degrees(math.atan2(directions[1, 1], directions[0, 1]))
            minor, major = (2 * variances.clamp_min(0).sqrt()).tolist()  # the diameters of one standard deviation
            for width in (1, 2):
                line = {"ls": styles[i % 4], "lw": 2.0 / width, "ec": colours[i], "fc": "none"}
                ax.add_patch(Ellipse(tuple(loc.tolist()), width * major, width * minor, angle=angle, **line))
        ax.plot(*locs.cpu().T, "+", color=colours[i], ms=9, mew=2)
    ax.set_title("components at 1 and 2 standard deviations")


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Methods, and their guides where these tell two rows apart."""
    alone = len({row["method"] for row in rows}) == len(rows)
    return [row["method"] if alone else f"{row['method']}, {row['guide']}" for row in rows]


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name.replace("(", " ("), 24, break_long_words=False))


def _pca(z: Tensor) -> tuple[Tensor, tuple[str, str]]:
    """Project ``(N, K)`` codes on the two leading axes of their scatter matrix; name the axes by explained variance."""
    z = z - z.mean(0)
    axes, variances, _ = torch.linalg.svd(z.T @ z)
    share = variances / variances.sum().clamp_min(torch.finfo(z.dtype).tiny)
    first, second = (f"principal component {i + 1} ({share[i]:.0%} of the variance)" for i in range(2))
    return z @ axes[:, :2], (first, second)


def _classes(y: Tensor, size: int, classes: Sequence[str]) -> tuple[list[int], Sequence[str]]:
    """Class number of each datum and name of each class."""
    if y.shape != (size,):
        raise ValueError(f"y: expected ({size},), a class number per code, got {tuple(y.shape)}")
    if y.is_floating_point() or y.is_complex():
        raise ValueError(f"y: expected integer class numbers, got {y.dtype}")
    names = classes or [str(i) for i in range(int(y.max()) + 1)]
    if y.min() < 0 or y.max() >= len(names):
        raise ValueError(f"y: expected class numbers 0 to {len(names) - 1}, got {int(y.min())} to {int(y.max())}")
    return y.tolist(), names
