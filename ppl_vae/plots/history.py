"""How a fit went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ppl_vae.plots.canvas import NATS, new_figure

__all__ = ["learning_curve"]


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
    figure, _ = new_figure(9 if present else 5, 4, columns=0)
    axes = figure.subplot_mosaic([["elbo", name] for name in present] or [["elbo"]])
    objective = ("objective",) if any(_differs(row.get("objective"), row["elbo"]) for row in history) else ()
    for name, ax in axes.items():
        _curves(ax, history, (name, f"valid_{name}", *(objective if name == "elbo" else ())))
        ax.set_title({"elbo": "ELBO (higher is better)", **halves}[name])
    axes["elbo"].legend()
    return figure


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
