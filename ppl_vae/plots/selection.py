"""Candidates side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ppl_vae.nested import path_of
from ppl_vae.plots.canvas import NATS, new_figure

__all__ = ["Selection", "selection"]

LABELS = {
    "bic": "BIC (lower is better)",
    "aic": "AIC (lower is better)",
    "heldout": f"held-out log-likelihood, {NATS} (higher is better)",
    "cv": f"cross-validated log-likelihood, {NATS} (higher is better)",
}


class Selection(Protocol):
    """What is drawn of :class:`ppl_vae.Selection`."""

    @property
    def by(self) -> str:
        """The criterion."""

    @property
    def fields(self) -> Sequence[str]:
        """The names of the fields that are chosen."""

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The table."""

    @property
    def place(self) -> int:
        """Of the chosen row."""


def selection(found: Selection) -> Figure:
    """The criterion of each candidate, with standard errors where there are some, the chosen one marked.

    Values of a lone field that are numbers stand where they are on the axis; others side by side, each with its name. A band
    shows one standard error of the best. Candidates that could not be fitted are left out.

    Args:
        found: what :func:`ppl_vae.select` returned.
    """
    known = [(place, row) for place, row in enumerate(found.rows) if row.get(found.by) is not None]
    numeric = len(found.fields) == 1 and all(_is_number(row[found.fields[0]]) for _, row in known)
    places = [row[found.fields[0]] if numeric else at for at, (_, row) in enumerate(known)]
    values = [row[found.by] for _, row in known]
    errors = [row[f"{found.by}_se"] for _, row in known if f"{found.by}_se" in row]
    figure, (ax,) = new_figure(max(6.0, 0.5 * len(known) + 2), 4)
    ax.errorbar(places, values, yerr=errors or None, fmt="o-" if numeric else "o", capsize=3, zorder=2)
    at = next(at for at, (place, _) in enumerate(known) if place == found.place)
    ax.plot(places[at], values[at], "o", ms=13, mfc="none", mec="tab:red", mew=2, label=f"chosen: {_name(found, known[at][1])}")
    if errors:
        best = max(range(len(values)), key=values.__getitem__)
        ax.axhspan(
            values[best] - errors[best], values[best], color="tab:gray", alpha=0.2, label="one standard error of the best"
        )
    if numeric:
        whole = all(isinstance(place, int) for place in places)
        ax.xaxis.set_major_locator(MaxNLocator(integer=whole, steps=[1, 2, 5, 10]))
    else:
        ax.set_xticks(places, [_name(found, row) for _, row in known], rotation=30, ha="right")
    ax.set(xlabel=", ".join(map(path_of, found.fields)), ylabel=LABELS[found.by])
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def _name(found: Selection, row: Mapping[str, Any]) -> str:
    return ", ".join(str(row[name]) for name in found.fields)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
