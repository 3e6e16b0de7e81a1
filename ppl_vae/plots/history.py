"""How a fit went."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ppl_vae.plots.canvas import NATS, new_figure
from ppl_vae.types import SCORES, Score, pass_name, score_of

__all__ = ["learning_curve", "tracked"]


def learning_curve(history: Sequence[Mapping[str, Any]], *, score: Score | None = None) -> Figure:
    """The objective and its two halves against the epoch, or the iteration of EM, in nats per datum.

    Left: the training and the validation score, which is the ELBO or what there is in place of it, and the objective where it
    is another number. Right: reconstruction and KL, each on an axis of its own since they differ by orders of magnitude.
    Dotted lines part the stages of a fit that has some. Vertical limits fit the later 90 % of the epochs, so the first ones may
    leave the frame.

    Args:
        history: a row an epoch with ``epoch`` and ``elbo``, ``log_joint`` or ``reconstruction``, and where known
            ``objective``, ``kl`` and the same with ``valid_`` before them, each in nats per datum; None stands for absent,
            other keys are ignored.
        score: of a program that has one of its own, whose name stands in the rows then.

    Raises:
        ValueError: if history is empty or a row lacks ``epoch`` or what is told of the others.
    """
    if not history:
        raise ValueError("history: expected at least one row, got none; fit for one epoch or more")
    told = score_of(history[0], score)
    for row in history:
        if row.get("epoch") is None or row.get(told.name) is None:
            raise ValueError(f"history: every row needs 'epoch' and {told.name!r}, got the keys {sorted(row)}")
    halves = {"reconstruction": "reconstruction: E log p(x | z)", "kl": "KL of posterior from prior"}
    present = [name for name in halves if name != told.name and any(row.get(name) is not None for row in history)]
    figure, _ = new_figure(9 if present else 5, 4, columns=0)
    axes = figure.subplot_mosaic([[told.name, name] for name in present] or [[told.name]])
    objective = ("objective",) if any(_differs(row.get("objective"), row[told.name]) for row in history) else ()
    for name, ax in axes.items():
        _curves(ax, history, (name, f"valid_{name}", *(objective if name == told.name else ())))
        ax.set_title({**halves, told.name: f"{told.title} (higher is better)"}[name])
    axes[told.name].legend()
    return figure


def tracked(history: Sequence[Mapping[str, Any]], *, score: Score | None = None) -> Figure | None:
    """Everything else that the history was asked to track on the validation data, a panel a number; ``None`` if nothing was.

    Args:
        history: a row an epoch with ``epoch`` and ``valid_*``; lists are drawn as a line for each of their numbers.
        score: of a program that has one of its own, which is no tracked number.

    Raises:
        ValueError: if history is empty.
    """
    if not history:
        raise ValueError("history: expected at least one row, got none; fit for one epoch or more")
    names = [name for name in dict.fromkeys(name for row in history for name in row) if _is_tracked(name, score)]
    if not names:
        return None
    columns = min(3, len(names))
    figure, _ = new_figure(4 * columns, 3.2 * math.ceil(len(names) / columns), columns=0)
    for place, name in enumerate(names):
        ax = figure.add_subplot(math.ceil(len(names) / columns), columns, place + 1)
        rows = [row for row in history if row.get(name) is not None]
        ax.plot([row["epoch"] for row in rows], [row[name] for row in rows], marker="." if len(rows) <= 30 else "")
        _mark_stages(ax, history)
        ax.set(xlabel=pass_name(history), title=name.removeprefix("valid_").replace("_", " "))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.grid(alpha=0.3)
    return figure


def _is_tracked(name: str, score: Score | None) -> bool:
    return name.startswith("valid_") and name.removeprefix("valid_") not in (*SCORES, "kl", score)


def _differs(objective: float | None, elbo: float) -> bool:
    return objective is not None and not math.isclose(objective, elbo, rel_tol=1e-5, abs_tol=1e-8)


def _mark_stages(ax: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """A dotted line where one stage of a fit ends and the next begins."""
    for row, following in itertools.pairwise(history):
        if row.get("stage") != following.get("stage"):
            ax.axvline((row["epoch"] + following["epoch"]) / 2, color="0.4", linestyle=":", linewidth=1)


def _curves(ax: Axes, history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Training, validation and perhaps the objective in one panel."""
    styles = (("training", "tab:blue", "-"), ("validation", "tab:orange", "-"), ("objective", "tab:gray", "--"))
    for name, (label, colour, line) in zip(names, styles, strict=False):
        points = [(row["epoch"], row[name]) for row in history if row.get(name) is not None]
        if points:
            ax.plot(*zip(*points, strict=True), line, color=colour, label=label, marker="." if len(points) <= 30 else "")
    _mark_stages(ax, history)
    late = history[math.ceil(len(history) / 10) if len(history) >= 5 else 0 :]
    values = [row[name] for row in late for name in names if row.get(name) is not None and math.isfinite(row[name])]
    if values:
        margin = 0.05 * (max(values) - min(values)) or 0.05 * abs(values[0]) or 1.0
        ax.set_ylim(min(values) - margin, max(values) + margin)
    ax.set(xlabel=pass_name(history), ylabel=NATS)
    if len(history) == 1:
        ax.set_xlim(history[0]["epoch"] - 1, history[0]["epoch"] + 1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.grid(alpha=0.3)
