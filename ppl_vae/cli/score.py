"""``ppl-vae score``: how probable each row is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppl_vae import runs
from ppl_vae.cli.options import data_options, rows_of, run_options
from ppl_vae.cli.output import TABLES, as_arrays, as_table, done, writer

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    data: str | None,
    data_root: str | None,
    label: str | None,
    y: str | None,
    split: str | None,
    samples: int,
    out: str,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Write log p(x) of each row in nats, or the tightest lower bound on it, and the standard error of the estimate.

    A table (.csv, .parquet) and an .npz file have `log_prob` and `se`, an .npy file the first alone.
    """
    write = writer(out, *TABLES, ".npz", ".npy")
    fitted = runs.load_run(run, trust=trust, device=device)
    _, rows = rows_of(fitted, data, data_root, split or "all", label=label, y=y)
    found = fitted.score_samples(rows, samples=samples, seed=seed)
    columns = {"log_prob": found.log_prob.cpu().numpy(), "se": found.se.cpu().numpy()}
    write(as_table(columns) | as_arrays(columns))
    told = {"n": len(rows), "log_prob": float(found.log_prob.mean()), "exact": found.exact, "unit": fitted.unit, "out": out}
    done(told, as_json=json)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    data_options(parser, default="all")
    parser.add_argument("--samples", type=int, default=100, help="draws per row, where the model does not know log p(x)")
    parser.add_argument("--out", type=str, required=True, help="a table: .csv, .parquet; or .npz, .npy")
