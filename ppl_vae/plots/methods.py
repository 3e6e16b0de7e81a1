"""Methods side by side."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ppl_vae.plots.canvas import NATS, new_figure, points_on

__all__ = ["Comparison", "compare"]


class Comparison(Protocol):
    """What is drawn of :class:`ppl_vae.Comparison`."""

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The table."""

    @property
    def trajectories(self) -> Sequence[Sequence[Sequence[tuple[float, float]]]]:
        """Of each row and seed, seconds and the log-likelihood then."""

    @property
    def data(self) -> Any:
        """What was fitted to."""

    @property
    def fits(self) -> Sequence[Sequence[Any]]:
        """Of each row and seed the fit."""


@runtime_checkable
class Mixture(Protocol):
    """A fitted model whose p(x) is a mixture of normal distributions."""

    @property
    def gaussians(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights ``(K,)``, means ``(K, D)`` and covariances ``(K, D, D)``."""


def compare(comparison: Comparison) -> Figure:
    """How fast and how far each method of a comparison came.

    Left: log-likelihood of the training data against seconds, thin lines for the other seeds. Right: how many nats per datum
    each method ends behind the best, on training and test data, and its gap; shorter bars are better. For mixtures of
    two-dimensional data a third panel shows each method's components over the data, at one and two standard deviations.

    Args:
        comparison: what :func:`ppl_vae.compare` returned.
    """
    rows = comparison.rows
    models = [fits[0].pair.model for fits in comparison.fits]
    mixtures = [model.gaussians for model in models if isinstance(model, Mixture)]
    plane = math.prod(comparison.data.train.event_shape) == 2 and len(mixtures) == len(models)
    height = max(5.0 if plane else 4.0, 1.5 + 0.8 * len(rows)) + 0.2 * math.ceil(len(rows) / 2)
    figure, axes = new_figure(16 if plane else 11, height, columns=3 if plane else 2)
    colours = [mpl.colormaps["tab10"](i % 10) for i in range(len(rows))]
    _trajectories(axes[0], comparison, colours)
    _behind(axes[1], rows, colours)
    if plane:
        _components(axes[2], comparison, mixtures, colours)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 if len(rows) > 3 else 4)
    return figure


def _trajectories(ax: Axes, comparison: Comparison, colours: Sequence[Any]) -> None:
    """A line per method and seed on a logarithmic axis of time; the later 90 % of each one's points are in view."""
    late, names = [], _names(comparison.rows)
    for colour, name, of_seeds in zip(colours, names, comparison.trajectories, strict=True):
        for i, trajectory in enumerate(of_seeds):
            seconds, values = zip(*trajectory, strict=True)
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
    labels = sorted({fit.score.label for fits in comparison.fits for fit in fits})
    ax.set(xlabel="seconds since the fit began", ylabel=NATS)
    ax.set_title(f"training {'log-likelihood' if exact else ' or '.join(labels)} (higher is better)")
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
    ax.set_yticks(range(len(rows)), [_in_lines(name) for name in _names(rows)], fontsize=9)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.9 * max(ax.get_xlim()[1], 1e-3))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set(xlabel=f"log-likelihood behind the best one; gap to the ELBO ({NATS})")
    ax.set_title("where each method ended (shorter is better)")
    ax.grid(axis="x", alpha=0.3)


def _components(ax: Axes, comparison: Comparison, mixtures: Sequence[Any], colours: Sequence[Any]) -> None:
    """Each method's ellipses of the first seed, over the data as the model sees them."""
    points_on(ax, comparison.data.train.transformed().flatten(1).cpu(), "silver")
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


def _in_lines(name: str) -> str:
    return "\n".join(textwrap.wrap(name.replace("(", " ("), 24, break_long_words=False))
