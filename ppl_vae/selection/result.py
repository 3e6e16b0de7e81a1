"""What a selection found: the table, the best candidate and its fit."""

from __future__ import annotations

import dataclasses
import html
from typing import Any

from matplotlib.figure import Figure

from ppl_vae import plots
from ppl_vae.fitting.fitted import Fit
from ppl_vae.fitting.table import COLUMNS, aligned
from ppl_vae.models import Model
from ppl_vae.nested import path_of
from ppl_vae.selection.criteria import is_information
from ppl_vae.types import Record

__all__ = ["Selection"]

HEADS = {
    **COLUMNS,
    "free_parameters": "parameters",
    "bic": "BIC",
    "aic": "AIC",
    "heldout": "held-out",
    "cv": "cross-validated",
}
DIGITS = {"bic": 2, "aic": 2, "seconds": 3}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What :func:`~ppl_vae.select` found; ``print`` shows the table, the chosen row marked.

    ``rows`` holds a dictionary per candidate:

    - the fields that were chosen, by their joined names; of a declaration its words.
    - ``train_log_likelihood``: of the training rows, in nats per datum, exact or the bound that the history ends with.
    - ``free_parameters``: of the model, as its program counts them.
    - ``bic`` or ``aic``, as scikit-learn has them, the lower the better, and ``penalized``, the same over -2 N in nats per
      datum; or ``heldout`` or ``cv`` in nats per datum, the higher the better, with ``*_se``, its standard error over the rows.
    - ``seconds``: of the fits and their scores.
    - ``error``: why a candidate could not be fitted, which has no numbers then; else ``None``.

    Attributes:
        by, rule: how they were judged.
        fields: the names of the fields.
        rows: the table.
        place: of the chosen row.
        best: the declared model of that row.
        fit: its fit, to all training rows.
        size: N, the number of training rows.
        exact: whether the numbers are of log p(x), not of a bound.
    """

    by: str
    rule: str
    fields: tuple[str, ...]
    rows: list[Record]
    place: int
    best: Model
    fit: Fit
    size: int
    exact: bool

    def __str__(self) -> str:
        return f"{self.to_markdown()}\n{self.conclusion}"

    def _repr_html_(self) -> str:
        heads, *rows = self._cells()
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"{table}<p>{html.escape(self.conclusion)}</p>"

    @property
    def conclusion(self) -> str:
        """Which candidate was chosen, and by which rule."""
        chosen = ", ".join(f"{path_of(name)}={self.rows[self.place][name]}" for name in self.fields)
        how = "lowest" if is_information(self.by) else "highest"
        rule = f"the {how} {HEADS[self.by]}" if self.rule == "best" else f"the simplest within one standard error of the {how}"
        return f"chosen: {chosen}, {rule} ({self.size} training rows)"

    def to_dict(self) -> dict[str, Any]:
        """Plain values: how was judged, the rows, and the place of the chosen one among them."""
        names = ("by", "rule", "size", "exact", "rows", "place")
        return {name: getattr(self, name) for name in names}

    def to_markdown(self) -> str:
        """The rows as a Markdown table whose columns are also aligned as text; ± is the standard error, * the chosen row."""
        return aligned(self._cells(), words=len(self.fields))

    def plot(self) -> Figure:
        """The criterion against the field, with standard errors, the chosen candidate marked."""
        return plots.selection(self)

    def _cells(self) -> list[list[str]]:
        shown = ("train_log_likelihood", "free_parameters", self.by, "seconds")
        rows = [[HEADS.get(name, path_of(name)) for name in (*self.fields, *shown)]]
        for place, row in enumerate(self.rows):
            first, *others = (str(row[name]) for name in self.fields)
            words = [f"{first} *" if place == self.place else first, *others]
            rows.append([*words, *(self._cell(row, name) for name in shown)])
        return rows

    def _cell(self, row: Record, name: str) -> str:
        value, error = row.get(name), row.get(f"{name}_se")
        if value is None:
            return "failed" if name == self.by else "-"
        digits = 0 if name == "free_parameters" else DIGITS.get(name, 4)
        bound = "" if self.exact or name not in ("heldout", "cv", "train_log_likelihood") else ">= "
        return f"{bound}{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
