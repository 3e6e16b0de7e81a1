"""``ppl-vae impute``: rows with their missing entries filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_vae import runs
from ppl_vae.cli.options import data_options, declared_rows, run_options
from ppl_vae.cli.output import TABLES, as_arrays, as_table, done, writer

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ppl_vae.fitting import Fit

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    data: str | None,
    data_root: str | None,
    label: str | None,
    y: str | None,
    draws: int | None,
    samples: int,
    out: str,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Fill missing entries of all rows from the observed ones, which stay as they are, or draw them.

    A table (.csv, .parquet) has the columns of the data, of draws one after the other under their numbers `draw`; an .npy file
    has `(n, ...)`, or `(draws, n, ...)`.
    """
    write = writer(out, *TABLES, ".npy")
    fitted = runs.load_run(run, trust=trust, device=device)
    fitted.check_fills()
    if out.endswith(TABLES) and len(fitted.spec.event_shape) != 1:
        raise ValueError(f"expected rows of one axis for a table, got {fitted.spec.event_shape}: write .npy")
    rows = fitted.rows_to_fill(declared_rows(fitted, data, data_root, label=label), y=y)
    x = fitted.impute(rows, draws=draws, samples=samples, seed=seed).cpu()
    write((as_table(_columns(fitted, x, draws)) if out.endswith(TABLES) else {}) | as_arrays({"x": x.numpy()}))
    filled = int(fitted.missing(rows).sum())
    done({"n": x.shape[0 if draws is None else 1], "filled": filled, "shape": list(x.shape), "out": out}, as_json=json)


def _columns(fitted: Fit, x: Any, draws: int | None) -> dict[str, np.ndarray]:
    from ppl_vae.data.native import FILLED
    from ppl_vae.fitting.outputs import data_columns

    if draws is None:
        return data_columns(x, fitted.spec, between=FILLED)
    number = np.repeat(np.arange(1, draws + 1), x.shape[1])
    return {"draw": number, **data_columns(x.flatten(0, 1), fitted.spec, between=FILLED)}


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    data_options(parser, default=None)
    parser.add_argument("--draws", type=int | None, help="so many draws of each row in place of the one most fitting value")
    parser.add_argument("--samples", type=int, default=200, help="draws of z per row, where the guide fills")
    parser.add_argument("--out", type=str, required=True, help="a table: .csv, .parquet; or .npy")
