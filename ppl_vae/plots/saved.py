"""Runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ppl_vae.plots.canvas import NATS, new_figure
from ppl_vae.scores import ELBO
from ppl_vae.text import is_number
from ppl_vae.types import Score, score_of

__all__ = ["runs"]

BOUNDS = {"iwae": "importance-weighted bound", "ais": "AIS", "log_likelihood": "log-likelihood"}


def runs(
    rows: Sequence[Mapping[str, Any]],
    histories: Sequence[Sequence[Mapping[str, Any]]],
    scores: Sequence[Score | None] | None = None,
) -> Figure:
    """Where each run came, and on which way.

    Left: the validation score, which is the ELBO or what there is in place of it, or the training one where there is none,
    against the share of the fit's iterations, since an epoch of one method is not an iteration of another. Right: the bounds on
    log p(x) that each run ended at, with their standard errors.

    Args:
        rows: a run each, with ``run`` and the numbers it ended at.
        histories: the rows of each run's history.
        scores: those of programs that have one of their own, ``None`` for the others.

    Raises:
        ValueError: if there are not as many histories as rows.
    """
    if len(rows) != len(histories):
        raise ValueError(f"expected a history for each of {len(rows)} runs, got {len(histories)}")
    told = [
        score_of(history[0] if history else {}, own)
        for history, own in zip(histories, scores or [None] * len(rows), strict=True)
    ]
    figure, (left, right) = new_figure(11, max(4.0, 1.5 + 0.55 * len(rows)), columns=2)
    colours = [mpl.colormaps["tab10"](place % 10) for place in range(len(rows))]
    _ways(left, rows, histories, told, colours)
    _ends(right, rows, told, colours)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(rows)))
    return figure


def _ways(
    ax: Axes, rows: Sequence[Mapping[str, Any]], histories: Sequence[Any], scores: Sequence[Score], colours: Sequence[Any]
) -> None:
    late = []
    for row, history, score, colour in zip(rows, histories, scores, colours, strict=True):
        values = [each.get(f"valid_{score.name}", each.get(score.name)) for each in history]
        share = [100 * (place + 1) / len(values) for place in range(len(values))]
        points = [(x, y) for x, y in zip(share, values, strict=True) if is_number(y)]
        if points:
            ax.plot(*zip(*points, strict=True), color=colour, label=row["run"], marker="." if len(points) <= 30 else "")
            late += [y for _, y in points[len(points) // 10 :]]
    if late:
        margin = 0.06 * (max(late) - min(late)) or 0.05 * abs(late[0]) or 1.0
        ax.set_ylim(min(late) - margin, max(late) + margin)
    ax.set(xlabel="% of the fit's iterations", ylabel=NATS)
    labels = {score.label for score, history in zip(scores, histories, strict=True) if history}
    ax.set_title(f"{' or '.join(sorted(labels))} on the way (higher is better)")
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.grid(alpha=0.3)


def _ends(ax: Axes, rows: Sequence[Mapping[str, Any]], scores: Sequence[Score], colours: Sequence[Any]) -> None:
    labels = {score.name: score.label for score in (ELBO, *scores) if score.bound} | BOUNDS
    markers = dict(zip(labels, cycle("osD*Pv^X"), strict=False))
    for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        for name in labels:
            if row.get(name) is not None:
                ax.errorbar(row[name], place, xerr=row.get(f"{name}_se"), fmt=markers[name], color=colour, capsize=3)
    for name, label in labels.items():
        if any(row.get(name) is not None for row in rows):
            ax.plot([], [], markers[name], color="tab:gray", label=label)
    ax.set_yticks(range(len(rows)), [_short_name(row["run"]) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.ticklabel_format(axis="x", useOffset=False)
    ax.set(xlabel=NATS)
    ax.set_title("where each run ended (further right is better)")
    ax.legend(fontsize=8)
    ax.grid(axis="x", alpha=0.3)


def _short_name(run: str) -> str:
    return run if len(run) <= 28 else f"...{run[-25:]}"
