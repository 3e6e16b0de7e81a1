"""``ppl-vae outliers``: which rows are strange."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ppl_vae import runs
from ppl_vae.cli.options import data_options, rows_of, run_options
from ppl_vae.cli.output import TABLES, as_arrays, as_table, done, writer
from ppl_vae.declaration import require
from ppl_vae.types import FitWarning, OutlierScore

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["options", "run"]

STRANGEST = 5
"""So many rows are named, by their places from 0."""


def run(
    *,
    run: str,
    data: str | None,
    data_root: str | None,
    label: str | None,
    y: str | None,
    split: str | None,
    score: OutlierScore,
    samples: int,
    level: float,
    out: str,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Write how strange each row is, its rank from the strangest, and its p-value among the run's own held-out rows.

    A table (.csv, .parquet) and an .npz file have `log_prob`, `rank`, `p_value` and `score`, which is higher of a stranger row.
    """
    write = writer(out, *TABLES, ".npz")
    require(0 < level < 1, "a level between 0 and 1", level)
    fitted = runs.load_run(run, trust=trust, device=device)
    _, rows = rows_of(fitted, data, data_root, split or "all", label=label, y=y)
    kept = fitted.held_out_rows()
    found = fitted.outliers(rows, score=score, held_out=kept, samples=samples, seed=seed)
    columns = {name: values.cpu().numpy() for name, values in found._asdict().items()}
    write(as_table(columns) | as_arrays(columns))
    if level < (least := 1 / (kept.total + 1)):
        remark = (
            f"the p-values of {kept.total:g} held-out rows are {least:.2g} or more, so none is up to {level:g}: give a --level"
        )
        warnings.warn(f"{remark} of at least {least:.2g}, or look at the ranks", FitWarning, stacklevel=2)
    counts = {"n": len(rows), "score": score, "outliers": int((columns["p_value"] <= level).sum()), "level": level}
    strangest = columns["rank"].argsort()[:STRANGEST].tolist()
    done(counts | {"held_out": len(kept), "strangest": strangest, "out": out}, as_json=json)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    data_options(parser, default="all")
    parser.add_argument("--score", type=OutlierScore, default="log_prob", help="by what rows are strange; higher is stranger")
    parser.add_argument("--samples", type=int, default=100, help="draws per row, where the model does not know log p(x)")
    parser.add_argument("--level", type=float, default=0.01, help="the p-value up to which rows are counted as outliers")
    parser.add_argument("--out", type=str, required=True, help="a table: .csv, .parquet; or .npz")
